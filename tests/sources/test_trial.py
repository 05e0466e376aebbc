"""Trial runs: one look at the source that ends soon, however much it holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.archive import (
    FIRST_DAY,
    ArchiveObject,
    Maker,
    path_of,
    write_folder,
    zipped,
)
from tests.support.collector import READ_TOKEN
from tests.support.event_server import EventServer
from tests.support.faulty_s3 import LISTING, FaultyS3
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import lines_of, url_of
from tests.support.streams import ALL_STREAMS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap
    from tests.support.tap import Run


def config(store: FaultyS3, **settings: Any) -> dict[str, Any]:
    return {"source": "s3://bucket", "storage_options": store.options, **settings}


def told(run: Run) -> str:
    """The one line that tells what a good trial has found."""
    assert run.status == 0, run.stderr
    assert "ERROR" not in run.stderr
    assert run.messages.schemas.keys() == ALL_STREAMS | {"erasures"}
    assert not run.messages.states
    [line] = [line for line in run.stderr.splitlines() if "The test has passed" in line]
    return line


def error_of(run: Run) -> str:
    """The one line that tells why a trial has failed, which has written nothing."""
    assert run.status == 1
    assert run.stdout == b""
    assert "Traceback" not in run.stderr
    [error] = [line for line in run.stderr.splitlines() if "ERROR" in line]
    return error


def broken(number: int) -> ArchiveObject:
    return ArchiveObject(path_of("source-b", 0, f"{number:03}.gz"), b"nonsense", FIRST_DAY, [])


def test_an_archive_is_listed_once_and_read_no_further_than_its_first_events(tap: ForkedTap):
    objects = Maker().small(30, 2_000)
    with FaultyS3(objects, page=25) as store:
        run = tap.run(config(store), "--test")
        assert [asked.path for asked in store.asked] == [LISTING, objects[0].path]
    line = told(run)
    assert run.messages.counts() == dict.fromkeys(ALL_STREAMS, 1)
    assert re.search(r"the first 1\d{3} events hold records of email_bounced, .*, tracks", line)


def test_objects_far_behind_are_not_read(tap: ForkedTap):
    objects = Maker(others=0).small(1, 1_500)
    with FaultyS3([*objects, *map(broken, range(3))]) as store:
        told(tap.run(config(store), "--test"))
        run = tap.run(config(store))
    assert run.status == 1
    assert f"{broken(0).path}: line 1: " in run.stderr


@pytest.mark.parametrize(
    ("lines", "looked_at"), [(3_500, 2), (20, 10)], ids=["large objects", "small objects"]
)
def test_an_archive_without_an_event_of_ours_costs_no_more(tap: ForkedTap, lines, looked_at):
    objects = Maker(others=1).small(15, lines)
    with FaultyS3(objects) as store:
        run = tap.run(config(store), "--test")
        asked = {asked.path for asked in store.asked}
        assert asked == {LISTING, *(made.path for made in objects[:looked_at])}
        assert len(store.asked_of(LISTING)) == 1
    assert "no event was found" in told(run)
    assert re.search(rf"the first \d+ lines, of {looked_at} objects,", run.stderr)
    assert run.messages.counts() == {}


def test_only_days_that_are_wanted_are_looked_at(tap: ForkedTap):
    objects = Maker(others=0).small(3, 100)
    with FaultyS3(objects) as store:
        run = tap.run(config(store, start_date="2025-03-12"), "--test")
        assert {asked.path for asked in store.asked} == {LISTING, objects[2].path}
        told(run)
        run = tap.run(config(store, start_date="2031-01-01"), "--test")
    assert "no object of an archive is there, or none of a day that is wanted" in error_of(run)


def test_lines_that_cannot_be_read_are_told_and_not_kept(tap: ForkedTap, tmp_path: Path):
    letters = tmp_path / "letters.ndjson"
    content, _ = Maker(others=0).content(50, 0)
    made = ArchiveObject(broken(0).path, zipped(b"nonsense\n{}\n" + content), FIRST_DAY, [])
    url = write_folder(tmp_path / "archive", [made])
    run = tap.run({"source": url, "dead_letter": str(letters)}, "--test")
    assert "the first 50 events hold" in told(run)
    assert "1 of them cannot be read" in run.stderr
    assert letters.read_bytes() == b""
    run = tap.run({"source": url}, "--test")
    assert f"source: {url}/{made.path}: line 1: " in error_of(run)


def test_where_nothing_can_be_read_there_is_no_archive(tap: ForkedTap, tmp_path: Path):
    letters = tmp_path / "letters.ndjson"
    url = write_folder(tmp_path / "archive", [broken(number) for number in range(3)])
    run = tap.run({"source": url, "dead_letter": str(letters)}, "--test")
    expected = f"source: {url}: none of the first 3 lines, of 3 objects, can be read"
    assert expected in error_of(run)
    assert letters.read_bytes() == b""


def test_a_dead_letter_file_that_cannot_be_written_is_told(tap: ForkedTap, tmp_path: Path):
    url = write_folder(tmp_path / "archive", Maker().small(1, 5))
    run = tap.run({"source": url, "dead_letter": "no/such/folder/letters"}, "--test")
    assert "dead_letter: cannot write" in error_of(run)


def test_a_collector_is_asked_for_a_page(tap: ForkedTap, tmp_path: Path):
    fill(tmp_path / "store.db", many(2_500))
    with EventServer(lines_of(tmp_path / "store.db")) as server:
        run = tap.run({"source": server.url, "token": READ_TOKEN}, "--test")
        assert [asked.limit for asked in server.asked] == [1, 1_000]
    assert "the first 1000 events hold" in told(run)


def test_events_that_no_setting_wants_are_told(tap: ForkedTap, tmp_path: Path):
    fill(tmp_path / "store.db", many(5))
    run = tap.run({"source": url_of(tmp_path / "store.db"), "end_date": "2020-01-01"}, "--test")
    assert "of the first 5 events none was received between start_date and end_date" in told(run)


def test_a_store_without_events_is_a_good_one(tap: ForkedTap, tmp_path: Path):
    fill(tmp_path / "store.db", [])
    run = tap.run({"source": url_of(tmp_path / "store.db")}, "--test")
    assert "no event was found" in told(run)


def test_a_stream_map_that_drops_records_is_no_fault(tap: ForkedTap, tmp_path: Path):
    fill(tmp_path / "store.db", many(30))
    maps = {"tracks": {"__filter__": "event == 'email_sent'"}}
    settings = {"source": url_of(tmp_path / "store.db"), "stream_maps": maps}
    run = tap.run(settings, "--test")
    told(run)
    assert [record["event"] for record in run.messages.records["tracks"]] == ["email_sent"]
