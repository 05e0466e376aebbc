"""``vero-collector export``: a store's events as an archive, and back through the tap."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.vero import to_event
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.collector import clean_environment, collector_command, run_collector
from tests.support.events import read_events
from tests.support.faulty_s3 import FaultyS3, refused
from tests.support.load import Load
from tests.support.odd import odd
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.s3 import ACCESS_KEY, SECRET_KEY
from tests.support.store import fill
from tests.support.stored import fill_at, lines_of, url_of
from tests.support.streams import ALL_STREAMS, catalog_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import Collector
    from tests.support.forked_tap import ForkedTap
    from tests.support.s3 import S3
    from tests.support.tap import Messages

DAY = 86_400_000_000
EVERYTHING = catalog_of(*ALL_STREAMS)
VARIABLES = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def export(store: Path, to: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Export a store, which has to go well; return what was said."""
    done = run_collector(
        "export", "--store", url_of(store), "--to", to, *arguments, cwd=store.parent, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def calls_in(folder: Path) -> list[dict[str, Any]]:
    """Every call of an archive in a folder, object by object."""
    return [
        json.loads(line)
        for path in sorted(folder.rglob("*.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def ids_in(folder: Path) -> Counter[str]:
    return Counter(call["messageId"] for call in calls_in(folder))


def records(messages: Messages) -> dict[str, dict[str, dict[str, Any]]]:
    """A run's records by stream and id, but for the time at which they became readable."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for stream, of_stream in messages.records.items():
        ids = [record["id"] for record in of_stream]
        assert len(ids) == len(set(ids)), "an event came twice"
        found[stream] = {record["id"]: record | {"loaded_at": None} for record in of_stream}
    return found


# There and back


def payloads() -> list[dict[str, Any]]:
    """Payloads of every type, with all that is odd."""
    return [*many(3_000), *map(documented, EMAIL_TYPES + OTHER_TYPES), *odd(), *deepest()]


def deepest() -> list[dict[str, Any]]:
    """Payloads that are nested as deeply as a collector accepts."""
    value: Any = "bottom"
    for _ in range(97):
        value = [value]
    return [
        {"type": "sent", "user": {"id": 1, "traits": {"a": value}}},
        {"type": "sent", "user": {"id": 2}, "campaign": {"a": {"b": value}}},
        {"type": "sent", "user": {"id": 3}, "a": [[value]]},
    ]


def test_what_a_collector_received_comes_out_of_its_export_as_out_of_its_store(
    tap: ForkedTap, collector: Collector, s3: S3, tmp_path
):
    load = Load(collector.url, iter(payloads()))
    asyncio.run(load.run())
    assert len(load.acknowledged) == len(payloads())
    expected = records(tap.good({"source": collector.store_url}, catalog=EVERYTHING))
    assert sum(map(len, expected.values())) > 6_000

    folder = tmp_path / "archive"
    s3.make_bucket("exported")
    for to, options, env in (
        (folder.as_uri(), {}, {}),
        ("s3://exported/some/prefix", {"storage_options": s3.options}, s3.environment),
    ):
        said = export(collector.store, to, env=env)
        count = len(read_events(collector))
        assert said.startswith(f"{count} events in ")
        assert said.endswith(f" written to {to}")
        messages = tap.good({"source": to} | options, catalog=EVERYTHING)
        assert records(messages) == expected


def test_an_export_has_the_layout_of_segments_archives(tmp_path):
    store = tmp_path / "store.db"
    days = ["2025-03-10T23:59:59Z", "2025-03-11T00:00:00Z", "2025-03-10T00:00:00Z"]
    ids = fill_at(
        store,
        many(3),
        received_at=days,
        loaded_at=["2025-03-11T06:00:00Z", "2025-03-11T07:00:00Z", "2025-03-11T08:00:00Z"],
    )
    said = export(store, (tmp_path / "archive").as_uri())
    assert said == f"3 events in 2 objects written to {(tmp_path / 'archive').as_uri()}"
    paths = sorted(path for path in (tmp_path / "archive").rglob("*") if path.is_file())
    folders = [path.parent.relative_to(tmp_path / "archive").as_posix() for path in paths]
    assert folders == [
        "segment-logs/vero-collector/1741564800000",
        "segment-logs/vero-collector/1741651200000",
    ]
    contents = [gzip.decompress(path.read_bytes()).splitlines() for path in paths]
    assert [[json.loads(line)["messageId"] for line in lines] for lines in contents] == [
        [ids[0], ids[2]],
        [ids[1]],
    ]
    [call, _] = map(json.loads, contents[0])
    assert (call["type"], call["receivedAt"]) == ("track", "2025-03-10T23:59:59.000000Z")
    assert "loadedAt" not in call


# Again and again


def test_the_next_export_writes_what_is_new_and_nothing_else(tmp_path):
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    to = archive.as_uri()
    fill(store, many(300))
    assert export(store, to).startswith("300 events in ")
    written = {path: path.stat().st_mtime_ns for path in archive.rglob("*.gz")}
    assert export(store, to).startswith("0 events in 0 objects")
    fill(store, many(450)[300:])
    assert export(store, f"{to}/").startswith("150 events in ")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert ids_in(archive) == Counter(json.loads(line)["messageId"] for line in lines_of(store))
    assert len(ids_in(archive)) == 450


@pytest.mark.parametrize("name", ["x", "./a folder"])
def test_a_path_is_told_the_url_that_it_should_be(tmp_path, name):
    """Which is right as it stands, also for what a URL has to write otherwise."""
    store = tmp_path / "vero-events.db"
    fill(store, payloads()[:5])

    done = run_collector("export", "--store", url_of(store), "--to", name, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    said, _, url = done.stderr.strip().rpartition(" ")
    assert said == f"vero-collector: --to: {name} is a path, and a folder's URL is"
    export(store, url)
    assert len(calls_in(tmp_path / name)) == 5


def test_each_archive_gets_all(tmp_path):
    store = tmp_path / "store.db"
    fill(store, many(50))
    for name in ("one", "two"):
        assert export(store, (tmp_path / name).as_uri()).startswith("50 events")
    assert ids_in(tmp_path / "one") == ids_in(tmp_path / "two")


def test_before_bounds_what_is_written_and_the_rest_follows(tmp_path):
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    hours = [f"2025-03-11T{hour:02}:00:00Z" for hour in range(10)]
    ids = fill_at(store, many(10), received_at=hours, loaded_at=hours)
    to = archive.as_uri()
    export(store, to, "--before", "2025-03-11T04:00:00Z")
    assert ids_in(archive) == Counter(ids[:4])
    export(store, to, "--before", "2025-03-11T08:00:00+02:00")
    assert ids_in(archive) == Counter(ids[:6])
    export(store, to, "--before", "2025-03-11")
    assert ids_in(archive) == Counter(ids[:6])
    export(store, to)
    assert ids_in(archive) == Counter(ids)


def test_exports_broken_off_and_repeated_hold_each_event_once(tmp_path):
    """Whatever bound a broken-off export had, the next one replaces what it has left."""
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    chance = random.Random(8)
    fill_over_days(store, many(45_000), chance)
    loaded_at = [json.loads(line)["loadedAt"] for line in lines_of(store)]
    killed = 0
    for _ in range(8):
        bound = ["--before", chance.choice(loaded_at)] if chance.random() < 0.5 else []
        killed += killed_amid(store, archive, chance.randrange(1, 4), *bound)
    assert killed >= 3
    export(store, archive.as_uri())
    ids = ids_in(archive)
    assert set(ids.values()) == {1}
    assert ids.keys() == {json.loads(line)["messageId"] for line in lines_of(store)}


def killed_amid(store: Path, archive: Path, objects: int, *arguments: str) -> bool:
    """Start an export, and kill it when it has written so many objects; whether it was alive."""
    command = ["export", "--store", url_of(store), "--to", archive.as_uri(), *arguments]
    before = modified(archive)
    with subprocess.Popen(
        collector_command(*command),
        cwd=store.parent,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and len(modified(archive) - before) < objects:
            time.sleep(0.002)
        process.kill()
        return process.wait() == -signal.SIGKILL


def modified(archive: Path) -> set[tuple[Path, int]]:
    found = set()
    for path in archive.rglob("*.gz"):
        with suppress(FileNotFoundError):
            found.add((path, path.stat().st_mtime_ns))
    return found


def fill_over_days(store: Path, payloads: list[dict[str, Any]], chance: random.Random) -> None:
    """Store payloads that were received in the course of three days, in no order."""
    first = times.from_text("2025-03-11")
    events = [
        to_event(json.dumps(payload).encode(), first + chance.randrange(3 * DAY))
        for payload in payloads
    ]
    writer = SqliteWriter(url_of(store), "store")
    for start in range(0, len(events), 7_000):
        writer.write(events[start : start + 7_000], [])
    writer.close()


def test_exports_beside_a_running_collector_hold_each_event_once(collector: Collector, tmp_path):
    archive = tmp_path / "archive"
    load = Load(collector.url, iter(many(4_000)))

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            posting = group.create_task(load.run())
            await load.until_acknowledged(200)
            while not posting.done():
                await asyncio.to_thread(export, collector.store, archive.as_uri())

    asyncio.run(both())
    assert len(load.acknowledged) == 4_000
    export(collector.store, archive.as_uri())
    ids = ids_in(archive)
    assert set(ids.values()) == {1}
    assert ids.keys() == {event["messageId"] for event in read_events(collector)}
    assert len(ids) == 4_000


# What cannot be


@pytest.mark.parametrize(
    ("to", "arguments", "said"),
    [
        ("ftp://host/x", [], "--to: "),
        ("folder", [], "--to: "),
        ("s3://bucket", [], f"access denied (AccessDenied); see {VARIABLES}"),
        ("file:///dev/null/archive", [], "--to: "),
        ("file:///tmp/x", ["--before", "someday"], "--before"),
        ("file:///tmp/x", ["--store", "sqlite:///missing.db"], "missing.db"),
    ],
)
def test_an_export_that_cannot_be_says_why_in_a_line(tmp_path, to, arguments, said):
    store = tmp_path / "store.db"
    fill(store, many(3))
    with FaultyS3([]) as server:
        server.always = refused(403, "AccessDenied")
        env = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": server.endpoint,
        }
        done = run_collector(
            "export", "--store", url_of(store), "--to", to, *arguments, cwd=tmp_path, env=env
        )
    assert done.returncode != 0
    assert said in done.stderr
    for unwanted in ("Traceback", ACCESS_KEY, SECRET_KEY, "person"):
        assert unwanted not in done.stderr
