"""Deleting old events from the shared store, and the partitions that they leave empty."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from psycopg.errors import LockNotAvailable
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.postgres.search import forget_blocks_of, lock_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.stores.postgres.connection import Connection, Session

logger = logging.getLogger("vero-collector")

PAGE: Final = 5_000
"""Events in a transaction; collectors that run beside can have to wait while they are deleted."""

LOCK_MILLISECONDS: Final = "50"
"""How long to wait for the lock that keeps readers and collectors out: they wait behind it."""

PATIENCE: Final = 3
"""Seconds in which it is tried again where another transaction has the table, such as a pg_dump."""

WEEK: Final = 604_800_000_000
"""Microseconds that a partition spans."""

_MONDAY: Final = 345_600_000_000  # the first one after 1970 began

_PARTITIONS: Final = f"""
SELECT p.starts, p.name, p.starts = (SELECT max(starts) FROM vero_collector.partitions),
    coalesce((
        SELECT min(t.first_loaded_at) FROM vero_collector.totals t
        WHERE t.starts = p.starts AND t.events > 0
    ), p.starts + {WEEK})
FROM vero_collector.partitions p WHERE p.starts <= %s ORDER BY p.starts
"""  # noqa: S608
_HAS: Final = """
SELECT EXISTS (
    SELECT FROM vero_collector.events
    WHERE loaded_at >= %(first)s AND loaded_at < %(end)s AND received_at < %(before)s
)
"""
LOCK_CLOCK: Final = "SELECT last FROM vero_collector.clock FOR UPDATE"
_DELETE_PAGE: Final = """
WITH page AS (
    SELECT loaded_at FROM vero_collector.events
    WHERE loaded_at >= %(first)s AND loaded_at < %(end)s AND received_at < %(before)s
    ORDER BY loaded_at LIMIT %(page)s
), gone AS (
    DELETE FROM vero_collector.events e USING page
    WHERE e.loaded_at = page.loaded_at AND e.loaded_at >= %(first)s AND e.loaded_at < %(end)s
    RETURNING e.id, e.loaded_at, e.collection
), freed AS (
    DELETE FROM vero_collector.ids USING gone
    WHERE ids.id = gone.id AND ids.loaded_at = gone.loaded_at
)
SELECT collection, count(*), array_agg(loaded_at) FROM gone
GROUP BY collection ORDER BY collection
"""
_TAKE_FROM_TOTALS: Final = """
UPDATE vero_collector.totals t SET
    events = events - %(count)s,
    first_loaded_at = coalesce((
        SELECT e.loaded_at FROM vero_collector.events e
        WHERE e.loaded_at >= t.first_loaded_at AND e.loaded_at <= t.last_loaded_at
            AND e.collection = t.collection AND t.events > %(count)s
        ORDER BY e.loaded_at LIMIT 1
    ), t.last_loaded_at)
WHERE t.starts = %(starts)s AND t.collection = %(collection)s
"""
_IS_EMPTY: Final = """
SELECT NOT EXISTS (SELECT FROM vero_collector.events WHERE loaded_at >= %s AND loaded_at < %s)
"""
_FORGET_PARTITION: Final = "DELETE FROM vero_collector.partitions WHERE starts = %s"


class _Partition(NamedTuple):
    """A week of events; times in microseconds since 1970."""

    starts: int
    name: str
    newest: bool
    first: int  # the loaded_at of its oldest event; its end, where it has none

    @property
    def end(self) -> int:
        return self.starts + WEEK


def prune(session: Session, before: int, until: int) -> int:
    """Delete a page of events, their ids with them, in a transaction that is short.

    Once there are no more, the partitions that are empty are dropped, as far as nobody reads them.
    Broken off at any point, the next call goes on.

    Args:
        session: The store.
        before: Only events with an earlier ``received_at``; microseconds since 1970.
        until: Only events with this ``loaded_at`` at most.

    Returns:
        How many were deleted; 0: none is left.

    Raises:
        StoreError: The store failed; what was deleted by then is deleted.
    """
    partitions = session.commit(
        lambda connection: [
            _Partition(*row) for row in connection.execute(_PARTITIONS, (until,)).fetchall()
        ]
    )
    for partition in partitions:
        bounds = {
            "first": partition.first,
            "end": min(until + 1, partition.end),
            "before": before,
        }
        if _has(session, bounds) and (deleted := _delete_page(session, partition, bounds)):
            return deleted
    empty = [each for each in partitions if each.first == each.end and not each.newest]
    try:
        for partition in empty:
            _drop(session, partition)
    except StoreError as error:
        if not _is_held(error):
            raise
        logger.warning(
            "the events are deleted, but not yet the empty tables that they leave, as another "
            "transaction uses them (a pg_dump?): to give back their disk space, prune again later"
        )
    return 0


def take_from_totals(connection: Connection, gone: Sequence[tuple[int, str]]) -> None:
    """Count events off, in the transaction that has deleted them.

    Args:
        connection: In that transaction, with the lock on the clock.
        gone: Each event's ``loaded_at`` and collection.
    """
    counts = Counter((at - (at - _MONDAY) % WEEK, collection) for at, collection in gone)
    for (starts, collection), count in sorted(counts.items()):
        values = {"count": count, "starts": starts, "collection": collection}
        connection.execute(_TAKE_FROM_TOTALS, values)


def _drop(session: Session, partition: _Partition) -> None:
    """Drop an empty partition.

    Raises:
        StoreError: Somebody has the table; nothing was done.
    """

    def work(connection: Connection) -> None:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_MILLISECONDS,))
        row = connection.execute(_IS_EMPTY, (partition.starts, partition.end)).fetchone()
        if row == (True,) and connection.execute(_FORGET_PARTITION, (partition.starts,)).rowcount:
            connection.execute(f'DROP TABLE vero_collector."{partition.name}"')

    attempts = Retrying(
        retry=retry_if_exception(_is_held),
        stop=stop_after_delay(PATIENCE),
        wait=wait_random(0.3, 0.7),
        reraise=True,
    )
    attempts(session.commit, work)


def _is_held(error: BaseException) -> bool:
    """Return whether another transaction has what was to be locked."""
    return isinstance(error.__cause__, LockNotAvailable)


def _has(session: Session, bounds: dict[str, int]) -> bool:
    """Look, under no lock, whether a partition has events that are to be deleted."""
    if bounds["first"] >= bounds["end"]:
        return False
    row = session.commit(lambda connection: connection.execute(_HAS, bounds).fetchone())
    return row == (True,)


def _delete_page(session: Session, partition: _Partition, bounds: dict[str, int]) -> int:
    def work(connection: Connection) -> int:
        lock_changes(connection)
        if partition.newest:  # the only one that collectors write to
            connection.execute(LOCK_CLOCK)
        gone = connection.execute(_DELETE_PAGE, {**bounds, "page": PAGE}).fetchall()
        for collection, count, moments in gone:
            forget_blocks_of(connection, moments)
            connection.execute(
                _TAKE_FROM_TOTALS,
                {
                    "count": count,
                    "starts": partition.starts,
                    "collection": collection,
                },
            )
        return sum(count for _, count, _ in gone)

    return session.commit(work)
