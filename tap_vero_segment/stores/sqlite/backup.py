"""Copying the embedded store to one file, and putting such a copy back.

A copy of the file alone, taken while a collector writes, is damaged or old: the newest events are
in the log beside it. SQLite's own backup copies one moment of both.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from tap_vero_segment import times
from tap_vero_segment.errors import UserError
from tap_vero_segment.files import make_folder, making, sync_folder
from tap_vero_segment.stores.base import Copied
from tap_vero_segment.stores.sqlite.connection import open_to_read, path_of
from tap_vero_segment.stores.sqlite.high_water_mark import HighWaterMark, Known
from tap_vero_segment.stores.sqlite.integrity import check_all, newest, translating_errors
from tap_vero_segment.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Generator

PAGES: Final = 256
"""Pages of the file that are copied at once: two megabytes."""

# Where SQLite's locks are (sqlite.org/src/file/src/os.h). Whoever has a store open in WAL mode has
# a shared lock there, all the time.
_SHARED_FIRST: Final = 0x40000002
_SHARED_SIZE: Final = 510


def backup(url: str, setting: str, target: Path) -> Copied:
    """Copy a store to a new file, beside a collector that writes it: all of one moment, checked.

    Args:
        url: The store.
        setting: The name of the setting that the URL came from, for errors.
        target: The file, which must not be there.

    Raises:
        SettingError: The store cannot be read.
        StoreError: It is damaged, or the disk is full.
        UserError: The file is there already, or cannot be written.
    """
    _check_new(target)
    source = open_to_read(path_of(url, setting), setting)
    with closing(source), _saying_why(target), making(target) as temporary:
        return _copy(source, temporary)[0]


def restore(url: str, setting: str, source: Path, *, replace: bool) -> tuple[Copied, Path | None]:
    """Make a store of a copy: checked, and with a high-water mark that fits.

    Args:
        url: The store.
        setting: The name of the setting that the URL came from, for errors.
        source: The copy.
        replace: Whether a store that is there is moved aside, all its files.

    Returns:
        What was restored, and where the file is now that was there before.

    Raises:
        SettingError: The copy cannot be read.
        StoreError: It is damaged, or the disk is full.
        UserError: There is a store already, or another process has it open; or it cannot be
            written.
    """
    store = path_of(url, setting)
    # Of a link, the file that it names; SQLite's own files are beside that.
    target = Path(os.path.realpath(store))
    # The file first: without it, nobody takes what is left for a store.
    files = [(target, ""), (target, "-wal"), (target, "-shm"), (store.absolute(), "-mark")]
    there = [(path, end) for path, end in files if os.path.lexists(f"{path}{end}")]
    if there and not replace:
        msg = (
            f"there is a store already: {there[0][0]}{there[0][1]}; add --replace to have it "
            "moved aside, or restore to another one with --store"
        )
        raise UserError(msg)
    log = source.with_name(f"{source.name}-wal")
    alone = not log.exists() or not log.stat().st_size
    aside: Path | None = None
    with closing(open_to_read(source, "FILE", alone=alone)) as connection, _saying_why(target):
        make_folder(target.parent)
        with nobody_else(target), making(target) as temporary:
            copied, known = _copy(connection, temporary)
            if there:
                ending = f".replaced-{times.to_text(times.now()).replace(':', '')}"
                aside = Path(f"{target}{ending}")
                for path, end in there:
                    Path(f"{path}{end}").rename(f"{path}{ending}{end}")
                sync_folder(target.parent)
        with closing(HighWaterMark(store)) as mark:
            mark.take_back(known)
    return copied, aside


def _check_new(target: Path) -> None:
    if os.path.lexists(target):
        msg = f"{target} is there already, and stays as it is: name another file"
        raise UserError(msg)
    if not target.parent.is_dir():
        msg = f"there is no folder {target.parent}: make it first"
        raise UserError(msg)


@contextmanager
def _saying_why(target: Path) -> Generator[None]:
    """Say why a file cannot be written.

    Raises:
        UserError: It cannot.
    """
    try:
        yield
    except FileExistsError as error:
        msg = f"{target} is there meanwhile, made by another process, and stays as it is"
        raise UserError(msg) from error
    except OSError as error:
        msg = f"cannot write {target}: {error.strerror}"
        raise UserError(msg) from error


@contextmanager
def nobody_else(target: Path) -> Generator[None]:
    """Keep others from opening a store, even one that is damaged.

    Args:
        target: The store's file; where there is none, there is nobody to keep out.

    Raises:
        UserError: Another process has it open.
    """
    try:
        descriptor = os.open(target, os.O_RDWR)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SHARED_SIZE, _SHARED_FIRST)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            msg = (
                f"{target} is open in another process: stop the collector, and whatever else "
                "reads or writes the store, then run this again"
            )
            raise UserError(msg) from error
        yield
    finally:
        os.close(descriptor)


def _copy(source: apsw.Connection, target: Path) -> tuple[Copied, Known]:
    """Copy a store to an empty file, and look at all of the copy.

    Raises:
        StoreError: The copy is not whole, as the store is not; or the disk is full.
    """
    with translating_errors(), closing(apsw.Connection(str(target))) as connection:
        # Nothing of it counts before it is whole and synced.
        connection.pragma("journal_mode", "off")
        connection.pragma("synchronous", "off")
        with source:
            # With a read transaction of its own, nothing that is written meanwhile is copied.
            pages: int = source.execute("PRAGMA page_count").get
            source.execute("SELECT 1 FROM events LIMIT 1").get  # noqa: B018  # begins it
            with (
                progress("copying", pages, "pages") as advance,
                connection.backup("main", source, "main") as copying,
            ):
                while not copying.step(PAGES):
                    advance(PAGES)
    with (
        closing(open_to_read(target, "FILE", alone=True)) as connection,
        translating_errors(),
        connection,
    ):
        known = Known(*newest(connection))
        events: int = connection.execute("SELECT coalesce(sum(events), 0) FROM totals").get
        with progress("checking the copy", events) as advance:
            check_all(connection, advance)
        letters: int = connection.execute("SELECT count(*) FROM dead_letters").get
    return Copied(events, letters, known.loaded_at or None), known
