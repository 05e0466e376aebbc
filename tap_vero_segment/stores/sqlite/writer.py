"""The writing half of the embedded store."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import apsw

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.ids import ALIKE
from tap_vero_segment.stores.base import (
    ARRIVALS_SLOT,
    Exported,
    Exports,
    Forward,
    StoreError,
    digests_alike,
)
from tap_vero_segment.stores.exports import merged
from tap_vero_segment.stores.search.index import build, repair
from tap_vero_segment.stores.sqlite.arrivals import add_arrivals, forget_arrivals
from tap_vero_segment.stores.sqlite.connection import (
    is_nearly_full,
    let_go,
    open_to_write,
    path_of,
)
from tap_vero_segment.stores.sqlite.erasing import (
    NOBODY,
    begin_erasure,
    count_dropped,
    erase,
    erase_letters,
    erased_people,
    finish_erasures,
)
from tap_vero_segment.stores.sqlite.errors import store_error
from tap_vero_segment.stores.sqlite.high_water_mark import HighWaterMark, Known, check_mark
from tap_vero_segment.stores.sqlite.integrity import (
    call_check,
    newest,
    newest_event,
    rest_check,
    translating_errors,
)
from tap_vero_segment.stores.sqlite.opened_files import OpenedFiles
from tap_vero_segment.stores.sqlite.pruning import prune
from tap_vero_segment.stores.sqlite.scrubbing import scrub
from tap_vero_segment.stores.sqlite.search import SqliteIndex

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from tap_vero_segment.stores.base import DeadLetter, Event, Refused
    from tap_vero_segment.stores.erasures import Deletion, ErasedPeople

logger = logging.getLogger("vero-collector")

_INSERT_EVENT: Final = """
INSERT INTO events (
    loaded_at, id, collection, received_at, input, call, body, previous, call_check, rest_check
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING
"""
_IS_STORED: Final = """
SELECT EXISTS (SELECT 1 FROM events WHERE id IN (?, ?) AND received_at BETWEEN ? AND ?)
"""
_INSERT_DEAD_LETTER: Final = """
INSERT INTO dead_letters (digest, received_at, input, reason, body)
SELECT ?, ?, ?, ?, ? WHERE NOT EXISTS (
    SELECT 1 FROM dead_letters WHERE digest IN (?, ?) AND received_at BETWEEN ? AND ?
) ON CONFLICT (digest) DO NOTHING
"""
_ADD_TO_TOTALS: Final = """
INSERT INTO totals (collection, events, first_loaded_at, last_loaded_at) VALUES (?, ?, ?, ?)
ON CONFLICT (collection) DO UPDATE SET
    first_loaded_at = iif(events > 0, first_loaded_at, excluded.first_loaded_at),
    events = events + excluded.events, last_loaded_at = excluded.last_loaded_at
"""
_PLAN_EXPORT: Final = """
INSERT INTO planned_exports (destination, until, before) VALUES (?, ?, ?)
ON CONFLICT (destination) DO NOTHING
"""
_PLANNED: Final = "SELECT until, before FROM planned_exports WHERE destination = ?"
_PLAN_DONE: Final = """
DELETE FROM planned_exports WHERE destination = ? AND until = ? AND before = ?
"""
_EXPORTED: Final = "SELECT until, before FROM exports WHERE destination = ? ORDER BY until"
_ADD_EXPORTED: Final = "INSERT INTO exports (destination, until, before) VALUES (?, ?, ?)"
_ADD_FORWARD: Final = """
INSERT INTO forwards (key, destination, until, letter)
SELECT ?1, ?2, ?3, coalesce((SELECT max(id) FROM dead_letters WHERE received_at < ?4), 0)
WHERE NOT EXISTS (SELECT 1 FROM forwards WHERE key = ?1)
"""
_FORWARD: Final = """
SELECT number, destination, until, letter, sent, skipped, refused, failing, failure, failed_at
FROM forwards WHERE key = ?
"""
_SAVE_FORWARD: Final = """
UPDATE forwards SET until = ?, letter = ?, sent = ?, skipped = ?, refused = ?, failing = ?,
    failure = ?, failed_at = ?
WHERE number = ? AND until = ? AND letter = ?
"""
_FORGET_FORWARD: Final = "DELETE FROM forwards WHERE key = ?1 OR number = ?1 RETURNING number"
_COUNT_IGNORED: Final = """
INSERT INTO ignored (id, calls) VALUES (1, ?)
ON CONFLICT (id) DO UPDATE SET calls = calls + excluded.calls
"""
_COUNT_DELETED: Final = """
INSERT INTO deleted_dead_letters (id, letters) VALUES (1, ?)
ON CONFLICT (id) DO UPDATE SET letters = letters + excluded.letters
"""
_ADD_REFUSED: Final = """
INSERT INTO refused_requests (reason, requests, last_at) VALUES (?, ?, ?)
ON CONFLICT (reason) DO UPDATE SET
    requests = requests + excluded.requests, last_at = max(last_at, excluded.last_at)
"""
_BEAT: Final = """
INSERT INTO heartbeat (id, at) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at
"""


class SqliteWriter:
    """Writes the embedded store: WAL mode, synced at every commit.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
        setting: The name of the setting that the URL came from, for errors.
        clock: Gives the present time in microseconds since 1970.

    Raises:
        SettingError: The file cannot be written, or it is no store.
    """

    def __init__(self, url: str, setting: str, clock: Callable[[], int] = times.now) -> None:
        path = path_of(url, setting)
        self._folder = path.parent
        self._connection = open_to_write(path, setting)
        self._locks = os.path.realpath(path)
        self._held: dict[int, int] = {}
        self._clock = clock
        self._people = NOBODY
        try:
            self._files = OpenedFiles(self._connection, path)
            # A writer that was killed may have left in the log what no sync has taken to disk. It
            # reads as stored now, so it must be, before a duplicate of it is acknowledged.
            self.probe()
        except (StoreError, apsw.Error, OSError) as error:
            let_go(self._connection)
            raise SettingError(setting, f"{path} accepts no writes: {error}") from error
        self._mark = HighWaterMark(path)
        self._mark.rise_to(*newest(self._connection))

    def write(
        self, events: Sequence[Event], dead_letters: Sequence[DeadLetter], ignored: int = 0
    ) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        letter_number = 0
        with self._transaction():
            new, loaded_at = self._insert_events(events)
            for letter in dead_letters:
                earlier, digest, later = digests_alike(letter)
                near = (letter.received_at - ALIKE, letter.received_at + ALIKE)
                values = (digest, *letter, earlier, later, *near)
                self._connection.execute(_INSERT_DEAD_LETTER, values)
                if self._connection.changes():
                    letter_number = self._connection.last_insert_rowid()
            if ignored:
                self._connection.execute(_COUNT_IGNORED, (ignored,))
        self._mark.rise_to(loaded_at, letter_number)
        return new

    def probe(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            self._connection.execute(_BEAT, (self._clock(),))

    def check(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        self._files.check()
        self._files.check_memory()
        with translating_errors():
            found = Known(*newest(self._connection))
        check_mark(self._mark.known, found, self._mark.path)
        if self._mark.renew():
            # It only tells the next process more than the store itself does.
            logger.warning("%s was deleted or replaced: written anew", self._mark.path)
        return max(0, found.loaded_at - self._clock())

    def add_refused(self, refused: Sequence[Refused]) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            self._connection.executemany(_ADD_REFUSED, refused)

    def plan_export(self, destination: str, planned: Exported) -> Exports:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            self._connection.execute(_PLAN_EXPORT, (destination, *planned))
            row: Any = self._connection.execute(_PLANNED, (destination,)).fetchone()
            return Exports(self._exported(destination), Exported(*row))

    def mark_exported(self, destination: str, written: Exported) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            self._connection.execute(_PLAN_DONE, (destination, *written))
            has = merged([*self._exported(destination), written])
            self._connection.execute("DELETE FROM exports WHERE destination = ?", (destination,))
            self._connection.executemany(_ADD_EXPORTED, [(destination, *each) for each in has])

    def forget_export(self, destination: str) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        before = self._connection.total_changes()
        with self._transaction():
            for table in ("exports", "planned_exports"):
                query = f"DELETE FROM {table} WHERE destination = ?"  # noqa: S608  # our own
                self._connection.execute(query, (destination,))
        return self._connection.total_changes() > before

    def _exported(self, destination: str) -> list[Exported]:
        rows: list[Any] = self._connection.execute(_EXPORTED, (destination,)).fetchall()
        return [Exported(*row) for row in rows]

    def add_forward(self, key: str, destination: str, until: int, received_at: int) -> Forward:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            self._connection.execute(_ADD_FORWARD, (key, destination, until, received_at))
            row: Any = self._connection.execute(_FORWARD, (key,)).fetchone()
        return Forward(*row)._replace(failing=bool(row[7]))

    def save_forward(self, before: Forward, now: Forward) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            values = (*now[2:], before.number, before.until, before.letter)
            self._connection.execute(_SAVE_FORWARD, values)
            return bool(self._connection.changes())

    def forget_forward(self, destination: str | int) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            number: int | None = self._connection.execute(_FORGET_FORWARD, (destination,)).get
        return number

    def hold_forward(self, number: int) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`: by the lock of a file beside the store.

        Raises:
            StoreError: The file cannot be made.
        """
        if number in self._held:
            return True
        path = f"{self._locks}-forward-{number}"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            msg = f"{path} cannot be made: {error.strerror}"
            raise StoreError(msg) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._held[number] = descriptor
        return True

    def nearly_full(self) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        return is_nearly_full(self._folder)

    def resolve(self, number: int, events: Sequence[Event]) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            self._connection.execute("DELETE FROM dead_letters WHERE id = ?", (number,))
            found = self._connection.changes()
            new, loaded_at = self._insert_events(events) if found else (0, 0)
        self._mark.rise_to(loaded_at)
        return new

    def discard(self, numbers: Sequence[int]) -> list[int]:
        """See :class:`tap_vero_segment.stores.base.Writer`; the file keeps no trace of them."""
        with self._transaction():
            missing = [number for number in sorted(set(numbers)) if not self._has(number)]
            if not missing:
                gone = set(numbers)
                self._connection.executemany(
                    "DELETE FROM dead_letters WHERE id = ?", [(number,) for number in gone]
                )
                self._connection.execute(_COUNT_DELETED, (len(gone),))
        return missing

    def _has(self, number: int) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM dead_letters WHERE id = ?)"
        return bool(self._connection.execute(query, (number,)).get)

    def prune(self, before: int, until: int = times.LATEST) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        try:
            return prune(self._connection, self._transaction, before, until)
        except apsw.Error as error:
            raise store_error(error) from error

    def build_index(self, rest: Callable[[], None] = lambda: None) -> bool:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with translating_errors():
            return build(SqliteIndex(self._connection, self._transaction), rest)

    def repair_index(self, rest: Callable[[], None] = lambda: None) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with translating_errors():
            return repair(SqliteIndex(self._connection, self._transaction), rest)

    def erased_people(self) -> ErasedPeople:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        try:
            self._people = erased_people(self._connection, self._people)
        except apsw.Error as error:
            raise store_error(error) from error
        return self._people.people

    def begin_erasure(self, digests: Iterable[bytes], *, suppress: bool | None = None) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            begin_erasure(self._connection, digests, self._clock(), suppress=suppress)

    def erase(self, deletions: Sequence[Deletion]) -> Counter[str]:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        try:
            return erase(self._connection, self._transaction, deletions, self._clock)
        except apsw.Error as error:
            raise store_error(error) from error

    def erase_letters(self, letters: Mapping[int, bytes]) -> int:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            return erase_letters(self._connection, letters)

    def scrub(self, *, rewrite: bool = False) -> str | None:
        """See :class:`tap_vero_segment.stores.base.Writer`: the log is folded into the file."""
        del rewrite  # nothing is left in any case
        try:
            return scrub(self._connection, self._transaction, self._files.read)
        except apsw.Error as error:
            raise store_error(error) from error

    def finish_erasures(self, digests: Iterable[bytes]) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            finish_erasures(self._connection, digests, self._clock())

    def count_dropped(self, count: int) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        with self._transaction():
            count_dropped(self._connection, count)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        connection = self._connection
        # What is committed may be folded into the file, which must be the store's.
        self._files.check()
        try:
            # The write lock from the start: two collectors on one file wait for each other here.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except apsw.Error as error:
            raise store_error(error) from error
        # What was committed to a file that is gone must not be acknowledged.
        self._files.check()

    def _insert_events(self, events: Sequence[Event]) -> tuple[int, int]:
        """Insert events under ``loaded_at`` that rises through all commits, of all processes.

        The write lock is held from the reading of the last one to the commit, so commit order and
        ``loaded_at`` cannot differ; a clock that steps back only makes them dense.

        Returns:
            How many are new, and the newest one's ``loaded_at``, or 0.
        """
        if not events:
            return 0, 0
        connection = self._connection
        previous: int = connection.execute("SELECT max(loaded_at) FROM events").get or 0
        last = newest_event(connection)  # which may have been deleted
        check_mark(self._mark.known, self._mark.known._replace(loaded_at=last), self._mark.path)
        first = loaded_at = max(self._clock(), last + 1, previous + 1)
        counts: dict[tuple[int, str], list[int]] = {}
        for event in events:
            if event.alike and self._is_stored(event):
                continue
            row = (
                loaded_at,
                event.id,
                event.collection,
                event.received_at,
                event.input,
                event.call,
                event.body,
                previous,
                call_check(loaded_at, event.call),
                rest_check(*event[:3], event.input, event.body),
            )
            connection.execute(_INSERT_EVENT, row)
            if connection.changes():
                previous = loaded_at
                total = counts.setdefault(
                    (loaded_at // ARRIVALS_SLOT, event.collection), [0, loaded_at, loaded_at]
                )
                total[0] += 1
                total[2] = loaded_at
                loaded_at += 1
        for (slot, collection), total in counts.items():
            connection.execute(_ADD_TO_TOTALS, (collection, *total))
            add_arrivals(connection, slot, collection, total[0])
        if not counts:
            return 0, 0
        if previous // ARRIVALS_SLOT > last // ARRIVALS_SLOT:
            forget_arrivals(connection, previous // ARRIVALS_SLOT)
        return loaded_at - first, previous

    def _is_stored(self, event: Event) -> bool:
        """Whether there is an event alike, which has another id and is the same all the same."""
        near = (event.received_at - ALIKE, event.received_at + ALIKE)
        return bool(self._connection.execute(_IS_STORED, (*event.alike, *near)).get)

    def close(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Writer`."""
        while self._held:
            os.close(self._held.popitem()[1])
        self._files.close()
        let_go(self._connection)
        self._mark.close()
