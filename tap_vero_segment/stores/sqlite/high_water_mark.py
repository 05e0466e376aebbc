"""The mark: how far a store goes, told by a small file beside it.

Of a write-ahead log that was cut or damaged, SQLite reads what comes before, and the rest is as if
it had never been. The mark is what knows better. It is written after each commit and not synced,
which costs next to nothing: it outlives the process, so that after ``kill -9`` it is exact. After
a loss of power it can be as old as the operating system lets a written page become, half a minute
by default; it never tells of more than was synced.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from tap_vero_segment.stores.base import StoreBrokenError
from tap_vero_segment.stores.sqlite.errors import RESTORE

if TYPE_CHECKING:
    from pathlib import Path

_FORM: Final = re.compile(rb"vero-mark 1 ([0-9]{19}) ([0-9]{19}) ([0-9a-f]{8})\n")


class Known(NamedTuple):
    """How far a store goes: the newest ``loaded_at`` and dead letter that it ever had."""

    loaded_at: int
    letter: int


NOTHING: Final = Known(0, 0)


def path_of_mark(store: Path) -> Path:
    """Return the mark of a store's file."""
    return store.with_name(f"{store.name}-mark")


def read_mark(store: Path) -> Known:
    """Return what the mark says; nothing, where there is none.

    Raises:
        StoreBrokenError: The mark itself is damaged.
    """
    path = path_of_mark(store)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return NOTHING
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StoreBrokenError(msg) from error
    if not content.strip(b"\0"):  # power was lost before it was ever on disk
        return NOTHING
    form = _FORM.fullmatch(content)
    if form is None or form[3] != _check(content):
        msg = f"{path} is damaged, so nothing tells whether the store is whole: {_WAY_ON}"
        raise StoreBrokenError(msg)
    return Known(int(form[1]), int(form[2]))


def check_mark(known: Known, found: Known, store: Path) -> None:
    """Make sure that a store has all that the mark tells of.

    Raises:
        StoreBrokenError: It ends earlier.
    """
    if known.loaded_at > found.loaded_at or known.letter > found.letter:
        path = path_of_mark(store)
        msg = f"the store is damaged: its newest events are missing, {path} knows better: {_WAY_ON}"
        raise StoreBrokenError(msg)


_WAY_ON: Final = (
    f"keep copies of all its files, then delete that file to go on with what is there; {RESTORE}"
)


class HighWaterMark:
    """Keeps a store's mark. It may be used from one thread only.

    A mark that cannot be written is left behind: what was committed is on disk all the same.
    """

    def __init__(self, store: Path) -> None:
        self.path = path_of_mark(store.absolute())
        self.known = NOTHING
        """How far the store goes."""
        self._written = NOTHING
        self._descriptor: int | None = None
        self._open()

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)

    def rise_to(self, loaded_at: int = 0, letter: int = 0) -> None:
        """Note how far the store goes, once that is synced."""
        self.known = Known(max(loaded_at, self.known.loaded_at), max(letter, self.known.letter))
        if self._descriptor is None or self.known == self._written:
            return
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, _content(self.known), 0)
            self._written = self.known

    def take_back(self, known: Known) -> None:
        """Note that the store will go less far, before it does.

        Raises:
            OSError: It cannot be written.
        """
        self.known = known
        if self._descriptor is not None:
            os.pwrite(self._descriptor, _content(known), 0)
            os.fsync(self._descriptor)
            self._written = known

    def renew(self) -> bool:
        """Write the file anew where it was deleted or replaced; return whether that was so."""
        if self._descriptor is None:
            return False
        with contextlib.suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
                return False
        self.close()
        self._open()
        self._written = NOTHING
        self.rise_to()
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _content(known: Known) -> bytes:
    content = b"vero-mark 1 %019d %019d 00000000\n" % known
    return content[:-9] + _check(content) + b"\n"


def _check(content: bytes) -> bytes:
    return b"%08x" % crc32(content[:-9])
