"""Deleting old events from the shared store: whole partitions where that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from tap_vero_segment.stores.postgres.connection import Connection, Session

PAGE: Final = 5_000
"""Events in a transaction; collectors that run beside wait while they are deleted."""

WEEK: Final = 604_800_000_000
"""Microseconds that a partition spans."""

_OLDEST: Final = """
SELECT starts, name, starts = (SELECT max(starts) FROM vero_collector.partitions)
FROM vero_collector.partitions ORDER BY starts LIMIT 1
"""
_LOCK_CLOCK: Final = "SELECT last FROM vero_collector.clock FOR UPDATE"
_FREE_IDS: Final = """
WITH page AS (
    SELECT loaded_at, id FROM vero_collector.events
    WHERE loaded_at > %(after)s AND loaded_at < %(ends)s ORDER BY loaded_at LIMIT %(page)s
), freed AS (
    DELETE FROM vero_collector.ids USING page
    WHERE ids.id = page.id AND ids.loaded_at = page.loaded_at
)
SELECT max(loaded_at) FROM page
"""
_DELETE_PAGE: Final = """
WITH page AS (
    SELECT loaded_at FROM vero_collector.events
    WHERE loaded_at >= %(starts)s AND loaded_at < %(before)s ORDER BY loaded_at LIMIT %(page)s
), gone AS (
    DELETE FROM vero_collector.events e USING page
    WHERE e.loaded_at = page.loaded_at AND e.loaded_at >= %(starts)s AND e.loaded_at < %(before)s
    RETURNING e.id, e.loaded_at, e.collection
), freed AS (
    DELETE FROM vero_collector.ids USING gone
    WHERE ids.id = gone.id AND ids.loaded_at = gone.loaded_at
)
SELECT collection, count(*), (SELECT max(loaded_at) FROM gone) FROM gone GROUP BY collection
"""
_TAKE_FROM_TOTALS: Final = """
UPDATE vero_collector.totals t SET
    events = events - %(count)s,
    first_loaded_at = coalesce((
        SELECT e.loaded_at FROM vero_collector.events e
        WHERE e.loaded_at > %(reached)s AND e.loaded_at <= t.last_loaded_at
            AND e.collection = t.collection AND t.events > %(count)s
        ORDER BY e.loaded_at LIMIT 1
    ), t.last_loaded_at)
WHERE t.starts = %(starts)s AND t.collection = %(collection)s
"""
_FORGET_PARTITION: Final = "DELETE FROM vero_collector.partitions WHERE starts = %s"
_COUNT: Final = (
    "SELECT coalesce(sum(events), 0)::bigint FROM vero_collector.totals WHERE starts = %s"
)


class _Partition(NamedTuple):
    """A week of events; times in microseconds since 1970."""

    starts: int
    name: str
    newest: bool


def prune(session: Session, before: int) -> int:
    """Delete some of the oldest events, in transactions that are short.

    A partition that ends before is dropped as a whole, its ids deleted ahead of that, page by page.
    Of one that reaches beyond, and of the newest one, which still gets events, a page is deleted.
    Broken off at any point, the next call goes on.

    Args:
        session: The store.
        before: Only events with an earlier ``loaded_at``; microseconds since 1970.

    Returns:
        How many were deleted; 0: none is left.

    Raises:
        StoreError: The store failed; what was deleted by then is deleted.
    """
    while (oldest := session.run(_oldest)) is not None and oldest.starts < before:
        whole = not oldest.newest and oldest.starts + WEEK <= before
        if whole:
            _free_ids(session, oldest)
            deleted = _drop(session, oldest)
        else:
            deleted = _delete_page(session, oldest, before)
        if deleted or not whole:
            return deleted
    return 0


def _oldest(connection: Connection) -> _Partition | None:
    row = connection.execute(_OLDEST).fetchone()
    return _Partition(*row) if row else None


def _free_ids(session: Session, partition: _Partition) -> None:
    """Delete the ids of a partition's events, which read as before until it is dropped."""
    after: int | None = partition.starts - 1
    ends = partition.starts + WEEK

    def work(connection: Connection) -> int | None:
        bindings = {"after": after, "ends": ends, "page": PAGE}
        row = connection.execute(_FREE_IDS, bindings).fetchone()
        return row[0] if row else None

    while after is not None:
        after = session.run(work)


def _drop(session: Session, partition: _Partition) -> int:
    def work(connection: Connection) -> int:
        # Short of the lock that keeps readers out, as they would wait behind one who waits for it.
        connection.execute("SET LOCAL lock_timeout = '2s'")
        connection.execute(_LOCK_CLOCK)
        row = connection.execute(_COUNT, (partition.starts,)).fetchone()
        if not connection.execute(_FORGET_PARTITION, (partition.starts,)).rowcount:
            return 0  # another process has dropped it meanwhile
        connection.execute(f'DROP TABLE vero_collector."{partition.name}"')
        return int(row[0]) if row else 0

    return session.commit(work)


def _delete_page(session: Session, partition: _Partition, before: int) -> int:
    starts = partition.starts
    end = min(before, starts + WEEK)

    def work(connection: Connection) -> int:
        connection.execute(_LOCK_CLOCK)
        gone = connection.execute(
            _DELETE_PAGE, {"starts": starts, "before": end, "page": PAGE}
        ).fetchall()
        for collection, count, reached in gone:
            connection.execute(
                _TAKE_FROM_TOTALS,
                {
                    "count": count,
                    "reached": reached,
                    "starts": starts,
                    "collection": collection,
                },
            )
        return sum(count for _, count, _ in gone)

    return session.commit(work)
