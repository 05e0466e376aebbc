"""Files that are no longer the ones that were opened: nothing is acknowledged into them."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import psycopg
import pytest

from tap_vero_segment.stores.base import StoreBrokenError
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.stores.test_any_store import events, ids, letters
from tests.support.stored import url_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "vero-events.db"


def store(folder: Path, number: int, seed: int = 7) -> Path:
    """A store of its own, closed; return its file."""
    folder.mkdir()
    with closing(SqliteWriter(url_of(folder / NAME), "store")) as writer:
        writer.write(events(number, seed), [])
    return folder / NAME


def back_up(path: Path) -> Path:
    """A copy, as docs/operating/backup.md says to make one."""
    copy = path.parent.parent / "copy.db"
    copy_by_sqlite(path, copy)
    return copy


def copy_by_sqlite(source: Path, target: Path) -> None:
    with (
        closing(apsw.Connection(str(source))) as store,
        closing(apsw.Connection(str(target))) as copy,
        copy.backup("main", store, "main") as backup,
    ):
        backup.step()


def fold(path: Path) -> None:
    """Take all that is in the log to the file, as happens after some megabytes."""
    with closing(apsw.Connection(str(path))) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def delete(path: Path) -> None:
    path.unlink()


def delete_all(path: Path) -> None:
    shutil.rmtree(path.parent)


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace_folder(path: Path) -> None:
    move_folder(path)
    store(path.parent, 3)


def replace(path: Path) -> None:
    os.replace(store(path.parent / "other", 3), path)  # noqa: PTH105


def delete_log(path: Path) -> None:
    path.with_name(f"{NAME}-wal").unlink()


def replace_log(path: Path) -> None:
    log = path.with_name(f"{NAME}-wal")
    os.replace(shutil.copy(log, f"{log}-copy"), log)  # noqa: PTH105


def cut_log(path: Path) -> None:
    os.truncate(path.with_name(f"{NAME}-wal"), 0)


def delete_memory(path: Path) -> None:
    path.with_name(f"{NAME}-shm").unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite_by_another(path: Path) -> None:
    shutil.copyfile(store(path.parent / "other", 300), path)


def overwrite_by_a_small_one(path: Path) -> None:
    shutil.copyfile(store(path.parent / "other", 3), path)


EVERYTHING = [
    *(delete, delete_all, move, move_folder, replace_folder, replace),
    *(delete_log, replace_log, cut_log, delete_memory),
    *(empty, cut, overwrite_by_another, overwrite_by_a_small_one),
]


@pytest.mark.parametrize("harm", EVERYTHING, ids=lambda harm: harm.__name__)
def test_what_happens_to_a_file_in_use_is_noticed(tmp_path, harm: Callable[[Path], None]):
    path = store(tmp_path / "store", 40)
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        writer.write(events(10, seed=1), [])
        assert writer.check() == 0

        harm(path)
        with pytest.raises(StoreBrokenError) as raised:
            writer.check()
        if harm is not delete_memory:  # which costs nothing before another process writes
            with pytest.raises(StoreBrokenError):
                writer.write(events(10, seed=2), [])

    assert "while it was in use" in str(raised.value)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "work",
    [
        lambda writer: writer.probe(),
        lambda writer: writer.prune(2**62),
        lambda writer: writer.resolve(1, events(3, seed=2)),
        lambda writer: writer.discard([1]),
    ],
    ids=["probe", "prune", "resolve", "discard"],
)
def test_whatever_a_command_does_in_it_notices(tmp_path, work: Callable[[SqliteWriter], None]):
    path = store(tmp_path / "store", 5)
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        writer.write([], letters(1))
        replace(path)
        with pytest.raises(StoreBrokenError):
            work(writer)


def test_a_backup_that_is_copied_over_the_file_is_noticed_and_left_as_it_is(tmp_path):
    path = store(tmp_path / "store", 40)
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        copy = back_up(path)
        writer.write(events(10, seed=1), [])
        writer.check()
        fold(path)
        writer.check()
        shutil.copyfile(copy, path)
        with pytest.raises(StoreBrokenError):
            writer.write(events(1, seed=2), [])

    assert path.read_bytes() == copy.read_bytes()


def test_a_backup_that_sqlite_itself_puts_back_is_noticed(tmp_path):
    path = store(tmp_path / "store", 40)
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        copy = back_up(path)
        writer.write(events(10, seed=1), [])
        copy_by_sqlite(copy, path)
        with pytest.raises(StoreBrokenError):
            writer.check()
        with pytest.raises(StoreBrokenError):
            writer.write(events(1, seed=2), [])


def test_a_link_that_is_pointed_elsewhere_is_noticed(tmp_path):
    one, other = store(tmp_path / "one", 3), store(tmp_path / "other", 3)
    link = tmp_path / NAME
    link.symlink_to(one)
    with closing(SqliteWriter(url_of(link), "store")) as writer:
        writer.write(events(10, seed=1), [])
        writer.check()
        link.unlink()
        link.symlink_to(other)
        with pytest.raises(StoreBrokenError):
            writer.write(events(10, seed=2), [])


def test_another_process_s_log_is_left_alone(tmp_path):
    path = store(tmp_path / "store", 40)
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        replace_folder(path)
        with closing(SqliteWriter(url_of(path), "store")) as other:
            other.write(events(10, seed=1), [])
            with pytest.raises(StoreBrokenError):
                writer.write(events(10, seed=2), [])
            writer.close()
            other.write(events(10, seed=3), [])

    with SqliteReader(url_of(path), "store") as reader:
        assert len(ids(reader)) == 23


def test_a_mark_that_is_gone_is_written_anew(tmp_path, caplog):
    path = store(tmp_path / "store", 3)
    mark = path.with_name(f"{NAME}-mark")
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        for harm in (mark.unlink, lambda: os.replace(shutil.copy(mark, f"{mark}2"), mark)):  # noqa: PTH105
            writer.write(events(10, seed=len(caplog.messages)), [])
            before = mark.read_bytes()
            harm()
            writer.check()
            assert mark.read_bytes() == before
    assert len([line for line in caplog.messages if "-mark was deleted" in line]) == 2


@pytest.mark.parametrize("harm", ["vacuum", "prune", "fold"])
def test_what_is_allowed_beside_a_writer_is_no_harm(tmp_path, harm):
    path = store(tmp_path / "store", 1_500)
    with closing(SqliteWriter(url_of(path), "store")) as writer:
        writer.write(events(10, seed=1), [])
        with closing(SqliteWriter(url_of(path), "store")) as other:
            for number in range(2, 5):
                if harm == "prune":
                    other.prune(2**62)
                if harm == "vacuum":
                    other.prune(2**62)
                    with closing(apsw.Connection(str(path))) as by_hand:
                        by_hand.execute("VACUUM")
                if harm == "fold":
                    fold(path)
                writer.check()
                assert writer.write(events(10, seed=number), []) == 10
                other.check()


# PostgreSQL


def test_a_schema_that_is_dropped_is_noticed(database):
    with closing(PostgresWriter(database, "store")) as writer:
        writer.write(events(3), [])
        with closing(psycopg.connect(database, autocommit=True)) as administrator:
            administrator.execute("DROP SCHEMA vero_collector CASCADE")
        for work in (writer.check, writer.probe, lambda: writer.write(events(3, seed=1), [])):
            with pytest.raises(StoreBrokenError, match="start again"):
                work()


@pytest.mark.parametrize("by", ["write", "check"])
def test_a_database_that_is_set_back_is_noticed(database, by):
    with closing(PostgresWriter(database, "store")) as writer:
        writer.write(events(3), [])
        with closing(psycopg.connect(database, autocommit=True)) as administrator:
            administrator.execute("DROP SCHEMA vero_collector CASCADE")
        PostgresWriter(database, "store").close()  # another collector makes it anew
        with pytest.raises(StoreBrokenError, match="older state"):
            writer.check() if by == "check" else writer.write(events(3, seed=1), [])
