"""``vero-collector backup`` and ``restore``: complete, checked, and taken by the next start."""

from __future__ import annotations

import random
import shutil
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import apsw
import pytest

from tap_vero_segment.stores.open import backup
from tests.support.archived import killed_when
from tests.support.collector import (
    Collector,
    clean_environment,
    collector_command,
    run_collector,
    wait_until,
)
from tests.support.damage import flip
from tests.support.events import read_events, status
from tests.support.payloads import documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.store import fill
from tests.support.stored import stored, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = b"not JSON"


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Collector]:
    """A running collector with events and a dead letter, in a folder of its own."""
    folder = tmp_path / "collector"
    folder.mkdir()
    with Collector(folder) as running:
        for payload in many(20):
            running.post(payload)
        running.post(BODY)
        yield running


def run(collector: Collector, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_collector(*arguments, "--store", collector.store_url, cwd=collector.folder.parent)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


def ids(store: Path) -> list[str]:
    return [event.id for event in stored(store)]


def test_a_backup_has_all_that_was_acknowledged_before(filled, tmp_path):
    ended = threading.Event()

    def post() -> None:
        for payload in many(10_000, seed=2):
            filled.post(payload)
            if ended.is_set():
                return

    posting = threading.Thread(target=post)
    posting.start()
    wait_until(lambda: len(read_events(filled)) > 40)
    before = {each["messageId"] for each in read_events(filled)}
    done = run(filled, "backup", "copy.db")
    ended.set()
    posting.join()
    assert done.returncode == 0, done.stderr

    assert {path.name for path in tmp_path.iterdir()} == {"collector", "copy.db"}
    copy = tmp_path / "copy.db"
    assert before <= set(ids(copy))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "events up to 2" in done.stdout
    assert "and 1 dead letters are in copy.db" in done.stdout


def test_a_restored_store_is_taken_at_once(filled, tmp_path):
    run(filled, "backup", "copy.db")
    figures = status(filled)
    (tmp_path / "other").mkdir()
    (tmp_path / "copy.db").chmod(0o400)
    other = Collector(tmp_path / "other")

    done = run(other, "restore", "copy.db")

    assert done.returncode == 0, done.stderr
    assert f"are in {other.store}" in done.stdout
    assert stat.S_IMODE(other.store.stat().st_mode) == 0o600
    assert stat.S_IMODE(other.store.with_name("vero-events.db-mark").stat().st_mode) == 0o600
    with other:
        assert status(other) == figures
        assert other.post(documented("opened")).status_code == 200
        assert len(read_events(other)) == 21
    assert "checking all of it" not in other.log()


def test_nothing_is_overwritten(filled, tmp_path):
    (tmp_path / "copy.db").write_bytes(b"mine")
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere")

    for name in ("copy.db", "link.db"):
        assert "is there already" in refused(run(filled, "backup", name))
    assert "there is no folder" in refused(run(filled, "backup", "missing/copy.db"))

    assert (tmp_path / "copy.db").read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"collector", "copy.db", "link.db"}


def test_a_store_in_use_is_not_replaced(filled, tmp_path):
    run(filled, "backup", "copy.db")
    assert "add --replace" in refused(run(filled, "restore", "copy.db"))
    assert "is open in another process" in refused(run(filled, "restore", "copy.db", "--replace"))
    assert filled.post(documented("opened")).status_code == 200
    assert len(read_events(filled)) == 21


def test_a_store_that_is_replaced_is_kept_aside_with_its_files(filled, tmp_path):
    run(filled, "backup", "copy.db")
    filled.post(documented("opened"))
    filled.kill()  # its log stays beside it

    done = run(filled, "restore", "copy.db", "--replace")

    assert done.returncode == 0, done.stderr
    [aside] = [
        path for path in filled.folder.iterdir() if ".replaced-" in path.name and path.suffix != ""
        and not path.name.endswith(("-wal", "-shm", "-mark"))
    ]  # fmt: skip
    assert str(aside) in done.stdout
    assert len(ids(aside)) == 21
    assert len(ids(filled.store)) == 20
    with filled:
        assert filled.post(documented("opened")).status_code == 200
        assert len(read_events(filled)) == 21


def test_a_damaged_store_gives_no_backup_and_can_be_replaced(filled, tmp_path):
    run(filled, "backup", "copy.db")
    filled.stop()
    flip(filled.store, random.Random(7), 400, 100)
    shutil.copy(filled.store, tmp_path / "damaged.db")

    assert "damaged" in refused(run(filled, "backup", "second.db"))
    assert not (tmp_path / "second.db").exists()
    other = Collector(tmp_path / "other")
    (tmp_path / "other").mkdir()
    assert "FILE" in (line := refused(run(other, "restore", "damaged.db"))) or "damaged" in line
    assert list((tmp_path / "other").iterdir()) == []

    done = run(filled, "restore", "copy.db", "--replace")
    assert done.returncode == 0, done.stderr
    assert len(ids(filled.store)) == 20


@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "other"])
def test_what_is_no_backup_is_refused(tmp_path, content):
    file = tmp_path / "copy.db"
    if content is None:
        with apsw.Connection(str(file)) as connection:
            connection.execute("CREATE TABLE events (loaded_at INTEGER)")
    else:
        file.write_bytes(content)
    store = url_of(tmp_path / "store.db")
    done = run_collector("restore", "copy.db", "--store", store, cwd=tmp_path)
    assert refused(done).startswith("vero-collector: FILE: ")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]


def test_a_full_disk_leaves_nothing(tmp_path):
    fill(tmp_path / "store.db", many(500))
    command = collector_command("backup", "copy.db", "--store", url_of(tmp_path / "store.db"))
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path for path in tmp_path.iterdir() if "copy" in path.name] == []


def test_a_store_behind_a_link_is_restored_behind_it(tmp_path):
    fill(tmp_path / "store.db", many(5))
    backup(url_of(tmp_path / "store.db"), "store", tmp_path / "copy.db")
    (tmp_path / "data").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "data" / "real.db")
    store = url_of(tmp_path / "link.db")
    for options in ([], ["--replace"]):
        done = run_collector("restore", "copy.db", "--store", store, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(ids(tmp_path / "link.db")) == 5
    assert (tmp_path / "link.db").is_symlink()


def test_a_shared_store_is_backed_up_by_its_own_means(database, tmp_path):
    for arguments in (["backup", "copy.db"], ["restore", "copy.db"]):
        done = run_collector(*arguments, "--store", database, cwd=tmp_path)
        assert "pg_dump" in refused(done)


@by_rounds
def test_a_backup_that_is_killed_is_whole_or_not_there(tmp_path):
    fill(tmp_path / "store.db", many(3_000))
    expected = ids(tmp_path / "store.db")
    copy = tmp_path / "copy.db"
    chance = random.Random(1)
    for _ in range(rounds(30, least=1)):
        size = chance.randrange(1, 3_000_000)

        def reached(size: int = size) -> bool:
            return any(part.stat().st_size >= size for part in tmp_path.glob(".copy.db.*.part"))

        killed_when(
            tmp_path, reached, "backup", "copy.db", "--store", url_of(tmp_path / "store.db")
        )
        if copy.exists():
            assert ids(copy) == expected
            copy.unlink()
        for left in tmp_path.glob(".copy.db.*"):
            left.unlink()
    assert ids(tmp_path / "store.db") == expected
