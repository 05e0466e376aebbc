"""Whether a store's files are still the ones that were opened.

A file that is deleted, moved or replaced stays open: SQLite goes on writing to it, and whatever it
writes is gone when the process ends. So whoever writes compares what the paths name with what was
opened, after each commit and before anything is acknowledged.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Final

import apsw

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.base import StoreBrokenError, StoreError
from tap_vero_segment.stores.sqlite.connection import open_to_read
from tap_vero_segment.stores.sqlite.errors import RESTORE
from tap_vero_segment.stores.sqlite.integrity import check_page, translating_errors

if TYPE_CHECKING:
    from pathlib import Path

_HEADER: Final = b"SQLite format 3\0"
_HEADER_SIZE: Final = 32
"""Bytes of the file's header up to the number of its pages (sqlite.org/fileformat2.html, 1.3)."""

_DAMAGE: Final = (StoreBrokenError, apsw.CorruptError, apsw.NotADBError, apsw.IOError)

_Place = tuple[int, int]


class OpenedFiles:
    """The files of a store that is open for writing. It may be used from one thread only.

    Args:
        connection: The store.
        path: Its file.
    """

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path.absolute()  # which a folder that is moved away takes along otherwise
        self._name = str(self._path)
        real = os.path.realpath(self._name)  # which SQLite's own files are beside
        self._log = f"{real}-wal"
        # Through SQLite, as to close a descriptor of one's own would let go of SQLite's locks.
        self._file = apsw.VFSFile(
            "", real, [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
        )
        self._places = {name: _place(os.stat(name)) for name in (self._name, self._log)}  # noqa: PTH116
        memory = f"{real}-shm"
        self._memory = (memory, _place(os.stat(memory)))  # noqa: PTH116
        self._error: StoreBrokenError | None = None
        self._page_size: int = connection.pragma("page_size")
        self._pages = self._size = self._log_size = 0
        self._looked: tuple[int, ...] = ()
        self.check()

    def check(self) -> None:
        """Make sure of the file and its log: two looks at a folder, short enough for each commit.

        Raises:
            StoreBrokenError: They are not the ones that were opened, or were overwritten.
        """
        if self._error is not None:  # whatever is there now, something was lost
            raise self._error
        file = self._stat(self._name, self._places[self._name])
        log = self._stat(self._log, self._places[self._log])
        # The file only changes when SQLite folds the log into it, now and then.
        looked = (file.st_size, file.st_mtime_ns)
        if looked != self._looked or log.st_size < self._log_size:
            self._look_closer(file.st_size)
            self._looked = looked
        self._log_size = log.st_size

    def check_memory(self) -> None:
        """Make sure of the shared memory, by which processes know of each other's locks.

        Raises:
            StoreBrokenError: It is not the one that was opened.
        """
        self._stat(*self._memory)

    def _stat(self, name: str, expected: _Place) -> os.stat_result:
        try:
            found = os.stat(name)  # noqa: PTH116  # at each commit: a Path costs as much again
        except OSError as error:
            raise self._gone(name) from error
        if _place(found) != expected:
            raise self._gone(name)
        return found

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the file as it is on disk, which lags behind what is committed."""
        found = os.stat(self._name).st_size - start  # noqa: PTH116  # as above
        return self._file.xRead(min(size, found), start) if found > 0 else b""

    def _look_closer(self, size: int) -> None:
        """See that the file has the pages that it should, and that readers see all that there is.

        Raises:
            StoreBrokenError: It was overwritten in place, by a backup for one.
        """
        header = self._file.xRead(_HEADER_SIZE, 0)
        pages = int.from_bytes(header[28:32])
        with translating_errors():
            in_view: int = self._connection.pragma("page_count")
        # The file lags behind what is committed, as some is in the log only. Nothing else can be:
        # it grows by commits, and shrinks when somebody has SQLite vacuum it.
        lowest, highest = sorted((self._pages or pages, in_view))
        if (
            header[:16] != _HEADER
            or not lowest <= pages <= highest
            or size < min(self._size, in_view * self._page_size)
        ):
            raise self._overwritten()
        self._pages, self._size = pages, size
        self._read_anew()

    def _read_anew(self) -> None:
        """Read the end of the store as others do, who know nothing of what this process has read.

        Raises:
            StoreBrokenError: Something is missing.
        """
        try:
            with closing(open_to_read(self._path, "store")) as fresh, translating_errors(), fresh:
                newest: int = fresh.execute("SELECT max(loaded_at) FROM events").get or 0
                check_page(fresh, [], newest, times.LATEST, last_page=True)
        except (SettingError, StoreError) as error:
            if isinstance(error, StoreBrokenError) or isinstance(error.__cause__, _DAMAGE):
                raise self._overwritten() from error
            # Anything else, such as a lack of descriptors, says nothing about the files.

    def _gone(self, name: str) -> StoreBrokenError:
        return self._broken(
            f"{name} was deleted, moved or replaced while it was in use: put back the file that "
            f"was in use, with those beside it, or start again to go on with what is there now"
        )

    def _overwritten(self) -> StoreBrokenError:
        return self._broken(
            f"{self._name} was overwritten while it was in use, so events are missing; {RESTORE}"
        )

    def _broken(self, what: str) -> StoreBrokenError:
        # When it closes, SQLite would fold its log into the file that is there now, or delete the
        # log that is there now, which can be another process's.
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._error = StoreBrokenError(what)
        return self._error

    def close(self) -> None:
        """Let go of the file."""
        self._file.xClose()


def _place(found: os.stat_result) -> _Place:
    return found.st_dev, found.st_ino
