"""Opening the file, its schema, and the meaning of SQLite's errors."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_random

from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.base import (
    StoreBrokenError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)

BUSY_TIMEOUT: Final = 10_000
"""Milliseconds to wait for another process that writes."""

APPLICATION_ID: Final = 0x5665726F
"""``Vero``, in the file's header: tells the store from any other SQLite file."""

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE events (
    loaded_at   INTEGER PRIMARY KEY,  -- microseconds since 1970, in commit order
    id          TEXT NOT NULL UNIQUE,
    collection  TEXT NOT NULL,
    received_at INTEGER NOT NULL,     -- microseconds since 1970
    input       TEXT NOT NULL,
    call        BLOB NOT NULL,        -- the track call as JSON, without loadedAt
    body        BLOB                  -- the request's body as it came
) STRICT;
CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    digest      BLOB NOT NULL UNIQUE, -- of input and body
    received_at INTEGER NOT NULL,
    input       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    body        BLOB NOT NULL
) STRICT;
CREATE TABLE exports (
    destination TEXT PRIMARY KEY,     -- an archive's URL
    until       INTEGER NOT NULL      -- the loaded_at up to which it has the events
) STRICT, WITHOUT ROWID;
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL               -- microseconds since 1970
) STRICT;
CREATE TABLE passed_over (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    calls INTEGER NOT NULL            -- that came and are none of the collections
) STRICT;
CREATE TABLE totals (                 -- counted as events are written, never by a scan
    collection      TEXT PRIMARY KEY,
    events          INTEGER NOT NULL,
    first_loaded_at INTEGER NOT NULL,
    last_loaded_at  INTEGER NOT NULL  -- outlives the events: loaded_at never goes back
) STRICT, WITHOUT ROWID;
"""


def path_of(url: str, setting: str) -> Path:
    """Return the file of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    Raises:
        SettingError: The URL names no file.
    """
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith("?"):
        raise SettingError(
            setting, "an SQLite store is sqlite:///relative.db or sqlite:////absolute.db"
        )
    return Path(path)


def open_to_read(path: Path, setting: str) -> apsw.Connection:
    """Open a store's file for reading only.

    Raises:
        SettingError: There is no file, it cannot be read, or it is no store.
    """
    try:
        if not path.exists():
            raise SettingError(setting, f"there is no file {path}")
        if not path.is_file():
            raise SettingError(setting, f"{path} is not a file")
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(BUSY_TIMEOUT)
        version = _version(connection, path, setting)
    except apsw.Error as error:
        raise _cannot_open(error, path, setting) from error
    except OSError as error:
        raise SettingError(setting, f"cannot open {path}: {error.strerror}") from error
    if version == 0:
        connection.close()
        raise _not_ours(path, setting)
    return connection


def open_to_write(path: Path, setting: str) -> apsw.Connection:
    """Open a store's file for writing; make it where there is none.

    Raises:
        SettingError: The file cannot be written, or it is no store.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_TIMEOUT)
        with connection:  # one snapshot, as another process may be making the store just now
            new = not _version(connection, path, setting)
            if new and not _is_empty(connection):
                raise _not_ours(path, setting)
        if new:
            # Rows of two kilobytes waste less of a page of eight.
            connection.pragma("page_size", 8192)
        if _use_wal(connection) != "wal":
            raise SettingError(setting, f"{path} is on a file system without SQLite's WAL mode")
        connection.pragma("synchronous", "full")
        _create(connection, path, setting)
    except apsw.Error as error:
        raise _cannot_open(error, path, setting) from error
    except OSError as error:
        raise SettingError(setting, f"cannot make {path}: {error.strerror}") from error
    return connection


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


def _create(connection: apsw.Connection, path: Path, setting: str) -> None:
    """Make the tables, once, also when two collectors start together."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _version(connection, path, setting):
            if not _is_empty(connection):
                raise _not_ours(path, setting)
            connection.execute(_SCHEMA)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", SCHEMA_VERSION)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _is_empty(connection: apsw.Connection) -> bool:
    return not connection.execute("SELECT count(*) FROM sqlite_schema").get


def _version(connection: apsw.Connection, path: Path, setting: str) -> int:
    """Return the schema's version, 0 where the file is none of ours."""
    if connection.pragma("application_id") != APPLICATION_ID:
        return 0
    version: int = connection.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise SettingError(
            setting,
            f"{path} was written by a newer release (schema {version}, this one reads "
            f"{SCHEMA_VERSION}): upgrade tap-vero-segment",
        )
    return version


def _not_ours(path: Path, setting: str) -> SettingError:
    return SettingError(setting, f"{path} is an SQLite file, but not vero-collector's store")


def _cannot_open(error: apsw.Error, path: Path, setting: str) -> SettingError:
    if isinstance(error, apsw.NotADBError):
        return SettingError(setting, f"{path} is not an SQLite database")
    if isinstance(error, apsw.CorruptError):
        return SettingError(setting, f"{path} is a damaged SQLite database: {error}")
    if isinstance(error, apsw.CantOpenError):
        return SettingError(
            setting,
            f"cannot open {path}: {error}; SQLite writes in its folder, even to read",
        )
    return SettingError(setting, f"cannot open {path}: {error}")


_BROKEN: Final = (
    apsw.IOError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.InternalError,
    apsw.NoMemError,
)


def store_error(error: apsw.Error) -> StoreError:
    """Say what an SQLite error means for the process that met it."""
    # apsw's messages are SQLite's own: they name tables and files, never values.
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, apsw.FullError):
        return StoreFullError(text)
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreBusyError(text)
    if isinstance(error, _BROKEN):
        return StoreBrokenError(text)
    return StoreError(text)
