"""Erasing people from the shared store, beside collectors that write it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.erasures import ErasedPeople, Erasure
from tap_vero_segment.stores.postgres.pruning import LOCK_CLOCK, take_from_totals
from tap_vero_segment.stores.postgres.search import forget_events, lock_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tap_vero_segment.stores.erasures import Deletion
    from tap_vero_segment.stores.postgres.connection import Connection, Session

_VERSION: Final = """
SELECT coalesce(pg_catalog.max(number), 0), pg_catalog.count(finished_at)
FROM vero_collector.erasures
"""
_ERASURES: Final = """
SELECT k.key, e.digest, e.erased_at, e.finished_at IS NOT NULL, e.suppress
FROM vero_collector.erasure_key k LEFT JOIN vero_collector.erasures e ON true ORDER BY e.number
"""
_NOW: Final = """
SELECT coalesce(%s::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
"""
# The lock on the clock comes before: one erasure begins at once, and the numbers rise as it ends.
_BEGIN: Final = """
INSERT INTO vero_collector.erasures AS e (digest, erased_at, suppress, events, dead_letters)
VALUES (%(digest)s, %(now)s, coalesce(%(suppress)s, false), 0, 0)
ON CONFLICT (digest) DO UPDATE SET number = DEFAULT, erased_at = excluded.erased_at,
    finished_at = NULL, suppress = coalesce(%(suppress)s, e.suppress)
"""
_DELETE: Final = """
WITH gone AS (
    DELETE FROM vero_collector.events WHERE loaded_at = ANY(%s::bigint[])
    RETURNING id, loaded_at, collection
), freed AS (
    DELETE FROM vero_collector.ids USING gone
    WHERE ids.id = gone.id AND ids.loaded_at = gone.loaded_at
)
SELECT loaded_at, collection FROM gone ORDER BY loaded_at
"""
_NEWEST: Final = "SELECT coalesce(max(loaded_at), 0) FROM vero_collector.erased_events"
_NOTE: Final = "INSERT INTO vero_collector.erased_events VALUES (%s, %s, %s)"
_COUNT: Final = """
UPDATE vero_collector.erasures SET events = events + %s, dead_letters = dead_letters + %s
WHERE digest = %s
"""
_DELETE_LETTERS: Final = """
DELETE FROM vero_collector.dead_letters WHERE id = ANY(%s::bigint[]) RETURNING id
"""
_FINISH: Final = """
UPDATE vero_collector.erasures SET finished_at = %s
WHERE digest = ANY(%s::bytea[]) AND finished_at IS NULL
"""
COUNT_DROPPED: Final = """
INSERT INTO vero_collector.dropped AS d VALUES (1, %s)
ON CONFLICT (id) DO UPDATE SET calls = d.calls + excluded.calls
"""
_VACUUM: Final = """
VACUUM (FULL {}) vero_collector.events, vero_collector.ids, vero_collector.dead_letters,
    vero_collector.search_parts
"""

VACUUM_SILENCE: Final = 3_600.0
"""Seconds that a VACUUM of a large table may take without a word."""


class Known(NamedTuple):
    """The people who were erased, as of a version of the table."""

    version: Any
    people: ErasedPeople


NOBODY: Final = Known(None, ErasedPeople(b""))


def erased_people(session: Session, known: Known) -> Known:
    """Return the people who were erased; what is known, where that has not changed."""

    def work(connection: Connection) -> Known:
        version = connection.execute(_VERSION).fetchone()
        if version == known.version:
            return known
        # Newer than the version, perhaps: then it is read again next time.
        rows = connection.execute(_ERASURES).fetchall()
        erasures = [Erasure(*row) for _, *row in rows if row[0] is not None]
        return Known(version, ErasedPeople(rows[0][0], erasures))

    return session.run(work)


def _now(connection: Connection, clock: Callable[[], int] | None) -> int:
    [row] = connection.execute(_NOW, (None if clock is None else clock(),)).fetchall()
    return int(row[0])


def begin_erasure(
    session: Session,
    digests: Sequence[bytes],
    clock: Callable[[], int] | None,
    *,
    suppress: bool | None,
) -> None:
    """Note that people are to be erased."""

    def work(connection: Connection) -> None:
        [(last,)] = connection.execute(LOCK_CLOCK).fetchall()
        now = max(_now(connection, clock), last + 1)
        with connection.cursor() as cursor:
            cursor.executemany(
                _BEGIN,
                [{"digest": digest, "now": now, "suppress": suppress} for digest in digests],
            )

    session.commit(work)


def erase(
    session: Session, deletions: Sequence[Deletion], clock: Callable[[], int] | None
) -> Counter[str]:
    """Delete events and note that they were erased; return how many, by their collections."""
    by_time = {each.loaded_at: each for each in deletions}

    def work(connection: Connection) -> Counter[str]:
        lock_changes(connection)
        forget_events(connection, list(by_time))
        connection.execute(LOCK_CLOCK)
        gone = connection.execute(_DELETE, (list(by_time),)).fetchall()
        take_from_totals(connection, gone)
        [(newest,)] = connection.execute(_NEWEST).fetchall()
        now = max(_now(connection, clock), newest + 1, *(at + 1 for at, _ in gone))
        owners = Counter(by_time[at].digest for at, _ in gone)
        with connection.cursor() as cursor:
            cursor.executemany(
                _NOTE, [(now + n, by_time[at].id, now) for n, (at, _) in enumerate(gone)]
            )
            cursor.executemany(_COUNT, [(count, 0, owner) for owner, count in owners.items()])
        return Counter(collection for _, collection in gone)

    return session.commit(work)


def erase_letters(session: Session, letters: Mapping[int, bytes]) -> int:
    """Delete dead letters; return how many there were."""

    def work(connection: Connection) -> int:
        gone = connection.execute(_DELETE_LETTERS, (list(letters),)).fetchall()
        owners = Counter(letters[number] for (number,) in gone)
        with connection.cursor() as cursor:
            cursor.executemany(_COUNT, [(0, count, owner) for owner, count in owners.items()])
        return len(gone)

    return session.commit(work)


def finish_erasures(
    session: Session, digests: Sequence[bytes], clock: Callable[[], int] | None
) -> None:
    """Note that erasures are finished."""

    def work(connection: Connection) -> None:
        connection.execute(_FINISH, (_now(connection, clock), digests))

    session.commit(work)


def vacuum(session: Session, *, full: bool) -> str | None:
    """Let the server remove what was deleted from the tables; return why it does not.

    Args:
        session: The store.
        full: Whether the tables' files are written anew: pages keep the bytes of deleted rows until
            they are used again (postgresql.org/docs/current/sql-vacuum.html). All who read or write
            a table wait for it.
    """
    statement = _VACUUM.format(full)
    try:
        session.run(lambda connection: connection.execute(statement), VACUUM_SILENCE)
    except StoreError as error:
        if not isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            raise
        return "this database user may not VACUUM the tables of the store: run it as their owner"
    return None
