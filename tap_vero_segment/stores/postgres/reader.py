"""The reading half of the shared store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.errors import InsufficientPrivilege

from tap_vero_segment import times
from tap_vero_segment.closing import Closing
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.base import (
    ARRIVALS_SLOT,
    BACKLOG_COUNTED,
    FOUND,
    LAST_LETTER,
    NEWEST_SEARCHED,
    Arrivals,
    Backlog,
    Body,
    DeadLetter,
    Exported,
    Forward,
    Found,
    KeptDeadLetter,
    LetterGroup,
    LetterHead,
    Refused,
    SearchPage,
    Span,
    StoreError,
    Summary,
    Total,
)
from tap_vero_segment.stores.erasures import ErasedEvent, ErasureFigures
from tap_vero_segment.stores.postgres.connection import key_of, open_to_read
from tap_vero_segment.stores.postgres.search import search as search_events
from tap_vero_segment.track import with_loaded_at, without_loaded_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_vero_segment.stores.base import Search
    from tap_vero_segment.stores.postgres.connection import Connection

_CHECKED_AT_ONCE: Final = 1_000
"""Events or dead letters of a page, where all are read only to see whether they can be."""

# Each of them is a single statement, so it names the schema of all that it uses: see SAFE_PATH.
_IS: Final = "OPERATOR(pg_catalog.=)"
_OVER: Final = "OPERATOR(pg_catalog.>)"
_UP_TO: Final = "OPERATOR(pg_catalog.<=)"
_FROM: Final = "OPERATOR(pg_catalog.>=)"
_BELOW: Final = "OPERATOR(pg_catalog.<)"


def _page(rows: str, columns: str, content: str, order: str) -> str:
    """Return a query for the first of some rows, up to the bound in bytes, or the first alone.

    The server adds up the lengths, for which it does not read what is long.
    """
    return f"""
SELECT {columns} FROM (
    SELECT *, pg_catalog.sum(size) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT *, pg_catalog.octet_length({content}) AS size
        FROM ({rows} ORDER BY {order} LIMIT %s) AS found
    ) AS sized
) AS page WHERE total {_UP_TO} {PAGE_BYTES} OR total {_IS} size ORDER BY {order}
"""  # noqa: S608


_EVENTS: Final = "SELECT loaded_at, call FROM vero_collector.events"
_LINES: Final = _page(
    f"{_EVENTS} WHERE loaded_at {_OVER} %s AND loaded_at {_UP_TO} %s",
    "loaded_at, call",
    "call",
    "loaded_at",
)
_NEWEST: Final = _page(_EVENTS, "loaded_at, call", "call", "loaded_at DESC")
_NEWEST_OF: Final = _page(
    f"""
SELECT loaded_at, call FROM (
    SELECT loaded_at, collection, call FROM vero_collector.events ORDER BY loaded_at DESC LIMIT %s
) AS newest WHERE collection {_IS} %s
""",  # noqa: S608
    "loaded_at, call",
    "call",
    "loaded_at DESC",
)
_EVENT: Final = f"{_EVENTS} WHERE loaded_at {_IS} %s"
_ARRIVALS: Final = f"""
SELECT collection, slot, pg_catalog.sum(events)::bigint FROM (
    SELECT collection, events,
        start OPERATOR(pg_catalog.-) (start OPERATOR(pg_catalog.%%) %s::bigint) AS slot
    FROM vero_collector.arrivals WHERE start {_FROM} %s
) AS counted GROUP BY slot, collection ORDER BY slot, collection
"""  # noqa: S608
_BEHIND: Final = """
SELECT pg_catalog.max(last_loaded_at), extract(epoch FROM pg_catalog.clock_timestamp())
FROM vero_collector.totals
"""
_REFUSED: Final = """
SELECT reason, requests, last_at FROM vero_collector.refused_requests
ORDER BY last_at DESC, reason
"""
_COUNT_AFTER: Final = (
    f"SELECT pg_catalog.count(*) FROM vero_collector.events WHERE loaded_at {_OVER} %s"  # noqa: S608
)
# Where the newest events were deleted, the totals still know it.
_HIGH_WATER: Final = """
SELECT greatest(
    (SELECT pg_catalog.max(loaded_at) FROM vero_collector.events),
    (SELECT pg_catalog.max(last_loaded_at) FROM vero_collector.totals)
)
"""
_TOTALS: Final = f"""
SELECT collection, pg_catalog.sum(events)::bigint, pg_catalog.min(first_loaded_at),
    pg_catalog.max(last_loaded_at)
FROM vero_collector.totals WHERE events {_OVER} 0 GROUP BY collection
"""  # noqa: S608
_LETTER: Final = "id, received_at, input, reason, body"
_ALL_LETTERS: Final = f"SELECT {_LETTER} FROM vero_collector.dead_letters"  # noqa: S608
_LETTERS: Final = _page(f"{_ALL_LETTERS} WHERE id {_OVER} %s", _LETTER, "body", "id")
_HEADS: Final = f"""
SELECT id, received_at, input, reason, pg_catalog.octet_length(body)
FROM vero_collector.dead_letters WHERE id {_BELOW} %s
"""  # noqa: S608
_LETTER_HEADS: Final = f"{_HEADS} ORDER BY id DESC LIMIT %s"
_LETTER_HEADS_OF: Final = f"{_HEADS} AND reason_group {_IS} %s ORDER BY id DESC LIMIT %s"
_LETTER_GROUPS: Final = """
SELECT reason_group, pg_catalog.count(*), pg_catalog.min(id), pg_catalog.max(id),
    pg_catalog.min(received_at), pg_catalog.max(received_at)
FROM vero_collector.dead_letters GROUP BY reason_group ORDER BY 4 DESC
"""
_COUNT_LETTERS: Final = "SELECT pg_catalog.count(*) FROM vero_collector.dead_letters"
_MAY_SEE_LETTERS: Final = """
SELECT pg_catalog.has_any_column_privilege('vero_collector.dead_letters', 'SELECT')::integer
"""
_IGNORED: Final = "SELECT calls FROM vero_collector.ignored"
_LETTERS_DELETED: Final = "SELECT letters FROM vero_collector.deleted_dead_letters"
_SIZE: Final = f"""
SELECT coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(oid)), 0)::bigint
FROM pg_catalog.pg_class WHERE relkind {_IS} 'r'
    AND relnamespace {_IS} 'vero_collector'::pg_catalog.regnamespace
"""  # noqa: S608
_SPAN: Final = f"""
SELECT pg_catalog.min(loaded_at), pg_catalog.max(loaded_at), pg_catalog.min(received_at),
    pg_catalog.max(received_at)
FROM vero_collector.events
WHERE received_at {_FROM} %s AND received_at {_BELOW} %s AND loaded_at {_OVER} %s
    AND loaded_at {_UP_TO} %s
"""  # noqa: S608
_RECEIVED: Final = f"""
SELECT i.id, e.received_at FROM vero_collector.ids i
JOIN vero_collector.events e ON e.loaded_at {_IS} i.loaded_at
WHERE i.id OPERATOR(pg_catalog.=) ANY (%s::pg_catalog.text[])
"""  # noqa: S608
# Each text leads to its own part of the index; the limits keep the planner from reading all events.
_BEGINNING: Final = _page(
    f"""
SELECT id, input, call
FROM ROWS FROM (
    pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[])
) AS front (first, last) CROSS JOIN LATERAL (
    SELECT i.id, e.input, e.call FROM vero_collector.ids i
    JOIN vero_collector.events e ON e.loaded_at {_IS} i.loaded_at
    WHERE i.id {_OVER} greatest(front.first, %s::pg_catalog.text) AND i.id {_BELOW} front.last
    ORDER BY i.id LIMIT %s
) AS of_front
""",  # noqa: S608
    "id, input, call",
    "call",
    "id",
)
_EXPORTS: Final = """
SELECT destination, until, before FROM vero_collector.exports ORDER BY destination, until
"""
_BODIES: Final = _page(
    f"""
SELECT loaded_at, input, coalesce(body, ''::pg_catalog.bytea) AS body
FROM vero_collector.events WHERE loaded_at {_OVER} %s AND loaded_at {_UP_TO} %s
""",  # noqa: S608
    "loaded_at, input, body",
    "body",
    "loaded_at",
)
_FORWARDS: Final = """
SELECT number, destination, until, letter, sent, skipped, refused, failing, failure, failed_at
FROM vero_collector.forwards ORDER BY number
"""
_BACKLOG: Final = f"""
SELECT pg_catalog.count(*), pg_catalog.min(loaded_at) FROM (
    SELECT loaded_at FROM vero_collector.events WHERE loaded_at {_OVER} %s
    ORDER BY loaded_at LIMIT %s
) AS behind
"""  # noqa: S608
_LETTER_BACKLOG: Final = f"""
SELECT pg_catalog.count(*)
FROM (SELECT id FROM vero_collector.dead_letters WHERE id {_OVER} %s LIMIT %s) AS behind
"""  # noqa: S608
_PLANNED: Final = "SELECT destination FROM vero_collector.planned_exports ORDER BY destination"
_ERASED: Final = f"""
SELECT loaded_at, id, erased_at FROM vero_collector.erased_events WHERE loaded_at {_OVER} %s
ORDER BY loaded_at LIMIT %s
"""  # noqa: S608
_NEWEST_ERASED: Final = "SELECT pg_catalog.max(loaded_at) FROM vero_collector.erased_events"
_ERASURE_FIGURES: Final = """
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE finished_at IS NULL),
    pg_catalog.count(*) FILTER (WHERE suppress),
    (SELECT pg_catalog.count(*) FROM vero_collector.erased_events),
    coalesce((SELECT calls FROM vero_collector.dropped), 0)
FROM vero_collector.erasures
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
        return self._lines(_LINES, (after, times.LATEST if until is None else until, limit))

    def newest(self, limit: int, collection: str | None = None) -> list[bytes]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        if collection is None:
            return self._lines(_NEWEST, (limit,))
        return self._lines(_NEWEST_OF, (NEWEST_SEARCHED, collection, limit))

    def clock_behind(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`: the clock is the server's."""
        row = self._session.run(lambda connection: connection.execute(_BEHIND).fetchone())
        newest, now = row or (None, 0)
        return 0 if newest is None else max(0, newest - int(now * times.SECOND))

    def count_after(self, loaded_at: int) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        bindings = (loaded_at,)
        count = self._session.run(lambda connection: _value(connection, _COUNT_AFTER, bindings))
        return count or 0

    def event(self, loaded_at: int) -> bytes | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        if not times.EARLIEST <= loaded_at <= times.LATEST:
            return None
        return next(iter(self._lines(_EVENT, (loaded_at,))), None)

    def arrivals(self, after: int, step: int = ARRIVALS_SLOT) -> list[Arrivals]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._session.run(
            lambda connection: connection.execute(_ARRIVALS, (step, after)).fetchall()
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
                ignored = _value(connection, _IGNORED) or 0
                deleted = _value(connection, _LETTERS_DELETED) or 0
            return Summary([Total(*row) for row in totals], dead_letters, ignored, deleted)

        return self._session.run(work)

    def size(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._session.run(lambda connection: _value(connection, _SIZE)) or 0

    def dead_letters(self, after: int, limit: int) -> list[KeptDeadLetter]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._letter_rows(_LETTERS, (after, limit))
        return [KeptDeadLetter(number, DeadLetter(*rest)) for number, *rest in rows]

    def letter_heads(
        self, limit: int, before: int = LAST_LETTER, reason: str | None = None
    ) -> list[LetterHead]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        if reason is None:
            rows = self._letter_rows(_LETTER_HEADS, (before, limit))
        else:
            rows = self._letter_rows(_LETTER_HEADS_OF, (before, reason, limit))
        return [LetterHead(*row) for row in rows]

    def letter_groups(self) -> list[LetterGroup]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return [LetterGroup(*row) for row in self._letter_rows(_LETTER_GROUPS)]

    def _letter_rows(self, query: str, bindings: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._session.run(
                lambda connection: connection.execute(query, bindings, binary=True).fetchall()
            )
        except StoreError as error:
            if isinstance(error.__cause__, InsufficientPrivilege):
                msg = "this database user may not see dead letters; the collectors' own user may"
                raise StoreError(msg) from error
            raise

    def span(self, since: int, before: int, after: int, until: int) -> Span | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        values = (since, before, after, until)
        row = self._session.run(lambda connection: connection.execute(_SPAN, values).fetchone())
        return None if row is None or row[0] is None else Span(*row)

    def received(self, ids: Sequence[str]) -> dict[str, int]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        wanted = {key_of(each): each for each in ids}
        rows = self._session.run(
            lambda connection: connection.execute(_RECEIVED, ([*wanted],)).fetchall()
        )
        return {wanted[key]: received_at for key, received_at in rows}

    def beginning(self, fronts: Sequence[str], after: str) -> list[Found]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        values = ([*fronts], [f"{front}~" for front in fronts], after, FOUND, FOUND)
        rows = self._session.run(
            lambda connection: connection.execute(_BEGINNING, values, binary=True).fetchall()
        )
        return [Found(*row) for row in rows]

    def search(
        self, search: Search, *, before: int | None = None, after: int | None = None, limit: int
    ) -> SearchPage:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return search_events(self._session, search, before, after, limit)

    def exports(self) -> dict[str, list[Exported]]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        found: dict[str, list[Exported]] = {}
        rows = self._session.run(lambda connection: connection.execute(_EXPORTS).fetchall())
        for destination, *written in rows:
            found.setdefault(destination, []).append(Exported(*written))
        return found

    def bodies(self, after: int, until: int, limit: int) -> list[Body]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._session.run(
            lambda connection: connection.execute(
                _BODIES, (after, until, limit), binary=True
            ).fetchall()
        )
        return [Body(*row) for row in rows]

    def forwards(self) -> list[Forward]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._session.run(lambda connection: connection.execute(_FORWARDS).fetchall())
        return [Forward(*row) for row in rows]

    def backlog(self, forward: Forward) -> Backlog:
        """See :class:`tap_vero_segment.stores.base.Reader`."""

        def work(connection: Connection) -> Backlog:
            bindings = (forward.until, BACKLOG_COUNTED)
            events, oldest = connection.execute(_BACKLOG, bindings).fetchall()[0]
            visible = _value(connection, _MAY_SEE_LETTERS)
            bindings = (forward.letter, BACKLOG_COUNTED)
            letters = _value(connection, _LETTER_BACKLOG, bindings) if visible else None
            return Backlog(events, oldest, letters)

        return self._session.run(work)

    def refused(self) -> list[Refused]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._session.run(lambda connection: connection.execute(_REFUSED).fetchall())
        return [Refused(*row) for row in rows]

    def check_all(self, advance: Callable[[int], None]) -> None:
        """See :class:`tap_vero_segment.stores.base.Reader`: it is the server that finds damage."""
        after = times.EARLIEST
        while lines := self.lines(after, None, _CHECKED_AT_ONCE):
            advance(len(lines))
            after = times.from_text(without_loaded_at(lines[-1])[1])
        if self.summary().dead_letters is None:  # this user may not see them
            return
        number = 0
        while letters := self.dead_letters(number, _CHECKED_AT_ONCE):
            number = letters[-1].number

    def nearly_full(self) -> bool:
        """See :class:`tap_vero_segment.stores.base.Reader`: the disk is the server's."""
        return False

    def planned_exports(self) -> list[str]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        rows = self._session.run(lambda connection: connection.execute(_PLANNED).fetchall())
        return [destination for (destination,) in rows]

    def erased(self, after: int, limit: int) -> list[ErasedEvent]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        values = (after, limit)
        rows = self._session.run(lambda connection: connection.execute(_ERASED, values).fetchall())
        return [ErasedEvent(*row) for row in rows]

    def newest_erased(self) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return self._session.run(lambda connection: _value(connection, _NEWEST_ERASED))

    def erasure_figures(self) -> ErasureFigures:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        row = self._session.run(lambda connection: connection.execute(_ERASURE_FIGURES).fetchone())
        return ErasureFigures(*(row or ()))

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
