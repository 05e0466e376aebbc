"""The writing half of the shared store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.base import (
    Exported,
    Exports,
    Forward,
    StoreBrokenError,
    StoreError,
    digests_alike,
)
from tap_vero_segment.stores.exports import merged
from tap_vero_segment.stores.postgres.connection import Hold, key_of, open_to_write
from tap_vero_segment.stores.postgres.erasing import (
    COUNT_DROPPED,
    NOBODY,
    begin_erasure,
    erase,
    erase_letters,
    erased_people,
    finish_erasures,
    vacuum,
)
from tap_vero_segment.stores.postgres.pruning import prune
from tap_vero_segment.stores.postgres.search import WritablePostgresIndex, reading_calls
from tap_vero_segment.stores.search.index import build, repair

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tap_vero_segment.stores.base import DeadLetter, Event, Refused
    from tap_vero_segment.stores.erasures import Deletion, ErasedPeople
    from tap_vero_segment.stores.postgres.connection import Connection

SILENCE: Final = 10
"""Seconds to wait for a server that says nothing, while requests wait for their answer."""

# The arrays of text and numbers as text, those of bytes in PostgreSQL's binary format.
_EVENTS: Final = (
    "%s::bigint, %s::pg_catalog.text[], %s::pg_catalog.text[], %s::bigint[], "
    "%s::pg_catalog.text[], %b::pg_catalog.bytea[], %b::pg_catalog.bytea[], "
    "%s::pg_catalog.text[], %s::pg_catalog.text[]"
)
_LETTERS: Final = (
    "%b::pg_catalog.bytea[], %s::bigint[], %s::pg_catalog.text[], %s::pg_catalog.text[], "
    "%b::pg_catalog.bytea[], %b::pg_catalog.bytea[], %b::pg_catalog.bytea[]"
)
_STORE: Final = f"SELECT * FROM vero_collector.store({_EVENTS}, {_LETTERS}, %s)"  # noqa: S608
_APPEND: Final = f"SELECT vero_collector.append({_EVENTS})"
_DELETE_LETTER: Final = "DELETE FROM vero_collector.dead_letters WHERE id = %s"
_LOCK_LETTERS: Final = """
SELECT id FROM vero_collector.dead_letters WHERE id = ANY(%s::bigint[]) ORDER BY id FOR UPDATE
"""
_DELETE_LETTERS: Final = "DELETE FROM vero_collector.dead_letters WHERE id = ANY(%s::bigint[])"
_COUNT_DELETED: Final = """
INSERT INTO vero_collector.deleted_dead_letters AS d VALUES (1, %s)
ON CONFLICT (id) DO UPDATE SET letters = d.letters OPERATOR(pg_catalog.+) excluded.letters
"""
_CHECK: Final = """
SELECT last, repairs, extract(epoch FROM pg_catalog.clock_timestamp()) FROM vero_collector.clock
"""
_ADD_REFUSED: Final = """
INSERT INTO vero_collector.refused_requests AS known
SELECT pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::bigint[]),
    pg_catalog.unnest(%s::bigint[])
ON CONFLICT (reason) DO UPDATE SET
    requests = known.requests OPERATOR(pg_catalog.+) excluded.requests,
    last_at = greatest(known.last_at, excluded.last_at)
"""
_BEAT: Final = "SELECT vero_collector.beat()"
# Exports that run at once see each other's plans and what is written together, or not at all.
_ONE_EXPORT_AT_ONCE: Final = "LOCK TABLE vero_collector.planned_exports IN EXCLUSIVE MODE"
_PLAN_EXPORT: Final = """
INSERT INTO vero_collector.planned_exports VALUES (%s, %s, %s) ON CONFLICT DO NOTHING
"""
_PLANNED: Final = "SELECT until, before FROM vero_collector.planned_exports WHERE destination = %s"
_PLAN_DONE: Final = """
DELETE FROM vero_collector.planned_exports WHERE destination = %s AND until = %s AND before = %s
"""
_EXPORTED: Final = """
SELECT until, before FROM vero_collector.exports WHERE destination = %s ORDER BY until
"""
_FORGET_EXPORTED: Final = "DELETE FROM vero_collector.exports WHERE destination = %s"
_FORGET_PLAN: Final = "DELETE FROM vero_collector.planned_exports WHERE destination = %s"
_ADD_EXPORTED: Final = "INSERT INTO vero_collector.exports VALUES (%s, %s, %s)"
_ADD_FORWARD: Final = """
INSERT INTO vero_collector.forwards (key, destination, until, letter)
SELECT %(key)s, %(destination)s, %(until)s, coalesce(
    (SELECT max(id) FROM vero_collector.dead_letters WHERE received_at < %(received_at)s), 0
)
-- A conflict alone would use up a number.
WHERE NOT EXISTS (SELECT FROM vero_collector.forwards WHERE key = %(key)s)
ON CONFLICT DO NOTHING
"""
_FORWARD: Final = """
SELECT number, destination, until, letter, sent, skipped, refused, failing, failure, failed_at
FROM vero_collector.forwards WHERE key = %s
"""
_SAVE_FORWARD: Final = """
UPDATE vero_collector.forwards SET until = %s, letter = %s, sent = %s, skipped = %s, refused = %s,
    failing = %s, failure = %s, failed_at = %s
WHERE number = %s AND until = %s AND letter = %s
"""
_FORGET_FORWARD: Final = """
DELETE FROM vero_collector.forwards WHERE key = %s OR number = %s RETURNING number
"""


class PostgresWriter:
    """Writes the shared store, beside other collectors.

    Args:
        url: ``postgresql://…``.
        setting: The name of the setting that the URL came from, for errors.
        clock: Gives the present time in microseconds since 1970; None: the server's own clock,
            which is one for all collectors.

    Raises:
        SettingError: The database cannot be reached or written, or is none that could be a store.
    """

    def __init__(self, url: str, setting: str, clock: Callable[[], int] | None = None) -> None:
        self._clock = clock
        self._newest = self._repairs = 0
        self._url, self._setting = url, setting
        self._held: dict[int, Hold] = {}
        self._people = NOBODY
        self._session = open_to_write(url, setting)
        try:
            self.probe()
        except StoreError as error:
            self.close()
            raise SettingError(setting, f"the database accepts no writes: {error}") from error

    def write(
        self, events: Sequence[Event], dead_letters: Sequence[DeadLetter], ignored: int = 0
    ) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`.

        Where the connection breaks in the middle, nobody can say whether the commit was; so it is
        written again, and what is there already is ignored.
        """
        values = (*self._columns(events), *_letter_columns(dead_letters), ignored)
        row = self._session.run(
            lambda connection: connection.execute(_STORE, values).fetchone(), SILENCE
        )
        added, newest, newest_now, repairs = cast("tuple[int, int, int, int]", row)
        self._notice(newest, repairs)
        self._newest = newest_now
        return added

    def check(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        # What comes in meanwhile would wait, and so would the end.
        row = self._session.run(
            lambda connection: connection.execute(_CHECK).fetchone(), SILENCE, patience=0
        )
        if row is None:
            raise _set_back()
        newest, repairs, seconds = row
        self._notice(newest, repairs)
        now = int(seconds * times.SECOND) if self._clock is None else self._clock()
        return max(0, int(newest) - now)

    def _notice(self, newest: int, repairs: int) -> None:
        """See that the store has all that it had when this process last looked.

        Raises:
            StoreBrokenError: It has not.
        """
        if repairs < self._repairs or (repairs == self._repairs and newest < self._newest):
            raise _set_back()
        self._newest, self._repairs = newest, repairs

    def probe(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        self._session.run(lambda connection: connection.execute(_BEAT), SILENCE)

    def nearly_full(self) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`: the disk is the server's."""
        return False

    def add_refused(self, refused: Sequence[Refused]) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        # In one order, as collectors do it at the same time.
        columns = [list(column) for column in zip(*sorted(refused), strict=True)]
        # It is worth no waiting: what comes in meanwhile would wait, too.
        self._session.run(
            lambda connection: connection.execute(_ADD_REFUSED, columns), SILENCE, patience=0
        )

    def plan_export(self, destination: str, planned: Exported) -> Exports:
        """See :class:`tap_vero_segment.stores.base.Writer`."""

        def work(connection: Connection) -> Exports:
            connection.execute(_ONE_EXPORT_AT_ONCE)
            connection.execute(_PLAN_EXPORT, (destination, *planned))
            [row] = connection.execute(_PLANNED, (destination,)).fetchall()
            return Exports(_exported(connection, destination), Exported(*row))

        return self._session.commit(work)

    def mark_exported(self, destination: str, written: Exported) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""

        def work(connection: Connection) -> None:
            connection.execute(_ONE_EXPORT_AT_ONCE)
            connection.execute(_PLAN_DONE, (destination, *written))
            has = merged([*_exported(connection, destination), written])
            connection.execute(_FORGET_EXPORTED, (destination,))
            for each in has:
                connection.execute(_ADD_EXPORTED, (destination, *each))

        self._session.commit(work)

    def forget_export(self, destination: str) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""

        def work(connection: Connection) -> bool:
            connection.execute(_ONE_EXPORT_AT_ONCE)
            gone = [
                connection.execute(query, (destination,)).rowcount
                for query in (_FORGET_EXPORTED, _FORGET_PLAN)
            ]
            return any(gone)

        return self._session.commit(work)

    def add_forward(self, key: str, destination: str, until: int, received_at: int) -> Forward:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        values = {
            "key": key,
            "destination": destination,
            "until": until,
            "received_at": received_at,
        }

        def work(connection: Connection) -> Forward:
            connection.execute(_ADD_FORWARD, values)
            return Forward(*connection.execute(_FORWARD, (key,)).fetchall()[0])

        return self._session.commit(work)

    def save_forward(self, before: Forward, now: Forward) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        values = (*now[2:], before.number, before.until, before.letter)
        return self._session.commit(
            lambda connection: connection.execute(_SAVE_FORWARD, values).rowcount > 0
        )

    def forget_forward(self, destination: str | int) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        number = destination if isinstance(destination, int) else None
        values = (str(destination), number)

        def work(connection: Connection) -> int | None:
            row = connection.execute(_FORGET_FORWARD, values).fetchone()
            return int(row[0]) if row else None

        return self._session.commit(work)

    def hold_forward(self, number: int) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`: by an advisory lock.

        Raises:
            StoreError: The database cannot be asked.
        """
        if number not in self._held:
            self._held[number] = Hold(self._url, self._setting, number)
        return self._held[number].take()

    def resolve(self, number: int, events: Sequence[Event]) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        columns = self._columns(events)

        def work(connection: Connection) -> int:
            gone = connection.execute(_DELETE_LETTER, (number,)).rowcount
            return _number(connection, _APPEND, columns) if gone else 0

        return self._session.commit(work)

    def discard(self, numbers: Sequence[int]) -> list[int]:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        wanted = sorted(set(numbers))

        def work(connection: Connection) -> list[int]:
            there = {number for (number,) in connection.execute(_LOCK_LETTERS, (wanted,))}
            missing = [number for number in wanted if number not in there]
            if not missing:
                connection.execute(_DELETE_LETTERS, (wanted,))
                connection.execute(_COUNT_DELETED, (len(wanted),))
            return missing

        return self._session.commit(work)

    def prune(self, before: int, until: int = times.LATEST) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        return prune(self._session, before, until)

    def build_index(self, rest: Callable[[], None] = lambda: None) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with reading_calls():
            return build(WritablePostgresIndex(self._session), rest)

    def repair_index(self, rest: Callable[[], None] = lambda: None) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        return repair(WritablePostgresIndex(self._session), rest)

    def erased_people(self) -> ErasedPeople:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        self._people = erased_people(self._session, self._people)
        return self._people.people

    def begin_erasure(self, digests: Iterable[bytes], *, suppress: bool | None = None) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        begin_erasure(self._session, list(digests), self._clock, suppress=suppress)

    def erase(self, deletions: Sequence[Deletion]) -> Counter[str]:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        return erase(self._session, deletions, self._clock)

    def erase_letters(self, letters: Mapping[int, bytes]) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        return erase_letters(self._session, letters)

    def scrub(self, *, rewrite: bool = False) -> str | None:
        """See :class:`tap_vero_segment.stores.base.Writer`: VACUUM; more is the server's matter."""
        return vacuum(self._session, full=rewrite)

    def finish_erasures(self, digests: Iterable[bytes]) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        finish_erasures(self._session, list(digests), self._clock)

    def count_dropped(self, count: int) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        self._session.commit(lambda connection: connection.execute(COUNT_DROPPED, (count,)))

    def _columns(self, events: Sequence[Event]) -> tuple[Any, ...]:
        return (
            None if self._clock is None else self._clock(),
            [key_of(event.id) for event in events],
            [event.collection for event in events],
            [event.received_at for event in events],
            [event.input for event in events],
            [event.call for event in events],
            [event.body for event in events],
            *_alike_columns(events),
        )

    def close(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        while self._held:
            self._held.popitem()[1].close()
        self._session.close()


def _exported(connection: Connection, destination: str) -> list[Exported]:
    rows = connection.execute(_EXPORTED, (destination,)).fetchall()
    return [Exported(*row) for row in rows]


def _set_back() -> StoreBrokenError:
    return StoreBrokenError(
        "the database has an older state than before, so events are missing: it was restored or "
        "made anew; start again to go on with what is there now"
    )


def _alike_columns(events: Sequence[Event]) -> tuple[list[str | None], list[str | None]]:
    if not any(event.alike for event in events):
        return [], []
    pairs = [event.alike or (None, None) for event in events]
    return [earlier for earlier, _ in pairs], [later for _, later in pairs]


def _letter_columns(letters: Sequence[DeadLetter]) -> tuple[Any, ...]:
    digests = [digests_alike(letter) for letter in letters]
    return (
        [digest for _, digest, _ in digests],
        [letter.received_at for letter in letters],
        [letter.input for letter in letters],
        [letter.reason for letter in letters],
        [letter.body for letter in letters],
        [earlier for earlier, _, _ in digests],
        [later for _, _, later in digests],
    )


def _number(connection: Connection, query: str, values: tuple[Any, ...]) -> int:
    row = connection.execute(query, values).fetchone()
    return int(row[0]) if row else 0
