"""Deleting events from the embedded store, while a collector goes on writing to it."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from tap_vero_segment.stores.sqlite.search import forget_blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import apsw

PAGE: Final = 1_000
"""Events in a transaction; a collector that runs beside waits while they are deleted."""

SLICE: Final = 5_000
"""Events that are looked at together; the write-ahead log cannot be reset meanwhile."""

_PAGE: Final = """
SELECT loaded_at, collection FROM events INDEXED BY events_received
WHERE received_at < ? AND loaded_at <= ? ORDER BY received_at, loaded_at LIMIT ?
"""
_DELETE: Final = """
DELETE FROM events WHERE loaded_at IN (SELECT value FROM json_each(?))
RETURNING collection, loaded_at
"""
_FIRSTS: Final = """
SELECT collection, first_loaded_at, events FROM totals
WHERE first_loaded_at IN (SELECT value FROM json_each(?))
"""
_LOOK: Final = """
SELECT collection, max(loaded_at),
    min(loaded_at) FILTER (WHERE loaded_at NOT IN (SELECT value FROM json_each(?)))
FROM (SELECT collection, loaded_at FROM events WHERE loaded_at > ? ORDER BY loaded_at LIMIT ?)
GROUP BY collection
"""
_FIRST_FROM: Final = """
SELECT loaded_at FROM events WHERE loaded_at >= ? AND collection = ? ORDER BY loaded_at LIMIT 1
"""
_TAKE_FROM_TOTALS: Final = """
UPDATE totals SET events = events - ? WHERE collection = ? RETURNING events, first_loaded_at
"""
_BEGINS: Final = "UPDATE totals SET first_loaded_at = ? WHERE collection = ?"


def prune(
    connection: apsw.Connection,
    transaction: Callable[[], AbstractContextManager[None]],
    before: int,
    until: int,
) -> int:
    """Delete a page of events, those that were received first.

    Args:
        connection: The store, opened for writing.
        transaction: Makes a block a transaction that holds the write lock from its start.
        before: Only events with an earlier ``received_at``; microseconds since 1970.
        until: Only events with this ``loaded_at`` at most.

    Returns:
        How many were deleted; 0: none is left.

    Raises:
        apsw.Error: The store failed; nothing was deleted.
        StoreError: Likewise.
    """
    while rows := connection.execute(_PAGE, (before, until, PAGE)).fetchall():
        deleted = delete(
            connection,
            transaction,
            cast("list[tuple[int, str]]", rows),
            partial(forget_blocks_of, connection),
        )
        if deleted:  # if not, another process has been quicker
            return deleted.total()
    return 0


def delete(
    connection: apsw.Connection,
    transaction: Callable[[], AbstractContextManager[None]],
    events: Sequence[tuple[int, str]],
    note: Callable[[list[int]], None],
) -> Counter[str]:
    """Delete events in one transaction.

    Each collection's first ``loaded_at`` has to be known once the present one is deleted, and no
    index leads to it: the next event of a rare collection can be millions of events away. So it is
    looked for before the write lock is taken, in short reads that keep nobody waiting. It is not
    looked for again until it is deleted itself, so that all pages together look at an event once
    for each collection at most.

    Args:
        connection: The store, opened for writing.
        transaction: Makes a block a transaction that holds the write lock from its start.
        events: Each event's ``loaded_at`` and collection.
        note: Called in the transaction with the ``loaded_at`` of those that were deleted.

    Returns:
        How many were deleted, by their collections.

    Raises:
        apsw.Error: The store failed; nothing was deleted.
        StoreError: Likewise.
    """
    page = json.dumps([loaded_at for loaded_at, _ in events])
    firsts = _look_behind(connection, page, Counter(collection for _, collection in events))
    with transaction():
        deleted: list[Any] = connection.execute(_DELETE, (page,)).fetchall()
        gone: Counter[str] = Counter(collection for collection, _ in deleted)
        for collection, count in gone.items():
            left: Any = connection.execute(_TAKE_FROM_TOTALS, (count, collection)).fetchone()
            remaining, first = left
            if remaining:
                # New events come behind all others, and another process can have deleted more
                # since: so the first one is the one that was found, or a later one.
                start = max(first, firsts.get(collection, first))
                first = connection.execute(_FIRST_FROM, (start, collection)).get
                connection.execute(_BEGINS, (first, collection))
        note([loaded_at for _, loaded_at in deleted])
    return gone


def _look_behind(connection: apsw.Connection, page: str, going: Counter[Any]) -> dict[str, int]:
    """Find the first event of each collection whose present first one is in a page, outside it.

    Args:
        connection: The store.
        page: The ``loaded_at`` of its events, as a JSON array.
        going: How many of them are of each collection.
    """
    wanted: dict[Any, Any] = {
        collection: first
        for collection, first, events in connection.execute(_FIRSTS, (page,))
        if events > going[collection]
    }
    firsts: dict[str, int] = {}
    after = min(wanted.values(), default=0) - 1
    size = 2 * PAGE  # as the page itself mostly comes first
    while wanted.keys() - firsts.keys():
        found: list[Any] = connection.execute(_LOOK, (page, after, size)).fetchall()
        if not found:
            # Nothing of it is left, and what comes now comes behind.
            firsts |= dict.fromkeys(wanted.keys() - firsts.keys(), after)
        for collection, _, first in found:
            if first is not None and collection in wanted:
                firsts.setdefault(collection, first)
        after = max(last for _, last, _ in found)
        size = SLICE
    return firsts
