"""The index of the shared store's events: see :mod:`tap_vero_segment.stores.search`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.postgres.connection import SAFE_PATH, key_of
from tap_vero_segment.stores.search.find import find
from tap_vero_segment.stores.search.index import Block, Part, part_of, without
from tap_vero_segment.stores.search.keys import PARTS, keys_of
from tap_vero_segment.track import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from tap_vero_segment.stores.base import Search, SearchPage
    from tap_vero_segment.stores.postgres.connection import Connection, Session
    from tap_vero_segment.stores.search.index import Row

T = TypeVar("T")

_BLOCKS: Final = """
SELECT number, after, until, first, oldest, newest, checksum FROM vero_collector.search_blocks
"""
_PARTS: Final = """
SELECT number, entries, checksum FROM vero_collector.search_parts
WHERE number = ANY(%s::bigint[])
"""
_WITH_IDS: Final = "SELECT loaded_at FROM vero_collector.ids WHERE id = ANY(%s::text[])"


def _page(condition: str, order: str) -> str:
    """Return a query for the first events of some, up to the bound in bytes, or the first alone."""
    order = f"loaded_at {order}"
    return f"""
SELECT loaded_at, call FROM (
    SELECT *, sum(octet_length(call)) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) AS total
    FROM (
        SELECT loaded_at, call FROM vero_collector.events WHERE {condition}
        ORDER BY {order} LIMIT %s
    ) AS found
) AS page WHERE total <= {PAGE_BYTES} OR total = octet_length(call) ORDER BY {order}
"""  # noqa: S608


_ORDERS: Final = {True: "DESC", False: "ASC"}
_AT: Final = {
    newest_first: _page("loaded_at = ANY(%s::bigint[])", order)
    for newest_first, order in _ORDERS.items()
}
_BETWEEN: Final = {
    newest_first: _page("loaded_at > %s AND loaded_at <= %s", order)
    for newest_first, order in _ORDERS.items()
}
_ONE_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_CHANGES: Final = "SELECT count FROM vero_collector.search_changes"
_LOCK_CHANGES: Final = f"{_CHANGES} FOR UPDATE"
_CHANGED: Final = "UPDATE vero_collector.search_changes SET count = count + 1"
_NEXT_NUMBER: Final = "SELECT coalesce(max(number), 0) + 1 FROM vero_collector.search_blocks"
_ADD_BLOCK: Final = "INSERT INTO vero_collector.search_blocks VALUES (%s, %s, %s, %s, %s, %s, %s)"
_ADD_PARTS: Final = """
INSERT INTO vero_collector.search_parts
SELECT unnest(%s::bigint[]), unnest(%b::bytea[]), unnest(%s::bigint[])
"""
_EXTEND: Final = """
UPDATE vero_collector.search_blocks SET after = %s, checksum = %s WHERE number = %s
"""
_CHANGE_PARTS: Final = """
UPDATE vero_collector.search_parts p SET entries = changed.entries, checksum = changed.checksum
FROM unnest(%s::bigint[], %b::bytea[], %s::bigint[]) AS changed (number, entries, checksum)
WHERE p.number = changed.number
"""
_FORGET: Final = f"""
WITH gone AS (
    DELETE FROM vero_collector.search_blocks WHERE {{}} RETURNING number
)
DELETE FROM vero_collector.search_parts WHERE number = ANY(ARRAY(
    SELECT gone.number * {PARTS} + part.number FROM gone, generate_series(0, {PARTS - 1})
        AS part (number)
))
"""  # noqa: S608
_FORGET_NUMBERS: Final = _FORGET.format("number = ANY(%s::bigint[])")
# The block that has an event is the first one that ends there or later.
_FORGET_BLOCKS_OF: Final = _FORGET.format("""number IN (
    SELECT (
        SELECT b.number FROM vero_collector.search_blocks b WHERE b.until >= gone.at
        ORDER BY b.until LIMIT 1
    ) FROM unnest(%s::bigint[]) AS gone (at)
)""")
_FORGET_AFTER: Final = _FORGET.format("until > %s")
_CALLS: Final = (
    "SELECT loaded_at, call FROM vero_collector.events WHERE loaded_at = ANY(%s::bigint[])"
)


class PostgresIndex:
    """The index in a transaction, as :class:`tap_vero_segment.stores.search.Index`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _rows(self, query: str, *bindings: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), bindings, binary=True).fetchall()

    def blocks(self) -> list[Block]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        return [Block(*row) for row in self._rows(_BLOCKS)]

    def parts(self, numbers: Sequence[int]) -> dict[int, Part]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        found = self._rows(_PARTS, list(numbers)) if numbers else []
        return {number: Part(*part) for number, *part in found}

    def with_ids(self, ids: Sequence[str]) -> list[int]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        storable = [each for each in ids if _is_storable(each)]
        return [row[0] for row in self._rows(_WITH_IDS, [key_of(each) for each in storable])]

    def at(self, moments: Sequence[int], *, newest_first: bool) -> list[Row]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        rows = self._rows(_AT[newest_first], list(moments), len(moments))
        return [(loaded_at, call) for loaded_at, call in rows]

    def between(self, after: int, until: int, limit: int, *, newest_first: bool) -> list[Row]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        rows = self._rows(_BETWEEN[newest_first], after, until, limit)
        return [(loaded_at, call) for loaded_at, call in rows]


def _is_storable(text: str) -> bool:
    """Return whether PostgreSQL can hold a text; no id that it has is another one."""
    return "\0" not in text and text == text.encode(errors="ignore").decode()


class WritablePostgresIndex:
    """The index, as :class:`tap_vero_segment.stores.search.WritableIndex`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _read(self, work: Callable[[PostgresIndex], T]) -> T:
        return self._session.commit(lambda connection: work(PostgresIndex(connection)))

    def blocks(self) -> list[Block]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        return self._read(lambda index: index.blocks())

    def parts(self, numbers: Sequence[int]) -> dict[int, Part]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        return self._read(lambda index: index.parts(numbers))

    def with_ids(self, ids: Sequence[str]) -> list[int]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        return self._read(lambda index: index.with_ids(ids))

    def at(self, moments: Sequence[int], *, newest_first: bool) -> list[Row]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        return self._read(lambda index: index.at(moments, newest_first=newest_first))

    def between(self, after: int, until: int, limit: int, *, newest_first: bool) -> list[Row]:
        """See :class:`tap_vero_segment.stores.search.Index`."""
        return self._read(
            lambda index: index.between(after, until, limit, newest_first=newest_first)
        )

    def changes(self) -> int:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""
        return self._session.commit(lambda connection: _number(connection, _CHANGES))

    def add(self, block: Block, entries: Sequence[bytes], changes: int) -> bool:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""

        def work(connection: Connection) -> bool:
            if _number(connection, _LOCK_CHANGES) != changes:
                return False
            added = block._replace(number=_number(connection, _NEXT_NUMBER)).checked()
            numbers = range(added.number * PARTS, (added.number + 1) * PARTS)
            parts = dict(zip(numbers, map(part_of, numbers, entries), strict=True))
            connection.execute(_CHANGED)
            connection.execute(_ADD_BLOCK, added)
            connection.execute(_ADD_PARTS, _columns(parts))
            return True

        return self._session.commit(work)

    def extend(self, block: Block, changes: int) -> bool:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""

        def work(connection: Connection) -> bool:
            if _number(connection, _LOCK_CHANGES) != changes:
                return False
            connection.execute(_CHANGED)
            connection.execute(_EXTEND, (block.after, block.checksum, block.number))
            return True

        return self._session.commit(work)

    def forget(self, numbers: Sequence[int]) -> None:
        """See :class:`tap_vero_segment.stores.search.WritableIndex`."""

        def work(connection: Connection) -> None:
            connection.execute(_CHANGED)
            connection.execute(_FORGET_NUMBERS, (list(numbers),))

        self._session.commit(work)


def _number(connection: Connection, query: str) -> int:
    [(number,)] = connection.execute(query).fetchall()
    return int(number)


def _columns(parts: Mapping[int, Part]) -> tuple[list[int], list[bytes], list[int]]:
    return (
        [*parts],
        [each.entries for each in parts.values()],
        [each.checksum for each in parts.values()],
    )


def lock_changes(connection: Connection) -> None:
    """Keep others from changing the index and from deleting events, to the transaction's end.

    The lock on the clock comes after this one, wherever both are taken.
    """
    connection.execute(_CHANGED)


def forget_blocks_of(connection: Connection, gone: Sequence[int]) -> None:
    """Delete the blocks that have some events, in the transaction that deletes these.

    Args:
        connection: In that transaction, after :func:`lock_changes`.
        gone: The ``loaded_at`` of the events.
    """
    connection.execute(_FORGET_BLOCKS_OF, (gone,))


def forget_blocks_after(connection: Connection, loaded_at: int) -> None:
    """Delete the blocks that have later events, likewise."""
    connection.execute(_FORGET_AFTER, (loaded_at,))


def forget_events(connection: Connection, moments: Sequence[int]) -> None:
    """Take events out of the blocks that have them, in the transaction that deletes them.

    Args:
        connection: In that transaction, after :func:`lock_changes`, before they are deleted.
        moments: Their ``loaded_at``; those that are gone are ignored.
    """
    rows = connection.execute(_CALLS, (moments,), binary=True).fetchall()
    events = [(loaded_at, keys_of(decode(call))) for loaded_at, call in rows]
    changed, broken = without(PostgresIndex(connection), events)
    connection.execute(_CHANGE_PARTS, _columns(changed))
    connection.execute(_FORGET_NUMBERS, (list(broken),))


@contextmanager
def reading_calls() -> Generator[None]:
    """Say that an event is not as it was written.

    Raises:
        StoreError: It is not.
    """
    try:
        yield
    except ValueError as error:
        msg = "an event of the store is not a track call: it was changed by something else"
        raise StoreError(msg) from error


def search(
    session: Session, search: Search, before: int | None, after: int | None, limit: int
) -> SearchPage:
    """Do what :meth:`tap_vero_segment.stores.base.Reader.search` does."""

    def work(connection: Connection) -> SearchPage:
        with connection.transaction():
            connection.execute(_ONE_SNAPSHOT)
            connection.execute(SAFE_PATH)
            return find(PostgresIndex(connection), search, before, after, limit)

    with reading_calls():
        page: SearchPage = session.run(work)
    return page
