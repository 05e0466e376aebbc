"""Taking events of the shared store back from the future, beside collectors that write to it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from tap_vero_segment import times
from tap_vero_segment.stores.base import ARRIVALS_SLOT, StoreBusyError, throttled
from tap_vero_segment.stores.postgres.connection import open_to_write
from tap_vero_segment.stores.postgres.pruning import WEEK
from tap_vero_segment.stores.postgres.search import forget_blocks_after, lock_changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.postgres.connection import Connection, Session

PAGE: Final = 500
"""Events in a transaction; collectors that run beside wait while they are moved."""

PATIENCE: Final = 60
"""Seconds to try again for, where others hold what is needed."""

_MONDAY: Final = 345_600_000_000
"""The first one after 1970 began, in microseconds."""

_LOCK_CLOCK: Final = "SELECT FROM vero_collector.clock FOR UPDATE"
_START: Final = """
WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now)
SELECT clock.now,
    (SELECT max(loaded_at) FROM vero_collector.events WHERE loaded_at <= clock.now),
    (SELECT count(*) FROM vero_collector.events WHERE loaded_at > clock.now)
FROM clock
"""
_NEXT: Final = """
SELECT loaded_at, id, collection FROM vero_collector.events
WHERE loaded_at > %s ORDER BY loaded_at LIMIT %s
"""
_MOVE: Final = "UPDATE vero_collector.events SET loaded_at = %s WHERE loaded_at = %s"
_MOVE_ID: Final = "UPDATE vero_collector.ids SET loaded_at = %s WHERE id = %s AND loaded_at = %s"
_MAKE_PARTITION: Final = "SELECT vero_collector.make_partition(%s)"
_TAKE_FROM_TOTALS: Final = """
UPDATE vero_collector.totals t SET
    events = events - %(count)s,
    first_loaded_at = coalesce((
        SELECT e.loaded_at FROM vero_collector.events e
        WHERE e.loaded_at > %(last)s AND e.loaded_at <= t.last_loaded_at
            AND e.collection = t.collection AND t.events > %(count)s
        ORDER BY e.loaded_at LIMIT 1
    ), t.last_loaded_at)
WHERE t.starts = %(starts)s AND t.collection = %(collection)s
"""
_ADD_TO_TOTALS: Final = """
INSERT INTO vero_collector.totals AS t VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (starts, collection) DO UPDATE SET
    first_loaded_at = CASE
        WHEN t.events > 0 THEN least(t.first_loaded_at, excluded.first_loaded_at)
        ELSE excluded.first_loaded_at END,
    last_loaded_at = CASE
        WHEN t.events > 0 THEN greatest(t.last_loaded_at, excluded.last_loaded_at)
        ELSE excluded.last_loaded_at END,
    events = t.events + excluded.events
"""
_ADD_ARRIVALS: Final = """
INSERT INTO vero_collector.arrivals AS a VALUES (%s, %s, %s)
ON CONFLICT (start, collection) DO UPDATE SET events = a.events + excluded.events
"""
# What is not moved has a row for the same events already, which has more of them.
_MOVE_EXPORT: Final = """
WITH gone AS (
    DELETE FROM vero_collector.exports WHERE destination = %(to)s AND until = %(was)s
    RETURNING before
)
INSERT INTO vero_collector.exports SELECT %(to)s, %(becomes)s, before FROM gone
ON CONFLICT DO NOTHING
"""
_MOVE_PLAN: Final = """
UPDATE vero_collector.planned_exports SET until = %(becomes)s
WHERE destination = %(to)s AND until = %(was)s
"""
_MOVE_FORWARD: Final = """
UPDATE vero_collector.forwards SET until = %(becomes)s
WHERE destination = %(to)s AND until = %(was)s
"""
_BETWEEN: Final = "WHERE until > %s AND until < %s ORDER BY until"
_FUTURE_PARTITIONS: Final = "SELECT starts, name FROM vero_collector.partitions WHERE starts > %s"
_END_TOTALS: Final = """
UPDATE vero_collector.totals t SET last_loaded_at = coalesce((
    SELECT e.loaded_at FROM vero_collector.events e
    WHERE e.loaded_at >= t.starts AND e.loaded_at < t.starts + %(week)s
        AND e.collection = t.collection
    ORDER BY e.loaded_at DESC LIMIT 1
), %(end)s) WHERE t.last_loaded_at > %(end)s
"""


def repair_clock(url: str, setting: str, advance: Callable[[int], None]) -> int:
    """Do what :func:`tap_vero_segment.stores.sqlite.repair.repair_clock` does.

    Collectors may go on meanwhile: what they store goes behind the last event, and is moved too.

    Raises:
        SettingError: The database cannot be reached or written.
        StoreError: It failed, or others held for too long what is needed. The next call goes on.
    """
    with closing(open_to_write(url, setting)) as session:
        return Moving(session).move(advance)


class Moving:
    """Moves events, page by page.

    Args:
        session: The store.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._now = 0
        self._after = 0  # events up to this stay, or have been moved
        self._reached = 0

    def move(self, advance: Callable[[int], None]) -> int:
        """Move all of them; return how many there were.

        Args:
            advance: Takes how many more were moved.
        """
        self._now, reached, later = self._session.commit(
            lambda connection: connection.execute(_START).fetchall()[0]
        )
        self._after = self._now
        self._reached = max(reached or 0, self._now - later)
        moved = 0
        ended = False
        while not ended:
            with throttled():
                count, ended = self._retried()
            moved += count
            advance(count)
        return moved

    def _retried(self) -> tuple[int, bool]:
        attempts = Retrying(
            retry=retry_if_exception_type(StoreBusyError),
            stop=stop_after_delay(PATIENCE),
            wait=wait_random(0.2, 1),
            reraise=True,
        )
        count, ended, after, reached = attempts(self._session.commit, self._step)
        self._after, self._reached = after, reached
        return count, ended

    def _step(self, connection: Connection) -> tuple[int, bool, int, int]:
        """Move a page; where there are no more, take back what outlives the events.

        Returns:
            How many were moved, whether that was all, and the last one's old and new time.
        """
        connection.execute("SET LOCAL lock_timeout = '2s'")
        lock_changes(connection)
        connection.execute(_LOCK_CLOCK)
        page = connection.execute(_NEXT, (self._after, PAGE)).fetchall()
        if not page:
            self._finish(connection)
            return 0, True, self._after, self._reached
        forget_blocks_after(connection, self._reached)
        first = self._reached + 1
        moves = [(was, first + place, *rest) for place, (was, *rest) in enumerate(page)]
        last, end = moves[-1][:2]
        for week in sorted({_week_of(first), _week_of(end)}):
            connection.execute(_MAKE_PARTITION, (week,))
        with connection.cursor() as cursor:
            # From the oldest on, none meets one that is still to be moved.
            cursor.executemany(_MOVE, [(becomes, was) for was, becomes, *_ in moves])
            cursor.executemany(_MOVE_ID, [(becomes, key, was) for was, becomes, key, _ in moves])
        self._count(connection, moves)
        following = connection.execute(_NEXT, (last, 1)).fetchone()
        bound = following[0] if following else times.LATEST
        _move_exports(connection, [was for was, *_ in moves], first, self._reached, bound)
        return len(moves), False, last, end

    def _count(self, connection: Connection, moves: list[Any]) -> None:
        left: Counter[tuple[int, str]] = Counter()
        came: dict[tuple[int, str], list[int]] = {}
        arrived: Counter[tuple[int, str]] = Counter()
        for was, becomes, _, collection in moves:
            left[_week_of(was), collection] += 1
            came.setdefault((_week_of(becomes), collection), []).append(becomes)
            arrived[becomes - becomes % ARRIVALS_SLOT, collection] += 1
        last = moves[-1][0]
        for (starts, collection), count in left.items():
            bindings = {"starts": starts, "collection": collection, "count": count, "last": last}
            connection.execute(_TAKE_FROM_TOTALS, bindings)
        for key, those in came.items():
            connection.execute(_ADD_TO_TOTALS, (*key, len(those), those[0], those[-1]))
        for key, count in arrived.items():
            connection.execute(_ADD_ARRIVALS, (*key, count))

    def _finish(self, connection: Connection) -> None:
        newest = connection.execute("SELECT max(loaded_at) FROM vero_collector.events").fetchone()
        end = (newest[0] if newest else None) or self._now
        _move_exports(connection, [], 0, end, times.LATEST)
        # While this waits for the lock that keeps readers out, all others wait behind it.
        connection.execute("SET LOCAL lock_timeout = '200ms'")
        for starts, name in connection.execute(_FUTURE_PARTITIONS, (end,)).fetchall():
            connection.execute("DELETE FROM vero_collector.partitions WHERE starts = %s", (starts,))
            connection.execute(f'DROP TABLE vero_collector."{name}"'.encode())
        connection.execute(_END_TOTALS, {"week": WEEK, "end": end})
        later = (max(end, self._now),)
        connection.execute("DELETE FROM vero_collector.arrivals WHERE start > %s", later)
        connection.execute(
            "UPDATE vero_collector.clock SET last = %s, repairs = repairs + 1 WHERE last > %s",
            (end, end),
        )


def _week_of(moment: int) -> int:
    return _MONDAY + (moment - _MONDAY) // WEEK * WEEK


def _move_exports(
    connection: Connection, moved: list[int], first: int, reached: int, following: int
) -> None:
    """Let what archives and destinations have, or are to have, end at the same events."""
    for table, move in (
        ("exports", _MOVE_EXPORT),
        ("planned_exports", _MOVE_PLAN),
        ("forwards", _MOVE_FORWARD),
    ):
        query = f"SELECT destination, until FROM vero_collector.{table} {_BETWEEN}"  # noqa: S608
        rows = connection.execute(query.encode(), (reached, following)).fetchall()
        for destination, until in rows:
            place = bisect_right(moved, until)
            becomes = first + place - 1 if place else reached
            if becomes != until:
                bindings = {"to": destination, "was": until, "becomes": becomes}
                connection.execute(move, bindings)
