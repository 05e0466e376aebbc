"""Deleting old events from the embedded store, while a collector goes on writing to it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import apsw

PAGE: Final = 1_000
"""Events in a transaction; a collector that runs beside waits while they are deleted."""

SLICE: Final = 5_000
"""Events that are looked at together; the write-ahead log cannot be reset meanwhile."""

_END_OF_PAGE: Final = """
SELECT max(loaded_at) FROM (
    SELECT loaded_at FROM events WHERE loaded_at < ? ORDER BY loaded_at LIMIT ?
)
"""
_DELETE: Final = "DELETE FROM events WHERE loaded_at <= ? RETURNING collection"
_SPANS: Final = "SELECT collection, first_loaded_at, last_loaded_at FROM totals WHERE events > 0"
_LOOK: Final = """
SELECT collection, min(loaded_at), max(loaded_at) FROM (
    SELECT collection, loaded_at FROM events WHERE loaded_at > ? ORDER BY loaded_at LIMIT ?
) GROUP BY collection
"""
_FIRST_FROM: Final = """
SELECT loaded_at FROM events WHERE loaded_at >= ? AND collection = ? ORDER BY loaded_at LIMIT 1
"""
_TAKE_FROM_TOTALS: Final = """
UPDATE totals SET events = events - ? WHERE collection = ? RETURNING events
"""
_BEGINS: Final = "UPDATE totals SET first_loaded_at = ? WHERE collection = ?"


def prune(
    connection: apsw.Connection,
    transaction: Callable[[], AbstractContextManager[None]],
    before: int,
) -> int:
    """Delete a page of the oldest events.

    Each collection's first ``loaded_at`` has to be known behind what is deleted, and no index tells
    it: the next event of a rare collection can be millions of events away. So it is looked for
    before the write lock is taken, in short reads that keep nobody waiting. It is not looked for
    again until it is deleted itself, so that all pages together look at an event once for each
    collection at most.

    Args:
        connection: The store, opened for writing.
        transaction: Makes a block a transaction that holds the write lock from its start.
        before: Only events with an earlier ``loaded_at``; microseconds since 1970.

    Returns:
        How many were deleted; 0: none is left.

    Raises:
        apsw.Error: The store failed; nothing was deleted.
        StoreError: Likewise.
    """
    while (end := connection.execute(_END_OF_PAGE, (before, PAGE)).get) is not None:
        spans: list[Any] = connection.execute(_SPANS).fetchall()
        newest = max((last for *_, last in spans), default=end)
        firsts = _look_behind(connection, end, {name for name, a, b in spans if a <= end < b})
        with transaction():
            rows = connection.execute(_DELETE, (end,))
            gone = Counter(collection for (collection,) in rows)
            for collection, count in gone.items():
                if connection.execute(_TAKE_FROM_TOTALS, (count, collection)).get:
                    # Events are deleted from the oldest on. So where another process has deleted
                    # the one that was found, none before it is left either; and what was not found
                    # has come since.
                    start = firsts.get(collection, newest)
                    first = connection.execute(_FIRST_FROM, (start, collection)).get
                    connection.execute(_BEGINS, (first, collection))
        if gone:  # if not, another process has been quicker
            return gone.total()
    return 0


def _look_behind(connection: apsw.Connection, end: int, wanted: set[str]) -> dict[str, int]:
    """Find the first event behind an end of each of some collections, at least."""
    firsts: dict[str, int] = {}
    size = PAGE
    while wanted - firsts.keys():
        found: list[Any] = connection.execute(_LOOK, (end, size)).fetchall()
        if not found:
            break  # another process has deleted it
        for name, first, _ in found:
            firsts.setdefault(name, first)
        end = max(last for *_, last in found)
        size = SLICE
    return firsts
