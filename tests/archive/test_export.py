"""``vero-collector export``: a store's events as an archive, and back through the tap."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
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
    from tests.support.faulty_s3 import Handler
    from tests.support.forked_tap import ForkedTap
    from tests.support.s3 import S3
    from tests.support.tap import Messages

DAY = 86_400_000_000
STRACE = shutil.which("strace")
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_exports_broken_off_and_repeated_hold_each_event_once(tmp_path):
    """Whatever bound a broken-off export had, the next one finishes what it has begun."""
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    chance = random.Random(8)
    fill_over_days(store, many(45_000), chance)
    received_at = [json.loads(line)["receivedAt"] for line in lines_of(store)]
    killed = 0
    for _ in range(8):
        bound = ["--before", chance.choice(received_at)] if chance.random() < 0.5 else []
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
        read_vero(json.dumps(payload).encode(), first + chance.randrange(3 * DAY))
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
        ("file:///tmp/a%00b", [], "--to: "),
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


# Nothing is overwritten


def prune(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_collector("prune", "--store", url_of(store), *arguments, cwd=store.parent)


def held(server: FaultyS3) -> Counter[str]:
    """The ids of an object store's events, and how often each is there."""
    return Counter(
        json.loads(line)["messageId"]
        for each in server.objects.values()
        for line in gzip.decompress(each.content).splitlines()
    )


def environment(server: FaultyS3) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_REGION": "eu-west-1",
    }


def test_two_exports_at_once_lose_nothing(tmp_path):
    """As a cron job does that overlaps: the slower one must not take anything back."""
    store = tmp_path / "store.db"
    ids = fill(store, many(50))
    came, go_on = threading.Event(), threading.Event()

    def waits(handler: Handler) -> bool:
        if handler.command == "PUT" and not came.is_set():
            came.set()
            go_on.wait(60)
        return False

    with FaultyS3([]) as server, ThreadPoolExecutor(1) as pool:
        server.always = waits
        env = environment(server)
        slower = pool.submit(export, store, "s3://bucket", env=env)
        assert came.wait(60)
        ids += fill(store, many(100)[50:])
        try:
            export(store, "s3://bucket", env=env)
        finally:
            go_on.set()
        slower.result()
        assert prune(store, "--before", "9999-01-01").stdout == "100 events deleted\n"
        assert held(server) == Counter(ids)


def test_a_restored_store_takes_nothing_from_an_archive(tap: ForkedTap, tmp_path):
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    ids = fill(store, many(100))
    backup = store.read_bytes()
    ids += fill(store, many(150)[100:])
    export(store, archive.as_uri())
    before = {path: path.read_bytes() for path in archive.rglob("*.gz")}

    for path in tmp_path.glob("store.db*"):
        path.unlink()
    store.write_bytes(backup)
    command = ("export", "--store", url_of(store), "--to", archive.as_uri())
    done = run_collector(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # which says that the store was checked
    ids += fill(store, [documented()])
    export(store, archive.as_uri())

    assert {path: path.read_bytes() for path in before} == before
    done = prune(store, "--before", "9999-01-01")
    assert done.stdout == "101 events deleted\n", done.stderr
    messages = tap.good({"source": archive.as_uri()}, catalog=EVERYTHING)
    found = {record["id"] for records in messages.records.values() for record in records}
    assert found == set(ids)
    assert len(found) == 151


@pytest.mark.parametrize("conditions", [True, False], ids=["conditional", "unconditional"])
def test_what_reads_otherwise_than_it_was_written_does_not_count(tmp_path, conditions):
    """Also with a server that has never heard of conditions."""
    store = tmp_path / "store.db"
    fill(store, many(20))

    def unconditional(handler: Handler) -> bool:
        if "If-None-Match" in handler.headers:
            handler.refuse(501, "NotImplemented")
            return True
        return False

    def loses(handler: Handler) -> bool:
        if not conditions and unconditional(handler):
            return True
        if handler.command == "PUT":
            handler.body = handler.body[:-20]
        return False

    with FaultyS3([]) as server:
        server.always = loses
        command = ("export", "--store", url_of(store), "--to", "s3://bucket")
        done = run_collector(*command, cwd=tmp_path, env=environment(server))
        assert done.returncode == 1
        assert "reads otherwise than it was written" in done.stderr
        assert prune(store, "--before", "9999-01-01").returncode == 1
        [broken] = server.objects

        server.always = None if conditions else unconditional
        done = run_collector(*command, cwd=tmp_path, env=environment(server))
        assert (done.returncode, list(server.objects)) == (1, [broken])
        assert f"s3://bucket/{broken}: is there already, with other content" in done.stderr
        del server.objects[broken]
        export(store, "s3://bucket", env=environment(server))
        assert list(server.objects) == [broken]
        assert prune(store, "--before", "9999-01-01").stdout == "20 events deleted\n"


# By the time of receipt


def test_a_clock_that_was_wrong_once_keeps_nothing_from_export_and_prune(tmp_path):
    """One event while the clock stood at 2099: ``loaded_at`` stays there, and receipt does not."""
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    days = [f"2025-03-{day:02}T12:00:00Z" for day in range(1, 11)]
    received = [*days[:4], "2099-06-01T00:00:00Z", *days[4:]]
    loaded = [*days[:4], *["2099-06-01T00:00:00Z"] * 7]
    ids = fill_at(store, many(11), received_at=received, loaded_at=loaded)
    before = ("--before", "2025-03-08")
    export(store, archive.as_uri(), *before)
    assert ids_in(archive) == Counter(ids[:4] + ids[5:8])
    assert prune(store, *before).stdout == "7 events deleted\n"
    assert prune(store, "--before", "2026-01-01").returncode == 1
    export(store, archive.as_uri(), "--before", "2026-01-01")
    assert prune(store, "--before", "2026-01-01").stdout == "3 events deleted\n"
    assert [json.loads(line)["messageId"] for line in lines_of(store)] == [ids[4]]
    export(store, archive.as_uri())
    assert ids_in(archive) == Counter(ids)


# How files are written


def test_an_archive_is_as_private_as_the_store(tmp_path):
    store, folder = tmp_path / "store.db", tmp_path / "there"
    fill(store, many(5))
    folder.mkdir(mode=0o750)
    export(store, (folder / "some" / "archive").as_uri())
    paths = list((folder / "some").rglob("*"))
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {True: 0o700, False: 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert [path.suffix for path in paths if path.is_file()] == [".gz"]

    folder.chmod(0o2750)  # its files are its group's
    export(store, (folder / "others").as_uri())
    paths = list((folder / "others").rglob("*"))
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {True: 0o2750, False: 0o640}


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_files_and_folders_are_synced_before_the_store_knows_of_them(tmp_path):
    store, archive = tmp_path / "store.db", tmp_path / "new" / "archive"
    fill(store, many(5))
    output = tmp_path / "trace"
    done = subprocess.run(
        [
            *(str(STRACE), "-f", "-y", "-o", str(output)),
            *("-e", "trace=fsync,link,linkat,mkdir,mkdirat,pwrite64,fdatasync"),
            *collector_command("export", "--store", url_of(store), "--to", archive.as_uri()),
        ],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "ptrace" in done.stderr.lower():
        pytest.skip(f"strace cannot trace here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    [path] = archive.rglob("*.gz")
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()

    def at(*words: str) -> int:
        """The last line that holds these words."""
        found = [n for n, line in enumerate(lines) if all(word in line for word in words)]
        assert found, words
        return found[-1]

    linked = at("link", f'"{path}"')
    assert at("fsync(", ".part>") < linked < at("fsync(", f"<{path.parent}>")
    for folder in [path.parent, *path.parent.parents][:5]:
        made = at("mkdir", f'"{folder}"')
        assert made < at("fsync(", f"<{folder.parent}>")
    # What comes last in the store's log is the note that the archive has it.
    assert at("fsync(", f"<{path.parent}>") < at("sync(", "store.db-wal>")


# Memory


@pytest.mark.slow
def test_large_events_are_not_held_together(tmp_path):
    """Of 480 KB each, 800 of them once took 1.2 GB."""
    store, archive = tmp_path / "store.db", tmp_path / "archive"
    chance = random.Random(5)
    writer = SqliteWriter(url_of(store), "store")
    for number in range(200):
        large = {"type": "sent", "user": {"id": number}, "x": chance.randbytes(240_000).hex()}
        event = read_vero(json.dumps(large).encode(), times.now())
        writer.write([event._replace(body=None)], [])
    writer.close()
    command = collector_command("export", "--store", url_of(store), "--to", archive.as_uri())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.splitlines()[-1]) < 150_000
    assert len(ids_in(archive)) == 200


# A process begins with the peak of the one that it was started from, which must be a small one.
MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss, flush=True)
sys.exit(status)
"""
