"""Erasing people from the embedded store."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tap_vero_segment.stores.erasures import ErasedPeople, Erasure
from tap_vero_segment.stores.search.keys import keys_of
from tap_vero_segment.stores.sqlite.integrity import newest_event
from tap_vero_segment.stores.sqlite.pruning import delete
from tap_vero_segment.stores.sqlite.search import forget_events
from tap_vero_segment.track import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import apsw

    from tap_vero_segment.stores.erasures import Deletion
    from tap_vero_segment.stores.search.keys import Key

_VERSION: Final = """
SELECT coalesce(max(number), 0), count(finished_at) FROM erasures
"""
_ERASURES: Final = """
SELECT digest, erased_at, finished_at IS NOT NULL, suppress FROM erasures ORDER BY number
"""
_KEY: Final = "SELECT key FROM erasure_key"
_BEGIN: Final = """
INSERT OR REPLACE INTO erasures (digest, erased_at, suppress, events, dead_letters)
SELECT given.digest, ?2, coalesce(?3, known.suppress, 0), coalesce(known.events, 0),
    coalesce(known.dead_letters, 0)
FROM (SELECT ?1 AS digest) AS given LEFT JOIN erasures AS known ON known.digest = given.digest
"""
_EVENT: Final = "SELECT loaded_at, collection, call FROM events WHERE loaded_at = ?"
_NOTE: Final = "INSERT INTO erased_events (loaded_at, id, erased_at) VALUES (?, ?, ?)"
_COUNT: Final = """
UPDATE erasures SET events = events + ?, dead_letters = dead_letters + ? WHERE digest = ?
"""
_FINISH: Final = "UPDATE erasures SET finished_at = ? WHERE digest = ? AND finished_at IS NULL"
_DROPPED: Final = """
INSERT INTO dropped (id, calls) VALUES (1, ?)
ON CONFLICT (id) DO UPDATE SET calls = calls + excluded.calls
"""


class Known(NamedTuple):
    """The people who were erased, as of a version of the table."""

    version: Any
    people: ErasedPeople


NOBODY: Final = Known(None, ErasedPeople(b""))


def erased_people(connection: apsw.Connection, known: Known) -> Known:
    """Return the people who were erased; what is known, where that has not changed."""
    with connection:  # one snapshot
        version = connection.execute(_VERSION).fetchone()
        if version == known.version:
            return known
        key: Any = connection.execute(_KEY).get
        rows: list[Any] = connection.execute(_ERASURES).fetchall()
    erasures = [Erasure(digest, at, bool(done), bool(drop)) for digest, at, done, drop in rows]
    return Known(version, ErasedPeople(key, erasures))


def begin_erasure(
    connection: apsw.Connection, digests: Iterable[bytes], now: int, *, suppress: bool | None
) -> None:
    """Note that people are to be erased, in a transaction."""
    erased_at = max(now, newest_event(connection) + 1)
    connection.executemany(_BEGIN, [(digest, erased_at, suppress) for digest in digests])


def erase(
    connection: apsw.Connection,
    transaction: Callable[[], AbstractContextManager[None]],
    deletions: Sequence[Deletion],
    clock: Callable[[], int],
) -> Counter[str]:
    """Delete events and note that they were erased; return how many, by their collections."""
    by_time = {each.loaded_at: each for each in deletions}
    found: list[tuple[int, str]] = []
    keys: dict[int, set[Key]] = {}
    for loaded_at in by_time:
        row: Any = connection.execute(_EVENT, (loaded_at,)).fetchone()
        if row is not None:
            found.append(row[:2])
            keys[loaded_at] = keys_of(decode(row[2]))

    def note(gone: list[int]) -> None:
        forget_events(connection, [(each, keys[each]) for each in gone])
        newest: int = connection.execute("SELECT max(loaded_at) FROM erased_events").get or 0
        now = max(clock(), newest + 1, max(gone, default=0) + 1)
        connection.executemany(
            _NOTE, [(now + n, by_time[each].id, now) for n, each in enumerate(sorted(gone))]
        )
        owners = Counter(by_time[each].digest for each in gone)
        connection.executemany(_COUNT, [(count, 0, digest) for digest, count in owners.items()])

    return delete(connection, transaction, found, note)


def erase_letters(connection: apsw.Connection, letters: Mapping[int, bytes]) -> int:
    """Delete dead letters, in a transaction; return how many there were."""
    owners: Counter[bytes] = Counter()
    for number, digest in letters.items():
        connection.execute("DELETE FROM dead_letters WHERE id = ?", (number,))
        owners[digest] += connection.changes()
    connection.executemany(_COUNT, [(0, count, digest) for digest, count in owners.items()])
    return owners.total()


def finish_erasures(connection: apsw.Connection, digests: Iterable[bytes], now: int) -> None:
    """Note that erasures are finished, in a transaction."""
    connection.executemany(_FINISH, [(now, digest) for digest in digests])


def count_dropped(connection: apsw.Connection, count: int) -> None:
    """Count what was not stored, in a transaction."""
    connection.execute(_DROPPED, (count,))
