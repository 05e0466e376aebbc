"""``vero-collector prune``: deleting what an archive has, beside all else that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import subprocess
import time
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from tap_vero_segment import times
from tap_vero_segment.collector.commands.export import export as export_here
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import DeadLetter, Total
from tap_vero_segment.stores.open import open_writer
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.archived import archived, killed_when
from tests.support.collector import Collector, clean_environment, run_collector
from tests.support.events import status
from tests.support.load import Load
from tests.support.payloads import documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.stored import fill_at, stored, url_of
from tests.support.tap import read_messages, run_tap, tap_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

NOW = times.from_text("2026-11-23T09:24:00Z")
FUTURE = "9999-01-01"
HOURS = [f"2025-03-11T{hour:02}:00:00Z" for hour in range(10)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "vero-events.db"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def run(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_collector(*arguments, "--store", url_of(store), cwd=store.parent)


def good(store: Path, *arguments: str) -> str:
    done = run(store, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def export(store: Path, archive: Path, *arguments: str) -> str:
    return good(store, "export", "--to", archive.as_uri(), *arguments)


def ids_of(store: Path) -> list[str]:
    return [event.id for event in stored(store)]


def fill(store: Path, payloads: Iterable[dict[str, Any]], clock: int = NOW) -> list[str]:
    """Fill a store in a large group, each event received later; return the ids in order."""
    writer = SqliteWriter(url_of(store), "store", lambda: clock)
    events = [read_vero(json.dumps(payload).encode(), next(_moments)) for payload in payloads]
    writer.write(events, [])
    writer.close()
    return [event.id for event in events]


_moments = itertools.count(NOW)


def assert_counted_right(store: Path) -> None:
    """The totals are those of a scan."""
    with apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY) as opened:
        rows = opened.execute(
            "SELECT collection, count(*), min(loaded_at), max(loaded_at) FROM events "
            "GROUP BY collection"
        ).fetchall()
    with SqliteReader(url_of(store), "store") as reader:
        assert sorted(reader.summary().totals) == sorted(Total(*row) for row in rows)


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    for words in said:
        assert words in line


# What it deletes


def test_what_was_exported_is_deleted_and_nothing_else(store, archive):
    ids = fill_at(store, many(10), received_at=HOURS, loaded_at=HOURS)
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], [DeadLetter(NOW, "vero", "not JSON", b"nonsense")])
    writer.close()
    assert export(store, archive).startswith("10 events")

    assert good(store, "prune", "--before", "2025-03-11T04:00:00") == "4 events deleted"
    assert ids_of(store) == ids[4:]
    assert good(store, "prune", "--before", "2025-03-11T08:00:00+02:00") == "2 events deleted"
    assert ids_of(store) == ids[6:]
    assert good(store, "prune", "--before", "2025-03-11T06:00:00Z") == "0 events deleted"
    assert_counted_right(store)
    figures = json.loads(good(store, "status", "--json"))
    assert figures["first_loaded_at"] == "2025-03-11T06:00:00.000000Z"
    assert (figures["events"], figures["quarantined"]) == (4, 1)

    assert good(store, "prune", "--before", FUTURE) == "4 events deleted"
    figures = json.loads(good(store, "status", "--json"))
    assert (figures["events"], figures["quarantined"]) == (0, 1)
    assert figures["first_loaded_at"] is figures["last_loaded_at"] is None
    for each in figures["collections"].values():
        assert each == {"events": 0, "first_loaded_at": None, "last_loaded_at": None}
    assert dict(archived(archive)) == dict.fromkeys(ids, 1)


def test_what_no_archive_has_is_refused(store, archive, tmp_path):
    ids = fill_at(store, many(10), received_at=HOURS, loaded_at=HOURS)
    assert_refused(
        run(store, "prune", "--before", HOURS[5]),
        "no archive has any",
        "`vero-collector export --to URL --before 2025-03-11T05:00:00.000000Z`",
        "--force",
    )
    export(store, tmp_path / "other", "--before", HOURS[3])
    export(store, archive, "--before", HOURS[5])
    assert_refused(
        run(store, "prune", "--before", FUTURE), "archives have it to 2025-03-11T04:00:00.000000Z"
    )
    assert_refused(run(store, "prune", "--before", "2025-03-11T05:00:00.000001Z"))
    assert ids_of(store) == ids

    assert good(store, "prune", "--before", HOURS[5]) == "5 events deleted"
    assert_refused(run(store, "prune", "--before", HOURS[6]))
    assert good(store, "prune", "--before", HOURS[6], "--force") == "1 events deleted"
    assert ids_of(store) == ids[6:]


def test_an_export_goes_on_where_it_was_after_a_prune(store, archive, tmp_path):
    ids = fill_at(store, many(10), received_at=HOURS, loaded_at=HOURS)
    export(store, archive, "--before", HOURS[7])
    good(store, "prune", "--before", HOURS[4])

    assert export(store, archive, "--before", HOURS[2]).startswith("0 events in 0 objects")
    assert export(store, archive, "--before", FUTURE).startswith("3 events")
    assert dict(archived(archive)) == dict.fromkeys(ids, 1)
    assert export(store, tmp_path / "late").startswith("6 events")  # what is still there

    good(store, "prune", "--before", FUTURE)
    assert export(store, archive).startswith("0 events in 0 objects")
    assert export(store, tmp_path / "later").startswith("0 events in 0 objects")


def test_loaded_at_goes_on_rising_after_all_was_pruned(tmp_path):
    with Collector(tmp_path) as collector:
        # From a clock that is ahead: to the collector's own, it has stepped back since.
        fill(collector.store, many(20), clock=times.from_text("2100-01-01"))
        last = stored(collector.store)[-1].loaded_at
        good(collector.store, "prune", "--before", FUTURE, "--force")
        collector.post(documented())
        first, *_ = stored(collector.store)
        good(collector.store, "prune", "--before", FUTURE, "--force")
        assert stored(collector.store) == []
        assert collector.stop() == 0
        collector.start()
        collector.post(documented())  # the same again: a new one, as its id is free
        assert status(collector)["events"] == 1

    [event] = stored(collector.store)
    assert last < first.loaded_at < event.loaded_at
    assert event.id == first.id
    assert_counted_right(collector.store)


def test_the_shared_store_is_pruned_likewise(database, archive, tmp_path):
    with contextlib.closing(open_writer(database, "store")) as writer:
        writer.write([read_vero(json.dumps(payload).encode(), NOW) for payload in many(50)], [])

    def run_there(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_collector(*arguments, "--store", database, cwd=tmp_path)

    assert_refused(run_there("prune", "--before", FUTURE), "no archive has any")
    assert run_there("export", "--to", archive.as_uri()).returncode == 0
    assert run_there("prune", "--before", FUTURE).stdout == "50 events deleted\n"
    assert json.loads(run_there("status", "--json").stdout)["events"] == 0
    assert len(archived(archive)) == 50


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--before", "2025-03-11"], 1, "store: "),
        (["--before", "someday"], 2, "someday"),
        ([], 2, "--before"),
    ],
)
def test_what_cannot_be_is_told_and_makes_no_store(tmp_path, arguments, status, said):
    done = run_collector("prune", *arguments, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


# Beside others


def test_no_event_is_deleted_that_no_archive_has(collector: Collector, archive: Path):
    """Export and prune as fast as they can beside a busy collector, both of all there is."""
    load = Load(collector.url, iter(many(4_000)))
    pruned: list[int] = []

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            posting = group.create_task(load.run())
            await load.until_acknowledged(100)

            def going_on() -> bool:
                return not posting.done() or sum(pruned) <= 100

            async def exporting() -> None:
                while going_on():
                    await asyncio.to_thread(export, collector.store, archive)

            async def pruning() -> None:
                before = [FUTURE]
                while going_on():
                    done = await asyncio.to_thread(
                        run, collector.store, "prune", "--before", before[0]
                    )
                    if done.returncode:
                        # Up to what it says is exported, which the next export moves on.
                        before[0] = done.stderr.partition("have it to ")[2].partition(")")[0]
                        before[0] = before[0] or FUTURE
                    else:
                        pruned.append(int(done.stdout.split()[0]))
                        before[0] = FUTURE

            group.create_task(exporting())
            group.create_task(pruning())

    asyncio.run(both())
    assert (load.refused, load.unanswered, len(load.acknowledged)) == ([], [], 4_000)
    export(collector.store, archive)
    ids = archived(archive)
    assert set(ids.values()) == {1}
    assert ids.keys() == {
        read_vero(json.dumps(payload).encode(), NOW).id for payload in load.acknowledged
    }
    assert_counted_right(collector.store)


@by_rounds
def test_killed_at_any_point_export_and_prune_lose_nothing(store, archive):
    """Archive and store are everything, in each round, and each event is there once."""
    count = rounds(20, least=8)
    chance = random.Random(9)
    payloads = iter(many(30_000))
    ids: list[str] = []
    killed = {"export": 0, "prune": 0}
    for number in range(count):
        ids += fill(store, itertools.islice(payloads, 1_500))
        if number % 2:
            broken_off = _after_a_change_of(archive, chance.random() * 0.01)
            killed["export"] += killed_when(
                store.parent,
                broken_off,
                *("export", "--store", url_of(store), "--to", archive.as_uri()),
            )
        else:
            export_here(url_of(store), archive.as_uri(), None)
        with SqliteReader(url_of(store), "store") as reader:
            left = _held(reader) - chance.randint(1, 1_500)
            killed["prune"] += killed_when(
                store.parent,
                lambda reader=reader, left=left: _held(reader) <= left,
                *("prune", "--store", url_of(store)),
                *("--before", exported_before(reader)),
            )
        assert_counted_right(store)
        kept = ids_of(store)
        assert kept == ids[len(ids) - len(kept) :]
        assert archived(archive).keys() >= set(ids[: len(ids) - len(kept)])

    assert killed["export"] >= count // 5
    assert killed["prune"] >= count // 2
    export(store, archive)
    assert dict(archived(archive)) == dict.fromkeys(ids, 1)
    assert good(store, "prune", "--before", FUTURE) == f"{len(kept)} events deleted"
    assert ids_of(store) == []


def exported_before(reader: SqliteReader) -> str:
    """The time before which all that is there was exported."""
    [written] = reader.exports().values()
    span = reader.span(times.EARLIEST, times.LATEST, written[-1].until, times.LATEST)
    return FUTURE if span is None else times.to_text(span.first_received_at)


def _held(reader: SqliteReader) -> int:
    return sum(total.events for total in reader.summary().totals)


def _after_a_change_of(folder: Path, seconds: float) -> Callable[[], bool]:
    """Return a condition: so long ago, a file has come to a folder."""
    before = set(folder.rglob("*.gz"))
    changed: list[float] = []

    def condition() -> bool:
        if not changed and set(folder.rglob("*.gz")) != before:
            changed.append(time.monotonic())
        return bool(changed) and time.monotonic() - changed[0] >= seconds

    return condition


def test_a_tap_that_runs_beside_a_prune_skips_what_is_gone_and_nothing_else(store, tmp_path):
    fill_from = next(_moments) + 1
    ids = fill(store, many(12_000))
    before = times.to_text(fill_from + 9_000)
    config = {"source": url_of(store)}
    with subprocess.Popen(
        tap_command(tmp_path, config),
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    ) as tap:
        assert tap.stdout is not None
        first = tap.stdout.readline()  # it has fixed its mark, and waits to be read
        said = good(store, "prune", "--before", before, "--force")
        output = first + tap.stdout.read()
        assert tap.wait(timeout=60) == 0
    assert said == "9000 events deleted"
    messages = read_messages(output.splitlines())
    found = set(messages.ids())
    assert [name for name in ids if name in found] == messages.ids()
    assert found >= set(ids[9_000:])
    assert len(found) < 12_000, "the prune came too late to be in its way"
    assert messages.state is not None

    again = run_tap(tmp_path, config, state=messages.state)
    assert again.messages.ids() == []
    assert again.messages.state == messages.state
    newer = fill(store, [documented() | {"user": {"id": "newer"}}])
    last = run_tap(tmp_path, config, state=messages.state)
    assert last.messages.ids() == newer
