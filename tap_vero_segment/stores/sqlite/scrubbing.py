"""Taking care that the files of the embedded store keep no trace of what was deleted from it.

SQLite's ``secure_delete`` overwrites what is deleted. Two things it leaves: the write-ahead log,
which has older versions of pages until it is folded into the file; and the unused space in a page,
where copies stay of rows that moved to another page before they were deleted
(sqlite.org/fileformat2.html, 1.6, says how a page is laid out).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import apsw

from tap_vero_segment.stores.base import throttled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

PATIENCE: Final = 30.0
"""Seconds to wait for others who read or write the store."""

_TRY_MILLISECONDS: Final = 500
"""How long a try may keep writers waiting."""

_ROUNDS: Final = 5
_PAGES: Final = 200
"""Pages that are cleared in a transaction; a collector that runs beside waits meanwhile."""

_LEAF: Final = 0x0D
_INTERIOR: Final = 0x05

_CONTENT: Final = {
    "events": ("loaded_at", "call", "body"),
    "dead_letters": ("id", "body", "reason"),
    "search_parts": ("number", "entries"),
}
"""The tables that hold what a sender has sent, or hashes of it: their keys, and their columns that
can be long."""

_NO_CONTENT: Final = 40
"""Bytes of unused space that hold nothing of a sender's: the place of former pointers to rows, and
a row's lengths, id or digest, which come before its content."""

_ROOT: Final = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?"


def scrub(
    connection: apsw.Connection,
    transaction: Callable[[], AbstractContextManager[None]],
    read: Callable[[int, int], bytes],
) -> str | None:
    """Fold the log into the file, and clear the unused space of its pages.

    Args:
        connection: The store, opened for writing.
        transaction: Makes a block a transaction that holds the write lock from its start.
        read: Returns bytes of the file: from a start, so many.

    Returns:
        Why that cannot be done now; None: it was done.

    Raises:
        apsw.Error: The store failed.
        StoreError: Likewise.
    """
    pages = _Pages(connection, read)
    for _ in range(_ROUNDS):
        if not _fold(connection):
            return (
                "another process has been reading the store for long, so its -wal still holds "
                "deleted events: end that process, then run this again"
            )
        try:
            stale = {table: list(pages.stale(table)) for table in _CONTENT}
        except (IndexError, RecursionError):  # the file changed while it was read
            continue
        if not any(stale.values()):
            return None
        for table, found in stale.items():
            for start in range(0, len(found), _PAGES):
                with throttled(), transaction():
                    for leaf in found[start : start + _PAGES]:
                        _fill(connection, table, leaf)
    return (
        "unused space of the store's file may still hold parts of deleted events: run this again, "
        "or stop the collector and run VACUUM with the sqlite3 shell"
    )


def _fold(connection: apsw.Connection) -> bool:
    """Fold the log into the file and empty it; return whether that was possible."""
    end = time.monotonic() + PATIENCE
    before: int = connection.pragma("busy_timeout")
    connection.set_busy_timeout(_TRY_MILLISECONDS)
    try:
        while True:
            with suppress(apsw.BusyError, apsw.LockedError):
                row: Any = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if row[0] == 0:
                    return True
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
    finally:
        connection.set_busy_timeout(before)


def _fill(connection: apsw.Connection, table: str, leaf: _Leaf) -> None:
    """Let a row take all of its page's unused space for a moment, in a transaction.

    Grown in place it covers what lies there, and ``secure_delete`` overwrites it as it shrinks. It
    must not grow by a byte more, or the page would be split and leave copies itself.
    """
    key, *names = _CONTENT[table]
    query = f"SELECT {', '.join(names)} FROM {table} WHERE {key} = ?"  # noqa: S608
    row: Any = connection.execute(query, (leaf.rowid,)).fetchone()
    if row is None:  # deleted since
        return
    columns = [b"" if value is None else value for value in row]
    columns = [value.encode() if isinstance(value, str) else value for value in columns]
    rest = leaf.payload - sum(len(value) + _length(_kind(value)) for value in columns)
    others = (len(names) - 1) * _length(_kind(b""))
    spare = leaf.size - _length(leaf.rowid) - rest - others
    # The record and the row say their lengths in front, in some bytes more or less.
    for size in range(spare, max(0, spare - 12), -1):
        payload = rest + size + _length(2 * size + 12) + others
        whole = payload + _length(payload) + _length(leaf.rowid)
        if whole <= leaf.size and payload <= leaf.longest:
            changes = ", ".join(f"{name} = ?" for name in names)
            update = f"UPDATE {table} SET {changes} WHERE {key} = ?"  # noqa: S608
            empty = ["" if isinstance(value, str) else b"" for value in row[1:]]
            connection.execute(update, (bytes(size), *empty, leaf.rowid))
            connection.execute(update, (*row, leaf.rowid))
            return


def _kind(value: bytes) -> int:
    """Return the number that stands for a blob or text in a record (about: text is one more)."""
    return 2 * len(value) + 12


def _length(number: int) -> int:
    """Return how many bytes a number takes as SQLite's variable-length integer."""
    return next((size for size in range(1, 9) if number < 1 << (7 * size)), 9)


class _Leaf(NamedTuple):
    """A page whose unused space is not clear.

    Attributes:
        rowid: One of its rows.
        payload: The bytes of that row's record.
        size: The bytes that the row takes in the page, with all unused space.
        longest: The longest record that lies in its page as a whole.
    """

    rowid: int
    payload: int
    size: int
    longest: int


class _Pages:
    """The pages of the file, as they are on disk."""

    def __init__(self, connection: apsw.Connection, read: Callable[[int, int], bytes]) -> None:
        self._connection = connection
        self._size: int = connection.pragma("page_size")
        self._read = read

    def stale(self, table: str) -> Iterator[_Leaf]:
        """Yield each leaf whose unused space is not clear."""
        root: Any = self._connection.execute(_ROOT, (table,)).get
        for page in self._leaves(root, set()):
            count = _int(page, 3)
            gap = range(8 + 2 * count, _int(page, 5) or 65_536)
            if not count or not any(page[gap.start + _NO_CONTENT : gap.stop]):
                continue
            free = len(gap) + page[7]
            block = _int(page, 1)
            while block:
                free += _int(page, block + 2)
                block = _int(page, block)
            cell = _int(page, 8)
            payload, after = _varint(page, cell)
            rowid, after = _varint(page, after)
            longest = self._size - 35
            local = payload
            if payload > longest:
                shortest = (self._size - 12) * 32 // 255 - 23
                local = shortest + (payload - shortest) % (self._size - 4)
                local = (local if local <= longest else shortest) + 4
            yield _Leaf(rowid, payload, after - cell + local + free, longest)

    def _leaves(self, number: int, seen: set[int]) -> Iterator[bytes]:
        if number in seen:
            raise IndexError  # a page that changed while it was read
        seen.add(number)
        page = self._read((number - 1) * self._size, self._size)
        if len(page) < self._size:
            raise IndexError
        if page[0] == _LEAF:
            yield page
        elif page[0] == _INTERIOR:
            for place in range(_int(page, 3)):
                child = _int(page, 12 + 2 * place)
                yield from self._leaves(int.from_bytes(page[child : child + 4]), seen)
            yield from self._leaves(int.from_bytes(page[8:12]), seen)
        else:
            raise IndexError


def _int(page: bytes, place: int) -> int:
    return int.from_bytes(page[place : place + 2])


def _varint(page: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        byte = page[place + count]
        if count == 8:  # noqa: PLR2004  # the ninth byte has eight bits
            return value << 8 | byte, place + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004
            break
    return value, place + count + 1
