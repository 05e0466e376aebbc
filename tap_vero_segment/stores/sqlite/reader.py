"""The reading half of the embedded store."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment import times
from tap_vero_segment.closing import Closing
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
    Summary,
    Total,
)
from tap_vero_segment.stores.erasures import ErasedEvent, ErasureFigures
from tap_vero_segment.stores.search.find import find
from tap_vero_segment.stores.sqlite.arrivals import read_arrivals
from tap_vero_segment.stores.sqlite.connection import (
    is_nearly_full,
    open_to_read,
    path_of,
    read_page,
)
from tap_vero_segment.stores.sqlite.integrity import (
    WHOLE,
    check_all,
    check_alone,
    check_dead_letter,
    check_end,
    check_page,
    check_whole_page,
    newest_event,
    translating_errors,
)
from tap_vero_segment.stores.sqlite.search import SqliteIndex
from tap_vero_segment.track import with_loaded_at

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tap_vero_segment.stores.base import Search
    from tap_vero_segment.stores.sqlite.integrity import Row

_PAGE: Final = """
SELECT loaded_at, previous, call_check, call FROM events WHERE loaded_at > ? AND loaded_at <= ?
ORDER BY loaded_at LIMIT ?
"""
_NEWEST: Final = """
SELECT loaded_at, previous, call_check, call FROM events ORDER BY loaded_at DESC LIMIT ?
"""
# Of the others it reads no call, whose size nothing bounds.
_NEWEST_OF: Final = """
SELECT e.loaded_at, e.previous, e.call_check, e.call FROM (
    SELECT loaded_at FROM (
        SELECT loaded_at, collection FROM events ORDER BY loaded_at DESC LIMIT ?
    ) WHERE collection = ? ORDER BY loaded_at DESC LIMIT ?
) AS newest CROSS JOIN events AS e ON e.loaded_at = newest.loaded_at
ORDER BY newest.loaded_at DESC
"""
_EVENT: Final = "SELECT loaded_at, previous, call_check, call FROM events WHERE loaded_at = ?"
_LETTERS: Final = """
SELECT id, digest, received_at, input, reason, body FROM dead_letters WHERE id > ?
ORDER BY id LIMIT ?
"""
# The length alone is read of a body.
_LETTER_HEADS: Final = """
SELECT id, received_at, input, reason, length(body) FROM dead_letters
WHERE id < ? ORDER BY id DESC LIMIT ?
"""
_LETTER_HEADS_OF: Final = """
SELECT id, received_at, input, reason, length(body) FROM dead_letters
WHERE id < ? AND reason_group = ? ORDER BY id DESC LIMIT ?
"""
_LETTER_GROUPS: Final = """
SELECT reason_group, count(*), min(id), max(id), min(received_at), max(received_at)
FROM dead_letters GROUP BY reason_group ORDER BY max(id) DESC
"""
_SPAN: Final = """
SELECT min(loaded_at), max(loaded_at), min(received_at), max(received_at)
FROM events INDEXED BY events_received
WHERE received_at >= ? AND received_at < ? AND loaded_at > ? AND loaded_at <= ?
"""
_REFUSED: Final = """
SELECT reason, requests, last_at FROM refused_requests ORDER BY last_at DESC, reason
"""
_RECEIVED: Final = """
SELECT id, received_at FROM events WHERE id IN (SELECT value FROM json_each(?))
"""
_BEGINNING: Final = """
SELECT e.id, e.input, e.loaded_at, e.previous, e.call_check, e.call
FROM json_each(?1) AS front CROSS JOIN events AS e
WHERE e.id > max(front.value, ?2) AND e.id < front.value || '~' ORDER BY e.id LIMIT ?3
"""
_EXPORTS: Final = "SELECT destination, until, before FROM exports ORDER BY destination, until"
_BODIES: Final = f"""
SELECT {WHOLE} FROM events WHERE loaded_at > ? AND loaded_at <= ? ORDER BY loaded_at LIMIT ?
"""  # noqa: S608
_FORWARDS: Final = """
SELECT number, destination, until, letter, sent, skipped, refused, failing, failure, failed_at
FROM forwards ORDER BY number
"""
_BACKLOG: Final = """
SELECT count(*), min(loaded_at)
FROM (SELECT loaded_at FROM events WHERE loaded_at > ? ORDER BY loaded_at LIMIT ?)
"""
_LETTER_BACKLOG: Final = """
SELECT count(*) FROM (SELECT id FROM dead_letters WHERE id > ? LIMIT ?)
"""

_ERASED: Final = """
SELECT loaded_at, id, erased_at FROM erased_events WHERE loaded_at > ? ORDER BY loaded_at LIMIT ?
"""
_ERASURE_FIGURES: Final = """
SELECT count(*), count(*) - count(finished_at), coalesce(sum(suppress), 0),
    (SELECT count(*) FROM erased_events), coalesce((SELECT calls FROM dropped), 0)
FROM erasures
"""


class SqliteReader(Closing):
    """Reads the embedded store, beside a collector that writes it.

    Each call is a transaction of its own, so that a long read never keeps SQLite from folding its
    write-ahead log back into the file.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
        setting: The name of the setting that the URL came from, for errors.

    Raises:
        SettingError: There is no such file, or it is no store.
    """

    def __init__(self, url: str, setting: str) -> None:
        self._path = path_of(url, setting)
        self._connection = open_to_read(self._path, setting)

    def high_water(self) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            newest: int | None = self._connection.execute("SELECT max(loaded_at) FROM events").get
            check_page(self._connection, [], newest or 0, times.LATEST, last_page=True)
            # The newest ones may have been deleted: what comes will be later all the same.
            known = newest_event(self._connection)
        return newest if newest is not None and newest > known else known or None

    def lines(self, after: int, until: int | None, limit: int) -> list[bytes]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        until = times.LATEST if until is None else until
        with self._reading():
            rows, whole = self._page(_PAGE, (after, until, limit))
            last_page = whole and len(rows) < limit
            check_page(self._connection, rows, after, until, last_page=last_page)
            return [_line(row) for row in rows]

    def newest(self, limit: int, collection: str | None = None) -> list[bytes]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        bindings: tuple[Any, ...] = (NEWEST_SEARCHED, collection, limit)
        query = _NEWEST_OF
        if collection is None:
            query, bindings = _NEWEST, (limit,)
        with self._reading():
            rows, whole = self._page(query, bindings)
            if collection is None:
                check_end(self._connection, rows[::-1], whole=whole and len(rows) < limit)
            else:
                for row in rows:
                    check_alone(self._connection, row)
            return [_line(row) for row in rows]

    def clock_behind(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            return max(0, newest_event(self._connection) - times.now())

    def count_after(self, loaded_at: int) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            query = "SELECT count(*) FROM events WHERE loaded_at > ?"
            count: int = self._connection.execute(query, (loaded_at,)).get
        return count

    def event(self, loaded_at: int) -> bytes | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        if not times.EARLIEST <= loaded_at <= times.LATEST:
            return None
        with self._reading():
            row: Any = self._connection.execute(_EVENT, (loaded_at,)).fetchone()
            if row is None:
                return None
            check_alone(self._connection, row)
            return _line(row)

    def arrivals(self, after: int, step: int = ARRIVALS_SLOT) -> list[Arrivals]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            return read_arrivals(self._connection, after, step)

    def summary(self) -> Summary:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():  # one transaction: the figures fit each other
            totals: list[Any] = self._connection.execute(
                "SELECT collection, events, first_loaded_at, last_loaded_at FROM totals "
                "WHERE events > 0"  # what was pruned whole stays, for its last_loaded_at
            ).fetchall()
            dead_letters: int = self._connection.execute("SELECT count(*) FROM dead_letters").get
            ignored: int | None = self._connection.execute("SELECT calls FROM ignored").get
            query = "SELECT letters FROM deleted_dead_letters"
            deleted: int | None = self._connection.execute(query).get
        rows = [Total(*row) for row in totals]
        return Summary(rows, dead_letters, ignored or 0, deleted or 0)

    def size(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`: the file and its write-ahead log."""
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def dead_letters(self, after: int, limit: int) -> list[KeptDeadLetter]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            rows, _ = self._page(_LETTERS, (after, limit))
            letters = []
            for number, digest, *rest in rows:
                letter = DeadLetter(*rest)
                check_dead_letter(number, digest, letter)
                letters.append(KeptDeadLetter(number, letter))
        return letters

    def letter_heads(
        self, limit: int, before: int = LAST_LETTER, reason: str | None = None
    ) -> list[LetterHead]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        bindings: tuple[Any, ...] = (before, reason, limit)
        query = _LETTER_HEADS_OF
        if reason is None:
            query, bindings = _LETTER_HEADS, (before, limit)
        with self._reading():
            rows: list[Any] = self._connection.execute(query, bindings).fetchall()
        return [LetterHead(*row) for row in rows]

    def letter_groups(self) -> list[LetterGroup]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            rows: list[Any] = self._connection.execute(_LETTER_GROUPS).fetchall()
        return [LetterGroup(*row) for row in rows]

    def span(self, since: int, before: int, after: int, until: int) -> Span | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            row: Any = self._connection.execute(_SPAN, (since, before, after, until)).fetchone()
        return None if row[0] is None else Span(*row)

    def received(self, ids: Sequence[str]) -> dict[str, int]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            return dict(self._connection.execute(_RECEIVED, (json.dumps(ids),)))

    def beginning(self, fronts: Sequence[str], after: str) -> list[Found]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            rows, _ = self._page(_BEGINNING, (json.dumps(fronts), after, FOUND))
            for row in rows:
                check_alone(self._connection, row[2:])
        return [Found(event_id, name, row[-1]) for event_id, name, *row in rows]

    def search(
        self, search: Search, *, before: int | None = None, after: int | None = None, limit: int
    ) -> SearchPage:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            return find(SqliteIndex(self._connection), search, before, after, limit)

    def exports(self) -> dict[str, list[Exported]]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        found: dict[str, list[Exported]] = {}
        with self._reading():
            for destination, *written in self._connection.execute(_EXPORTS):
                found.setdefault(destination, []).append(Exported(*written))
        return found

    def bodies(self, after: int, until: int, limit: int) -> list[Body]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            rows, whole = self._page(_BODIES, (after, until, limit))
            last_page = whole and len(rows) < limit
            check_whole_page(self._connection, rows, after, until, last_page=last_page)
            return [Body(row[0], row[-2], row[-1] or b"") for row in rows]

    def forwards(self) -> list[Forward]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            rows: list[Any] = self._connection.execute(_FORWARDS).fetchall()
        return [Forward(*row)._replace(failing=bool(row[7])) for row in rows]

    def backlog(self, forward: Forward) -> Backlog:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            query, bindings = _BACKLOG, (forward.until, BACKLOG_COUNTED)
            row: Any = self._connection.execute(query, bindings).fetchone()
            query, bindings = _LETTER_BACKLOG, (forward.letter, BACKLOG_COUNTED)
            letters: int = self._connection.execute(query, bindings).get
        return Backlog(row[0], row[1], letters)

    def refused(self) -> list[Refused]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            return [Refused(*row) for row in self._connection.execute(_REFUSED)]

    def check_all(self, advance: Callable[[int], None]) -> None:
        """See :class:`tap_vero_segment.stores.base.Reader`: in one snapshot."""
        with self._reading():
            check_all(self._connection, advance)

    def nearly_full(self) -> bool:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        return is_nearly_full(self._path.parent)

    def planned_exports(self) -> list[str]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        query = "SELECT destination FROM planned_exports ORDER BY destination"
        with self._reading():
            return [destination for (destination,) in self._connection.execute(query)]

    def erased(self, after: int, limit: int) -> list[ErasedEvent]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            rows: list[Any] = self._connection.execute(_ERASED, (after, limit)).fetchall()
        return [ErasedEvent(*row) for row in rows]

    def newest_erased(self) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            newest: int | None = self._connection.execute(
                "SELECT max(loaded_at) FROM erased_events"
            ).get
        return newest

    def erasure_figures(self) -> ErasureFigures:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        with self._reading():
            row: Any = self._connection.execute(_ERASURE_FIGURES).fetchone()
        return ErasureFigures(*row)

    def _page(self, query: str, bindings: tuple[Any, ...]) -> tuple[list[Any], bool]:
        return read_page(self._connection, query, bindings)

    @contextmanager
    def _reading(self) -> Generator[None]:
        with translating_errors(), self._connection:
            yield

    def close(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        self._connection.close()


def _line(row: Row) -> bytes:
    loaded_at, *_, call = row
    return with_loaded_at(call, times.to_text(loaded_at))
