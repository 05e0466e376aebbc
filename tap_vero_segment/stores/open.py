"""Which store a URL names, and how each kind is opened. A new kind of store is a row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from tap_vero_segment.errors import SettingError, importing
from tap_vero_segment.stores.sqlite import backup as sqlite_backup
from tap_vero_segment.stores.sqlite.connection import path_of
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.repair import repair_clock as repair_sqlite_clock
from tap_vero_segment.stores.sqlite.writer import SqliteWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tap_vero_segment.stores.base import Copied, Reader, Writer


def _by_pg_dump(url: str, setting: str, *_: object, **__: object) -> NoReturn:
    del url
    problem = (
        "PostgreSQL's own pg_dump and pg_restore back up a shared store, see "
        "https://tap-vero-segment.readthedocs.io/en/latest/operating/backup.html"
    )
    raise SettingError(setting, problem)


class _Kind(NamedTuple):
    """A kind of store. Each function takes the store's URL and the setting that it came from.

    Attributes:
        reader: Opens the reading half.
        writer: Opens the writing half.
        repair_clock: See :func:`repair_clock`.
        location: See :func:`location_of`.
        backup: See :func:`backup`.
        restore: See :func:`restore`.
    """

    reader: Callable[[str, str], Reader]
    writer: Callable[[str, str], Writer]
    repair_clock: Callable[[str, str, Callable[[int], None]], int]
    location: Callable[[str, str], str]
    backup: Callable[[str, str, Path], Copied] = _by_pg_dump
    restore: Callable[..., tuple[Copied, Path | None]] = _by_pg_dump


def _sqlite(setting: str) -> _Kind:
    del setting
    return _Kind(
        SqliteReader,
        SqliteWriter,
        repair_sqlite_clock,
        lambda url, setting: str(path_of(url, setting).absolute()),
        sqlite_backup.backup,
        sqlite_backup.restore,
    )


def needing_postgres(setting: str) -> AbstractContextManager[None]:
    """Import what PostgreSQL needs, which is an extra.

    Raises:
        SettingError: It is not installed.
    """
    problem = "PostgreSQL needs pip install 'tap-vero-segment[postgres]'"
    return importing(SettingError(setting, problem))


def _postgres(setting: str) -> _Kind:
    with needing_postgres(setting):
        from tap_vero_segment.stores.postgres import (  # noqa: PLC0415  # an extra
            connection,
            reader,
            repair,
            writer,
        )
    return _Kind(
        reader.PostgresReader,
        writer.PostgresWriter,
        repair.repair_clock,
        connection.location_of,
    )


KINDS: Final[dict[str, Callable[[str], _Kind]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
}
"""By the scheme of a store's URL."""


def _kind(url: str, setting: str) -> _Kind:
    """Return the kind of store that a URL names.

    Raises:
        SettingError: It names none; the message lists the schemes. Or its extra is not installed.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in KINDS:
        known = " or ".join(f"{name}://" for name in KINDS)
        found = f"not {scheme}://" if separator else "and this one has no scheme"
        raise SettingError(setting, f"a URL here begins with {known}, {found}")
    return KINDS[scheme](setting)


def open_reader(url: str, setting: str) -> Reader:
    """Open the reading half of the store that a URL names.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Raises:
        SettingError: The URL names no store that can be read.
    """
    return _kind(url, setting).reader(url, setting)


def open_writer(url: str, setting: str) -> Writer:
    """Open the writing half of the store that a URL names; make the store where there is none.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Raises:
        SettingError: The URL names no store that can be written.
    """
    return _kind(url, setting).writer(url, setting)


def repair_clock(url: str, setting: str, advance: Callable[[int], None] = lambda _: None) -> int:
    """Give events that were loaded in the future a ``loaded_at`` up to now, in the same order.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.
        advance: Takes how many more were taken back.

    Returns:
        How many events there were.

    Raises:
        SettingError: The URL names no store that can be written.
        UserError: It is in use, and may not be.
        StoreError: The store failed. The next call goes on.
    """
    return _kind(url, setting).repair_clock(url, setting, advance)


def location_of(url: str, setting: str) -> str:
    """Return where the store is that a URL names, for a log: without a user and a password.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Returns:
        The absolute path of a file; a database and its server.

    Raises:
        SettingError: The URL names no store.
    """
    return _kind(url, setting).location(url, setting)


def backup(url: str, setting: str, target: Path) -> Copied:
    """Copy the store that a URL names to a new file: all of one moment, checked and synced.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.
        target: The file, which must not be there.

    Raises:
        SettingError: The URL names no store that can be read, or one that is backed up otherwise.
        StoreError: The store is damaged, or the disk is full.
        UserError: The file is there already, or cannot be written.
    """
    return _kind(url, setting).backup(url, setting, target)


def restore(url: str, setting: str, source: Path, *, replace: bool) -> tuple[Copied, Path | None]:
    """Make the store that a URL names of a copy that :func:`backup` has made.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.
        source: The copy.
        replace: Whether a store that is there is moved aside.

    Returns:
        What was restored, and where the store's file is now that was there before.

    Raises:
        SettingError: The copy cannot be read, or the store is one that is restored otherwise.
        StoreError: The copy is damaged, or the disk is full.
        UserError: There is a store already, or it is in use; or it cannot be written.
    """
    return _kind(url, setting).restore(url, setting, source, replace=replace)
