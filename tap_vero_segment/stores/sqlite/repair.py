"""Taking events of the embedded store back from the future, where a wrong clock has put them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import apsw

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.base import ARRIVALS_SLOT
from tap_vero_segment.stores.sqlite.arrivals import add_arrivals
from tap_vero_segment.stores.sqlite.connection import let_go, open_to_write, path_of
from tap_vero_segment.stores.sqlite.high_water_mark import HighWaterMark, Known
from tap_vero_segment.stores.sqlite.integrity import call_check, newest, translating_errors
from tap_vero_segment.stores.sqlite.search import forget_blocks_after

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

PAGE: Final = 1_000
"""Events in a transaction, which also ends at :data:`PAGE_BYTES`."""

_BETWEEN: Final = "WHERE until > ? AND until < ? ORDER BY until"
_NEXT: Final = """
SELECT loaded_at, collection, call, length(call) + coalesce(length(body), 0) FROM events
WHERE loaded_at > ? ORDER BY loaded_at LIMIT ?
"""
_MOVE: Final = """
UPDATE events SET loaded_at = ?, call_check = ?, previous = coalesce(?, previous)
WHERE loaded_at = ?
"""
_FOLLOWS: Final = """
UPDATE events SET previous = ?
WHERE loaded_at = (SELECT min(loaded_at) FROM events WHERE loaded_at > ?)
"""


def repair_clock(url: str, setting: str, advance: Callable[[int], None]) -> int:
    """Give events that were loaded in the future a ``loaded_at`` up to now, in the same order.

    A page of them is a transaction, from the oldest on, so that the store is whole and in order
    wherever this is broken off; the next call goes on. Nobody else may have the store open: those
    who have read further would not see what moves behind them.

    Args:
        url: The store's URL.
        setting: The name of the setting that the URL came from, for errors.
        advance: Takes how many more were taken back.

    Returns:
        How many events were taken back.

    Raises:
        SettingError: The store cannot be opened.
        UserError: Somebody else has it open.
        StoreError: The store failed.
    """
    path = path_of(url, setting)
    try:
        connection = open_to_write(path, setting, alone=True)
    except SettingError as error:
        if not isinstance(error.__cause__, apsw.BusyError):
            raise
        msg = (
            f"{path} is open in another process: stop the collector, and whatever else reads or "
            "writes the store, then run this again"
        )
        raise UserError(msg) from error
    try:
        with closing(HighWaterMark(path)) as mark, translating_errors():
            now = times.now()
            reached: int = (
                _value(connection, "SELECT max(loaded_at) FROM events WHERE loaded_at <= ?", now)
                or 0
            )
            # It may tell of less than there is, and never of more.
            mark.take_back(Known(reached, newest(connection)[1]))
            moved = Moving(connection, now, reached).move(advance)
            mark.rise_to(*newest(connection))
    finally:
        let_go(connection)
    return moved


def _value(connection: apsw.Connection, query: str, *bindings: int) -> Any:
    return connection.execute(query, bindings).get


class Moving:
    """Moves events, page by page.

    Args:
        connection: The store, which nobody else has open.
        now: Later events are moved; microseconds since 1970.
        reached: The newest ``loaded_at`` of the others.
    """

    def __init__(self, connection: apsw.Connection, now: int, reached: int) -> None:
        self._connection = connection
        self._now = now
        self._after = now  # events up to this stay, or have been moved
        self._reached = reached

    def move(self, advance: Callable[[int], None]) -> int:
        """Move all of them; return how many there were.

        Args:
            advance: Takes how many more were moved.
        """
        later: int = _value(
            self._connection, "SELECT count(*) FROM events WHERE loaded_at > ?", self._now
        )
        first = max(self._reached + 1, self._now - later + 1)
        moved = 0
        while page := self._page():
            with self._transaction():
                self._move(page, first + moved)
            moved += len(page)
            advance(len(page))
        with self._transaction():
            self._finish()
        return moved

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _page(self) -> list[tuple[int, str, bytes]]:
        page: list[tuple[int, str, bytes]] = []
        held = 0
        with closing(self._connection.cursor()) as cursor:
            rows: Any = cursor.execute(_NEXT, (self._after, PAGE))
            for loaded_at, collection, call, size in rows:
                page.append((loaded_at, collection, call))
                held += size
                if held >= PAGE_BYTES:
                    break
        return page

    def _move(self, page: list[tuple[int, str, bytes]], first: int) -> None:
        """Move a page of events, which all the others that are to be moved come after."""
        connection = self._connection
        forget_blocks_after(connection, self._reached)
        previous: int | None = None  # the first one's has been set already
        arrived: Counter[tuple[int, str]] = Counter()
        for becomes, (was, collection, call) in enumerate(page, start=first):
            # From the oldest on, none meets one that is still to be moved.
            connection.execute(_MOVE, (becomes, call_check(becomes, call), previous, was))
            for column in ("first_loaded_at", "last_loaded_at"):
                connection.execute(
                    f"UPDATE totals SET {column} = ? WHERE collection = ? AND {column} = ?",  # noqa: S608
                    (becomes, collection, was),
                )
            arrived[becomes // ARRIVALS_SLOT, collection] += 1
            previous = becomes
        last = page[-1][0]
        connection.execute(_FOLLOWS, (previous, last))
        for (slot, collection), count in arrived.items():
            add_arrivals(connection, slot, collection, count)
        following = _value(
            connection, "SELECT min(loaded_at) FROM events WHERE loaded_at > ?", last
        )
        self._move_exports([was for was, *_ in page], first, following or times.LATEST)
        self._after, self._reached = last, first + len(page) - 1

    def _move_exports(self, moved: list[int], first: int, following: int) -> None:
        """Let what archives and destinations have, or are to have, end at the same events.

        Args:
            moved: The old times of a page of events.
            first: The first one's new time; the others follow.
            following: The old time of the next event.
        """
        for table in ("exports", "planned_exports", "forwards"):
            query = f"SELECT DISTINCT until FROM {table} {_BETWEEN}"  # noqa: S608
            found: list[Any] = self._connection.execute(
                query, (self._reached, following)
            ).fetchall()
            for (until,) in found:
                place = bisect_right(moved, until)
                becomes = first + place - 1 if place else self._reached
                self._connection.execute(
                    f"UPDATE OR IGNORE {table} SET until = ? WHERE until = ?",  # noqa: S608
                    (becomes, until),
                )
                if becomes != until:
                    # There is a row for the same events, which has more of them.
                    self._connection.execute(f"DELETE FROM {table} WHERE until = ?", (until,))  # noqa: S608

    def _finish(self) -> None:
        """Take back what outlives the events."""
        connection = self._connection
        end = _value(connection, "SELECT max(loaded_at) FROM events") or self._now
        self._move_exports([], 0, times.LATEST)
        connection.execute(
            "UPDATE totals SET first_loaded_at = min(first_loaded_at, ?1), "
            "last_loaded_at = min(last_loaded_at, ?1)",
            (end,),
        )
        connection.execute("UPDATE chain SET deleted_until = min(deleted_until, ?)", (end,))
        connection.execute("DELETE FROM arrivals WHERE start > ?", (max(end, self._now),))
