"""The index of the embedded store's events: see :mod:`tap_vero_segment.stores.search`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.search.index import Block, Part, part_of, without
from tap_vero_segment.stores.search.keys import PARTS
from tap_vero_segment.stores.sqlite.connection import read_page
from tap_vero_segment.stores.sqlite.integrity import check_alone, check_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    import apsw

    from tap_vero_segment.stores.search.index import Row
    from tap_vero_segment.stores.search.keys import Key

_BLOCKS: Final = "SELECT number, after, until, first, oldest, newest, checksum FROM search_blocks"
_PARTS: Final = """
SELECT part.number, part.entries, part.checksum
FROM json_each(?) AS wanted CROSS JOIN search_parts AS part ON part.number = wanted.value
"""
_WITH_IDS: Final = "SELECT loaded_at FROM events WHERE id IN (SELECT value FROM json_each(?))"
_EVENT: Final = "SELECT loaded_at, previous, call_check, call FROM events WHERE loaded_at = ?"
_BETWEEN: Final = """
SELECT loaded_at, previous, call_check, call FROM events WHERE loaded_at > ? AND loaded_at <= ?
ORDER BY loaded_at {} LIMIT ?
"""
_CHANGES: Final = "SELECT count FROM search_changes"
_CHANGED: Final = "UPDATE search_changes SET count = count + 1"
_ADD_BLOCK: Final = "INSERT INTO search_blocks VALUES (?, ?, ?, ?, ?, ?, ?)"
_ADD_PART: Final = "INSERT INTO search_parts VALUES (?, ?, ?)"
_EXTEND: Final = "UPDATE search_blocks SET after = ?, checksum = ? WHERE number = ?"
_CHANGE_PART: Final = "UPDATE search_parts SET entries = ?, checksum = ? WHERE number = ?"
_FORGET: Final = "DELETE FROM search_blocks WHERE number = ?"
# The block that has an event is the first one that ends there or later.
_FORGET_BLOCKS_OF: Final = """
DELETE FROM search_blocks WHERE number IN (
    SELECT (
        SELECT number FROM search_blocks WHERE until >= gone.value ORDER BY until LIMIT 1
    ) FROM json_each(?) AS gone
)
"""
_FORGET_AFTER: Final = "DELETE FROM search_blocks WHERE until > ?"


class SqliteIndex:
    """The index, as :class:`tap_vero_segment.stores.search.WritableIndex`.

    Args:
        connection: The store.
        transaction: Makes a block a transaction that holds the write lock from its start.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        transaction: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._connection = connection
        self._transaction = transaction

    def blocks(self) -> list[Block]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        rows: Any = self._connection.execute(_BLOCKS)
        return [Block(*row) for row in rows]

    def parts(self, numbers: Sequence[int]) -> dict[int, Part]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        rows: Any = self._connection.execute(_PARTS, (json.dumps(list(numbers)),))
        return {number: Part(*part) for number, *part in rows}

    def with_ids(self, ids: Sequence[str]) -> list[int]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        rows: Any = self._connection.execute(_WITH_IDS, (json.dumps(ids),))
        return [loaded_at for (loaded_at,) in rows]

    def at(self, moments: Sequence[int], *, newest_first: bool) -> list[Row]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        del newest_first  # they are in order
        found: list[Row] = []
        size = 0
        for moment in moments:
            row: Any = self._connection.execute(_EVENT, (moment,)).fetchone()
            if row is not None:
                check_alone(self._connection, row)
                found.append((moment, row[-1]))
                size += len(row[-1])
            if size > PAGE_BYTES:
                break
        return found

    def between(self, after: int, until: int, limit: int, *, newest_first: bool) -> list[Row]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        query = _BETWEEN.format("DESC" if newest_first else "ASC")
        rows, _ = read_page(self._connection, query, (after, until, limit))
        if rows:
            in_order = rows[::-1] if newest_first else rows
            first, last = in_order[0][0], in_order[-1][0]
            check_page(self._connection, in_order, first - 1, last, last_page=False)
        return [(loaded_at, call) for loaded_at, _, _, call in rows]

    def changes(self) -> int:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""
        count: int = self._connection.execute(_CHANGES).get
        return count

    def add(self, block: Block, entries: Sequence[bytes], changes: int) -> bool:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""
        with self._transaction():
            if self.changes() != changes:
                return False
            query = "SELECT coalesce(max(number), 0) + 1 FROM search_blocks"
            block = block._replace(number=self._connection.execute(query).get).checked()
            self._connection.execute(_CHANGED)
            self._connection.execute(_ADD_BLOCK, block)
            numbers = range(block.number * PARTS, (block.number + 1) * PARTS)
            self._connection.executemany(
                _ADD_PART,
                [
                    (number, *part_of(number, some))
                    for number, some in zip(numbers, entries, strict=True)
                ],
            )
        return True

    def extend(self, block: Block, changes: int) -> bool:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""
        with self._transaction():
            if self.changes() != changes:
                return False
            self._connection.execute(_CHANGED)
            self._connection.execute(_EXTEND, (block.after, block.checksum, block.number))
        return True

    def forget(self, numbers: Sequence[int]) -> None:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""
        with self._transaction():
            self._connection.execute(_CHANGED)
            self._connection.executemany(_FORGET, [(number,) for number in numbers])


def forget_blocks_of(connection: apsw.Connection, gone: Sequence[int]) -> None:
    """Delete the blocks that have some events, in the transaction that deletes these.

    Args:
        connection: In that transaction.
        gone: The ``loaded_at`` of the events.
    """
    connection.execute(_CHANGED)
    connection.execute(_FORGET_BLOCKS_OF, (json.dumps(gone),))


def forget_blocks_after(connection: apsw.Connection, loaded_at: int) -> None:
    """Delete the blocks that have later events, in a transaction."""
    connection.execute(_CHANGED)
    connection.execute(_FORGET_AFTER, (loaded_at,))


def forget_events(connection: apsw.Connection, events: Iterable[tuple[int, set[Key]]]) -> None:
    """Take events out of the blocks that have them, in the transaction that deletes them."""
    connection.execute(_CHANGED)
    changed, broken = without(SqliteIndex(connection), events)
    connection.executemany(_CHANGE_PART, [(*part, number) for number, part in changed.items()])
    connection.executemany(_FORGET, [(number,) for number in broken])
