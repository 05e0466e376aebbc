"""Files that cannot be loaded into, and runs that are ended: one line, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tests.support.collector import clean_environment
from tests.support.duckdb_loading import (
    KEYED,
    Warehouse,
    record_message,
    schema_message,
    state_message,
)
from tests.support.mounts import make_read_only, small_disk
from tests.support.resident import peak
from tests.support.rounds import by_rounds, rounds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TARGET = [
    sys.executable,
    "-c",
    "from tap_vero_segment.targets.duckdb import TargetVeroDuckDB; TargetVeroDuckDB.cli()",
]
MOST_MEMORY = 300 << 20


@contextmanager
def running(folder: Path, warehouse: Path, **config: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The target as a process that reads from a pipe."""
    path = folder / "config.json"
    path.write_text(json.dumps({"filepath": str(warehouse), **config}))
    with subprocess.Popen(
        [*TARGET, "--config", str(path)],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def errors_of(folder: Path, warehouse: Path, lines: list[bytes], **config: Any) -> str:
    """The one error of a run that has to fail without a state."""
    with running(folder, warehouse, **config) as process:
        output, log = process.communicate(b"".join(lines), timeout=120)
    assert process.returncode == 1, log.decode()
    assert output == b""
    assert b"Traceback" not in log
    [error] = [line for line in log.decode().splitlines() if "| ERROR" in line]
    return error


def messages(start: int, stop: int, every: int = 500, filler: str = "") -> Iterator[bytes]:
    yield schema_message(KEYED, ["id"])
    for number in range(start, stop):
        yield record_message({"id": number, "value": f"{number}{filler}"})
        if number % every == every - 1 or number == stop - 1:
            yield state_message({"position": number + 1})


FEW = list(messages(0, 3))


def newer_file(path: Path) -> None:
    """A file that says that a newer DuckDB has written it.

    A header has a checksum, then "DUCK" and the version: see duckdb's ``main_header.cpp`` and
    ``checksum.cpp``.
    """
    duckdb.connect(str(path)).close()
    content = bytearray(path.read_bytes())
    content[12:20] = struct.pack("<Q", 99_999)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", content[8:4096]):
        checksum ^= (word * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    content[:8] = struct.pack("<Q", checksum)
    path.write_bytes(content)


def test_a_file_that_is_not_duckdbs_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("SQLite format 3\0" * 1000)
    assert f"filepath: {path} is not a DuckDB file" in errors_of(tmp_path, path, FEW)
    assert path.read_text() == "SQLite format 3\0" * 1000


def test_a_file_of_a_newer_duckdb(tmp_path: Path) -> None:
    path = tmp_path / "newer.duckdb"
    newer_file(path)
    assert f"{path} was written by a newer DuckDB than" in errors_of(tmp_path, path, FEW)


def test_a_file_that_another_process_holds(tmp_path: Path) -> None:
    path = tmp_path / "held.duckdb"
    code = f"import duckdb; c = duckdb.connect({str(path)!r}); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = f"filepath: another process (PID {holder.pid}) has {path} open"
        assert said in errors_of(tmp_path, path, FEW)
        holder.kill()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    error = errors_of(tmp_path, tmp_path / "nowhere" / "a.duckdb", FEW)
    assert error.endswith("a.duckdb: No such file or directory")


def test_a_disk_that_is_full_or_read_only_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        path = disk / "warehouse.duckdb"
        warehouse = Warehouse(path)
        warehouse.load(messages(0, 1000))
        filler = random.Random(1).randbytes(20_000).hex()
        error = errors_of(tmp_path, path, list(messages(1000, 1800, 10_000, filler)))
        assert "No space left on device" in error
        assert warehouse.query("SELECT count(*), max(id) FROM things") == [(1000, 999)]
        warehouse.load(messages(1000, 2000))
        assert warehouse.query("SELECT count(*) FROM things") == [(2000,)]
        make_read_only(disk)
        assert "Read-only file system" in errors_of(tmp_path, path, FEW)


def test_what_waits_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    folder = tmp_path / ".warehouse.duckdb.loading"
    folder.mkdir()
    (folder / "records").write_text("of a run that was killed")
    with running(tmp_path, path, batch_size_rows=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(messages(0, 3, 1)))
        process.stdin.flush()
        process.stdout.readline()  # loaded
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not (folder / "records").exists()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_loads_what_was_read_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "warehouse.duckdb"
    with running(tmp_path, path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(state_message({"position": 0}) + b"".join(messages(0, 1000)))
        process.stdin.write(b'{"type": "RECORD", "stream": "thi')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"position": 0}
        process.send_signal(number)
        output, log = process.stdout.read(), process.stderr and process.stderr.read()
        assert process.wait(60) == 0, log
    [state] = map(json.loads, output.splitlines())
    # What was read behind the last state is loaded too, and comes again with the next run.
    [(loaded,)] = Warehouse(path).query("SELECT count(*) FROM things")
    assert state["position"] <= loaded <= 1000


@by_rounds
def test_killed_at_any_moment_the_next_run_completes_it(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    chance = random.Random(20261123)
    position, total, kills = 0, 4000, 0
    for _ in range(rounds(30)):
        with running(tmp_path, path, batch_size_rows=97) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), True)
            process.stdin.write(b"".join(messages(position, total, 50)))
            process.stdin.flush()
            first = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.3))  # the moment is what chance decides
            process.kill()
            states = [first, *process.stdout.read().splitlines(keepends=True)]
        kills += 1
        position = json.loads([line for line in states if line.endswith(b"\n")][-1])["position"]
        [(count, distinct)] = Warehouse(path).query(
            "SELECT count(*), count(DISTINCT id) FROM things"
        )
        assert count == distinct >= position
        if total - position < 500:  # the rest of a batch would wait for its time, or for more
            position = 0
    Warehouse(path).load(messages(position, total))
    assert Warehouse(path).query("SELECT count(*), count(DISTINCT value) FROM things") == [
        (total, total)
    ]
    assert kills


def huge_rows() -> Iterator[bytes]:
    properties = {"id": {"type": "integer"}, "value": {"type": "string"}, "object": {}}
    yield schema_message(properties, ["id"])
    for number in range(5):
        record = {"id": number, "value": "é\n" * 1_000_000, "object": ["x" * 1000] * 5000}
        yield record_message(record)


def many_streams() -> Iterator[bytes]:
    for number in range(200):
        yield schema_message(KEYED, ["id"], f"stream{number}")
    for number in range(20_000):
        yield record_message({"id": number, "value": "x" * 2000}, f"stream{number % 200}")


def many_rows() -> Iterator[bytes]:
    yield from messages(0, 60_000, 10_000, "x" * 1000)


@pytest.mark.parametrize("lines", [huge_rows, many_streams, many_rows])
def test_memory_is_bounded(tmp_path: Path, lines: Any) -> None:
    path = tmp_path / "warehouse.duckdb"
    with running(tmp_path, path) as process:
        most = peak(process.pid)
        assert process.stdin is not None
        for line in lines():
            process.stdin.write(line)
        process.stdin.close()
        while process.poll() is None:
            # Not of wait4(), which counts what the tests' own process held when it forked.
            with suppress(OSError, ValueError):  # it has just ended
                most = peak(process.pid)
            time.sleep(0.01)
    assert process.returncode == 0
    assert most < MOST_MEMORY


def test_a_line_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    line = record_message({"id": 1, "value": "x" * (17 << 20)})
    error = errors_of(tmp_path, tmp_path / "a.duckdb", [schema_message(KEYED, ["id"]), line])
    assert error.endswith("the tap: line 2 is longer than 16 MB")


def test_lines_that_are_not_messages_are_one_line(tmp_path: Path) -> None:
    for line in (b"no json secret\n", b"[1]\n", b'{"type": "OTHER"}\n', b'{"type": "RECORD"}\n'):
        error = errors_of(tmp_path, tmp_path / "a.duckdb", [line])
        assert "the tap: line 1 is " in error
        assert "secret" not in error


def test_settings_of_target_duckdb_are_understood_or_reported(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    path = tmp_path / "warehouse.duckdb"
    config.write_text(json.dumps({"path": str(path), "delimiter": ";", "flush_all_streams": True}))
    done = subprocess.run(
        [*TARGET, "--config", str(config)],
        input=b"".join(FEW),
        env=clean_environment(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    log = done.stderr.decode()
    assert "there is no setting 'delimiter', so it is ignored" in log
    assert "there is no setting 'flush_all_streams', so it is ignored" in log
    assert "'path'" not in log
    assert Warehouse(path).query("SELECT count(*) FROM things") == [(3,)]
