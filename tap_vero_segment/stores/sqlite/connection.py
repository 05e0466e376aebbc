"""Opening the file, and making sure of it."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import apsw
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random

from tap_vero_segment.errors import SettingError
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.base import StoreBrokenError
from tap_vero_segment.stores.sqlite.errors import store_error
from tap_vero_segment.stores.sqlite.high_water_mark import NOTHING, Known, check_mark, read_mark
from tap_vero_segment.stores.sqlite.integrity import (
    check_all,
    check_newest,
    newest,
    translating_errors,
)

if TYPE_CHECKING:
    from collections.abc import Generator

MIGRATIONS: Final = (
    resources.files("tap_vero_segment.stores.sqlite").joinpath("schema.sql").read_text("utf-8"),
)
"""Each takes a store from the schema of its place, the first one from an empty file, to the next.

The schema's version is their number. A new store takes all of them; one that an older release wrote
takes those that it lacks when a collector opens it. One that was released is never changed.
"""

logger = logging.getLogger("vero-collector")

BUSY_TIMEOUT: Final = 10_000
"""Milliseconds to wait for another process that writes."""

ALONE_TIMEOUT: Final = 500
"""Milliseconds to wait for others to close it: readers do so soon, and a collector never does."""

LITTLE_ROOM: Final = 64 * 1024 * 1024
"""Bytes: a disk with less is nearly full; a small one, when a twentieth of it is left."""

APPLICATION_ID: Final = 0x5665726F
"""``Vero``, in the file's header: tells the store from any other SQLite file."""


def path_of(url: str, setting: str) -> Path:
    """Return the file of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    Raises:
        SettingError: The URL names no file.
    """
    path = url.removeprefix("sqlite:///")
    if path == url or not Path(path).name or path.startswith("?"):
        raise SettingError(
            setting, "an SQLite store is sqlite:///relative.db or sqlite:////absolute.db"
        )
    return Path(path)


def open_to_read(path: Path, setting: str, *, alone: bool = False) -> apsw.Connection:
    """Open a store's file for reading only.

    Args:
        path: The file.
        setting: The name of the setting that the path came from, for errors.
        alone: Nobody writes it, and nothing is written beside it, so that it is read on a medium
            that is for reading only, too.

    Raises:
        SettingError: There is no file, it cannot be read, or it is no store.
    """
    try:
        if not path.exists():
            raise SettingError(setting, f"there is no file {path.resolve()}")
        if not path.is_file():
            raise SettingError(setting, f"{path} is not a file")
        known = _known(path)
        flags = apsw.SQLITE_OPEN_READONLY | (apsw.SQLITE_OPEN_URI if alone else 0)
        name = f"{path.absolute().as_uri()}?immutable=1" if alone else str(path)
        connection = apsw.Connection(name, flags=flags)
        connection.set_busy_timeout(BUSY_TIMEOUT)
        version = _version(connection, path, setting)
        with translating_errors():
            found = Known(*newest(connection)) if version else NOTHING
        check_mark(known, found, path)
    except apsw.Error as error:
        raise _cannot_open(error, path, setting) from error
    except StoreBrokenError as error:
        raise SettingError(setting, f"{path}: {error}") from error
    except OSError as error:
        raise SettingError(setting, f"cannot open {path}: {error.strerror}") from error
    if version == len(MIGRATIONS):
        return connection
    connection.close()
    if version == 0:
        raise _not_ours(path, setting)
    raise SettingError(
        setting,
        f"{path} was written by an older release (schema {version}, this one reads "
        f"{len(MIGRATIONS)}): start vero-collector once, which upgrades it",
    )


def open_to_write(path: Path, setting: str, *, alone: bool = False) -> apsw.Connection:
    """Open a store's file for writing; make it where there is none.

    Args:
        path: The file.
        setting: The name of the setting that the path came from, for errors.
        alone: Keep all others out, readers too.

    Raises:
        SettingError: The file cannot be written, or it is no store.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        known = _known(path)
        _make(path)
        connection = apsw.Connection(str(path))
        try:
            if alone:  # before anything else is done with it: sqlite.org/wal.html#noshm
                connection.pragma("locking_mode", "exclusive")
            connection.set_busy_timeout(ALONE_TIMEOUT if alone else BUSY_TIMEOUT)
            _prepare(connection, known, path, setting)
        except BaseException:
            let_go(connection)
            raise
    except apsw.Error as error:
        raise _cannot_open(error, path, setting) from error
    except StoreBrokenError as error:
        raise SettingError(setting, f"{path}: {error}") from error
    except OSError as error:
        raise SettingError(setting, f"cannot make {path}: {error.strerror}") from error
    return connection


def is_nearly_full(folder: Path) -> bool:
    """Return whether the disk of a folder has next to no room left.

    Raises:
        OSError: The folder is gone.
    """
    usage = shutil.disk_usage(folder)
    return usage.free < min(LITTLE_ROOM, usage.total // 20)


def read_page(
    connection: apsw.Connection, query: str, bindings: tuple[Any, ...]
) -> tuple[list[Any], bool]:
    """Return rows, and whether they are all: :data:`PAGE_BYTES` of them, or a larger one alone."""
    rows: list[Any] = []
    size = 0
    with closing(connection.execute(query, bindings)) as found:
        for row in found:
            size += sum(len(column) for column in row if isinstance(column, bytes))
            if size > PAGE_BYTES and rows:
                return rows, False
            rows.append(row)
    return rows, True


def let_go(connection: apsw.Connection) -> None:
    """Close a connection that writes.

    SQLite folds its log into the file then. A disk that fails in this costs nothing that was
    committed: it is in the log, and the next one who opens the store folds it.
    """
    with suppress(apsw.Error):
        connection.close()


def _make(path: Path) -> None:
    """Make the file where there is none, for its owner only: it will hold recipients' addresses.

    SQLite gives its log and its shared memory the mode of the file, whatever an administrator has
    made of it since. A file that is there must not even be opened: to close it would take away the
    locks that another connection of this process has on it.
    """
    with suppress(FileExistsError):
        # Of a link that leads nowhere yet, the file that it names.
        os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _known(path: Path) -> Known:
    """Return what the mark says: before the store is looked at, which may go on growing.

    Raises:
        StoreBrokenError: The store's file is empty or gone. SQLite would delete its log.
    """
    known = read_mark(path)
    if not path.exists() or not path.stat().st_size:
        check_mark(known, NOTHING, path)
    return known


def _prepare(connection: apsw.Connection, known: Known, path: Path, setting: str) -> None:
    # Until the store is known to be whole, nothing may fold a damaged log into the file.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    with connection:  # one snapshot, as another process may be making the store just now
        version = _version(connection, path, setting)
        if not version and not _is_empty(connection):
            raise _not_ours(path, setting)
        _check_whole(connection, version, known, path)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    if not version:
        # Rows of two kilobytes waste less of a page of eight.
        connection.pragma("page_size", 8192)
    if _use_wal(connection) != "wal":
        raise SettingError(setting, f"{path} is on a file system without SQLite's WAL mode")
    connection.pragma("synchronous", "full")
    # Of what is deleted, the file keeps no trace.
    connection.pragma("secure_delete", 1)
    _migrate(connection, path, setting)


def _check_whole(connection: apsw.Connection, version: int, known: Known, path: Path) -> None:
    """Make sure that a store has what its mark tells of, and that its newest events are whole.

    Without a mark nothing tells that the files beside each other belong together, so that all of
    it is looked at: a backup was put back, or somebody goes on after damage.

    Raises:
        StoreBrokenError: It has not, or they are not.
    """
    with translating_errors():
        found = Known(*newest(connection)) if version else NOTHING
        check_mark(known, found, path)
        if version and known == NOTHING:
            with _told(path, found):
                check_all(connection)
        elif version:
            check_newest(connection)


@contextmanager
def _told(path: Path, found: Known) -> Generator[None]:
    """Say that a check of the whole store begins and ends, unless it has nothing yet."""
    if found == NOTHING:
        yield
        return
    logger.warning(
        "%s has no -mark beside it that tells how far it goes: checking all of it before anything "
        "else, which takes minutes where it is large",
        path,
    )
    began = time.monotonic()
    yield
    logger.info("%s is whole: checked in %.1f seconds", path, time.monotonic() - began)


@retry(
    retry=retry_if_exception_type(apsw.BusyError),
    stop=stop_after_delay(BUSY_TIMEOUT / 1000),
    wait=wait_random(0.01, 0.1),
    reraise=True,
)
def _use_wal(connection: apsw.Connection) -> str:
    """Switch to WAL mode; return the mode that it is in then.

    Where two processes switch at once, SQLite tells one of them that the file is busy without
    waiting for the other.
    """
    mode: str = connection.pragma("journal_mode", "wal")
    return mode


def _migrate(connection: apsw.Connection, path: Path, setting: str) -> None:
    """Take the steps to the present schema: in one transaction, also when two start together."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path, setting)
        if not version:
            if not _is_empty(connection):
                raise _not_ours(path, setting)
            connection.pragma("application_id", APPLICATION_ID)
        for migration in MIGRATIONS[version:]:
            connection.execute(migration)
        if version < len(MIGRATIONS):
            connection.pragma("user_version", len(MIGRATIONS))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if not version:
        logger.info("new store: %s", path.absolute())


def _is_empty(connection: apsw.Connection) -> bool:
    return not connection.execute("SELECT count(*) FROM sqlite_schema").get


def _version(connection: apsw.Connection, path: Path, setting: str) -> int:
    """Return the schema's version, 0 where the file is none of ours."""
    if connection.pragma("application_id") != APPLICATION_ID:
        return 0
    version: int = connection.pragma("user_version")
    if version > len(MIGRATIONS):
        raise SettingError(
            setting,
            f"{path} was written by a newer release (schema {version}, this one reads "
            f"{len(MIGRATIONS)}): upgrade tap-vero-segment",
        )
    return version


def _not_ours(path: Path, setting: str) -> SettingError:
    return SettingError(setting, f"{path} is an SQLite file, but not vero-collector's store")


def _cannot_open(error: apsw.Error, path: Path, setting: str) -> SettingError:
    if isinstance(error, apsw.NotADBError):
        return SettingError(setting, f"{path} is not an SQLite database")
    if isinstance(error, apsw.CorruptError):
        return SettingError(setting, f"{path}: {store_error(error)}")
    if isinstance(error, apsw.CantOpenError):
        return SettingError(
            setting,
            f"cannot open {path}: {error}; SQLite writes in its folder, even to read",
        )
    return SettingError(setting, f"cannot open {path}: {error}")
