"""The reading half of the shared store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import InsufficientPrivilege

from tap_vero_segment import times
from tap_vero_segment.closing import Closing
from tap_vero_segment.stores.base import (
    NEWEST_SEARCHED,
    Arrivals,
    DeadLetter,
    KeptLetter,
    StoreError,
    Summary,
    Total,
)
from tap_vero_segment.stores.postgres.connection import open_to_read
from tap_vero_segment.track import with_loaded_at

if TYPE_CHECKING:
    from tap_vero_segment.stores.postgres.connection import Connection

_PAGE: Final = """
SELECT loaded_at, call FROM vero_collector.events
WHERE loaded_at > %s AND loaded_at <= %s ORDER BY loaded_at LIMIT %s
"""
_NEWEST: Final = """
SELECT loaded_at, call FROM vero_collector.events ORDER BY loaded_at DESC LIMIT %s
"""
_NEWEST_OF: Final = """
SELECT loaded_at, call FROM (
    SELECT loaded_at, collection, call FROM vero_collector.events ORDER BY loaded_at DESC LIMIT %s
) AS newest WHERE collection = %s ORDER BY loaded_at DESC LIMIT %s
"""
_EVENT: Final = "SELECT loaded_at, call FROM vero_collector.events WHERE loaded_at = %s"
_ARRIVALS: Final = """
SELECT collection, start, events FROM vero_collector.arrivals WHERE start >= %s
ORDER BY start, collection
"""
_HIGH_WATER: Final = "SELECT max(loaded_at) FROM vero_collector.events"
_TOTALS: Final = """
SELECT collection, sum(events)::bigint, min(first_loaded_at), max(last_loaded_at)
FROM vero_collector.totals WHERE events > 0 GROUP BY collection
"""
_LETTERS: Final = """
SELECT id, received_at, input, reason, body FROM vero_collector.dead_letters
WHERE id > %s ORDER BY id LIMIT %s
"""
_NEWEST_LETTERS: Final = """
SELECT id, received_at, input, reason, body FROM vero_collector.dead_letters
ORDER BY id DESC LIMIT %s
"""
_COUNT_LETTERS: Final = "SELECT count(*) FROM vero_collector.dead_letters"
_MAY_SEE_LETTERS: Final = (
    "SELECT has_any_column_privilege('vero_collector.dead_letters', 'SELECT')::integer"
)
_PASSED_OVER: Final = "SELECT calls FROM vero_collector.passed_over"
_SIZE: Final = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relnamespace = 'vero_collector'::regnamespace AND relkind = 'r'
"""
_EXPORTED: Final = """
SELECT max(until) FROM vero_collector.exports WHERE destination = coalesce(%s, destination)
"""
_ONE_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PostgresReader(Closing):
    """Reads the shared store, beside collectors that write it.

    Each call is a transaction of its own: a long read holds nothing up. What has been read is
    never followed by something with an earlier ``loaded_at``, as that rises in commit order.

    Args:
        url: ``postgresql://…``.
        setting: The name of the setting that the URL came from, for errors.

    Raises:
        SettingError: The database cannot be reached or read, or is no store.
    """

    def __init__(self, url: str, setting: str) -> None:
        self._session = open_to_read(url, setting)

    def high_water(self) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._session.run(lambda connection: _value(connection, _HIGH_WATER))

    def lines(self, after: int, until: int | None, limit: int) -> list[bytes]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._lines(_PAGE, (after, times.LATEST if until is None else until, limit))

    def newest(self, limit: int, collection: str | None = None) -> list[bytes]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        if collection is None:
            return self._lines(_NEWEST, (limit,))
        return self._lines(_NEWEST_OF, (NEWEST_SEARCHED, collection, limit))

    def event(self, loaded_at: int) -> bytes | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        if not times.EARLIEST <= loaded_at <= times.LATEST:
            return None
        return next(iter(self._lines(_EVENT, (loaded_at,))), None)

    def arrivals(self, after: int) -> list[Arrivals]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._session.run(
            lambda connection: connection.execute(_ARRIVALS, (after,)).fetchall()
        )
        return [Arrivals(*row) for row in rows]

    def summary(self) -> Summary:
        """See :class:`tap_vero_segment.stores.base.Reader`."""

        def work(connection: Connection) -> Summary:
            with connection.transaction():
                connection.execute(_ONE_SNAPSHOT)
                totals = connection.execute(_TOTALS).fetchall()
                visible = _value(connection, _MAY_SEE_LETTERS)
                dead_letters = _value(connection, _COUNT_LETTERS) if visible else None
                passed_over = _value(connection, _PASSED_OVER)
            return Summary([Total(*row) for row in totals], dead_letters, passed_over or 0)

        return self._session.run(work)

    def size(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._session.run(lambda connection: _value(connection, _SIZE)) or 0

    def dead_letters(self, after: int, limit: int) -> list[KeptLetter]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._letters(_LETTERS, (after, limit))

    def newest_dead_letters(self, limit: int) -> list[KeptLetter]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._letters(_NEWEST_LETTERS, (limit,))

    def _letters(self, query: str, bindings: tuple[int, ...]) -> list[KeptLetter]:
        try:
            rows = self._session.run(
                lambda connection: connection.execute(query, bindings, binary=True).fetchall()
            )
        except StoreError as error:
            if isinstance(error.__cause__, InsufficientPrivilege):
                msg = "this database user may not see dead letters; the collectors' own user may"
                raise StoreError(msg) from error
            raise
        return [KeptLetter(number, DeadLetter(*rest)) for number, *rest in rows]

    def exported_until(self, destination: str | None = None) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._session.run(lambda connection: _value(connection, _EXPORTED, (destination,)))

    def _lines(self, query: str, bindings: tuple[Any, ...]) -> list[bytes]:
        rows = self._session.run(
            lambda connection: connection.execute(query, bindings, binary=True).fetchall()
        )
        return [with_loaded_at(call, times.to_text(loaded_at)) for loaded_at, call in rows]

    def close(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        self._session.close()


def _value(connection: Connection, query: str, bindings: tuple[Any, ...] = ()) -> int | None:
    row = connection.execute(query, bindings).fetchone()
    return row[0] if row else None
