"""Telling a damaged store from a whole one.

SQLite itself has no checksums over the events, and where its write-ahead log is damaged it takes
the log to end there, without a word. So each event has checksums and names the one before it, and
whoever reads makes sure that each row is as it was written and that none is missing between two,
or at the end.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import apsw

from tap_vero_segment import times
from tap_vero_segment.stores.base import DeadLetter, digest_of
from tap_vero_segment.stores.sqlite.errors import damaged, store_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from tap_vero_segment.stores.base import StoreBrokenError

Row = tuple[int, int, int, Any]
"""An event as far as a reader needs it: ``loaded_at, previous, call_check, call``."""

WHOLE: Final = (
    "loaded_at, previous, call_check, call, rest_check, id, collection, received_at, input, body"
)
"""All columns of an event, in the order in which they are checked."""

_ALL_OF_EVENTS: Final = f"SELECT {WHOLE} FROM events WHERE loaded_at > ? ORDER BY loaded_at"  # noqa: S608

_LETTERS: Final = "SELECT id, digest, received_at, input, reason, body FROM dead_letters"

NEWEST: Final = 1_000
"""Events that are looked at when the store is opened to be written: a moment's work."""

_loaded_at: Final = struct.Struct("<q").pack


def call_check(loaded_at: int, call: bytes) -> int:
    """Return the checksum of what a reader hands out."""
    return crc32(call, crc32(_loaded_at(loaded_at)))


def rest_check(*columns: str | int | bytes | None) -> int:
    """Return the checksum of the other columns, in their order: ``id`` to ``body``."""
    check = 0
    for column in columns:
        content = column if isinstance(column, bytes) else str(column).encode(errors="replace")
        check = crc32(b"%d:%b" % (len(content), content), check)
    return check


@contextmanager
def translating_errors() -> Generator[None]:
    """Say what the errors of reading mean.

    Raises:
        StoreError: SQLite could not read.
        StoreBrokenError: What it read is nothing that was ever written.
    """
    try:
        yield
    except apsw.Error as error:
        raise store_error(error) from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise _unlike() from error


def check_page(
    connection: apsw.Connection, rows: Iterable[Row], after: int, until: int, *, last_page: bool
) -> None:
    """Make sure that rows are as they were written, and that none is missing.

    Args:
        connection: In the transaction that the rows were read in.
        rows: All events with ``after < loaded_at <= until``, or the first of them.
        after: Where they begin.
        until: Where they end.
        last_page: Whether they are all.

    Raises:
        StoreBrokenError: A row is damaged or missing.
    """
    last = max(after, 0)
    first = True
    for loaded_at, previous, check, call in rows:
        if not isinstance(call, bytes) or check != call_check(loaded_at, call):
            msg = f"the event of {_text(loaded_at)} is not as it was written"
            raise damaged(msg)
        _check_link(last, previous, first=first)
        last = loaded_at
        first = False
    if last_page:
        following: Any = connection.execute(
            "SELECT previous FROM events WHERE loaded_at > ? ORDER BY loaded_at LIMIT 1",
            (until,),
        ).fetchone()
        if following is None:
            _check_end(connection, last)
        else:
            _check_link(last, following[0], first=first)


def check_newest(connection: apsw.Connection) -> None:
    """Look at the newest events, all of each.

    Raises:
        StoreBrokenError: A row is damaged or missing.
    """
    oldest: int | None = connection.execute(
        "SELECT loaded_at FROM events ORDER BY loaded_at DESC LIMIT 1 OFFSET ?", (NEWEST - 1,)
    ).get
    # What lies before these is not looked at; before the oldest of all there is nothing.
    check_events(connection, 0 if oldest is None else oldest - 1)


def _nothing(_count: int) -> None:
    """Take no notice of how far a check has come."""


def check_events(
    connection: apsw.Connection, after: int, advance: Callable[[int], None] = _nothing
) -> None:
    """Look at events, all of each: one by one, as nothing bounds what many of them take.

    Args:
        connection: In a transaction, so that all of it is of one moment.
        after: Those with a later ``loaded_at``.
        advance: Takes how many more were looked at.

    Raises:
        StoreBrokenError: A row is damaged or missing.
    """
    rows = _counted(connection.execute(_ALL_OF_EVENTS, (after,)), advance)
    check_whole_page(connection, rows, after, times.LATEST, last_page=True)


def _counted(rows: Iterable[Any], advance: Callable[[int], None]) -> Iterator[Any]:
    for row in rows:
        yield row
        advance(1)


def check_whole_page(
    connection: apsw.Connection, rows: Iterable[Any], after: int, until: int, *, last_page: bool
) -> None:
    """Do what :func:`check_page` does, with rows of all columns: :data:`WHOLE`.

    Raises:
        StoreBrokenError: A row is damaged or missing.
    """
    check_page(connection, map(_check_rest, rows), after, until, last_page=last_page)


def _check_rest(row: Any) -> Row:
    """Make sure that the columns which no reader hands out are as written; return the others."""
    loaded_at, previous, check, call, rest, *columns = row
    if rest != rest_check(*columns):
        msg = f"the event of {_text(loaded_at)} is not as it was written"
        raise damaged(msg)
    return loaded_at, previous, check, call


def check_end(connection: apsw.Connection, rows: Sequence[Row], *, whole: bool) -> None:
    """Make sure that rows are as they were written, and the newest ones without a gap.

    Args:
        connection: In the transaction that the rows were read in.
        rows: The newest events, in the order of ``loaded_at``.
        whole: Whether they are all that the store has.

    Raises:
        StoreBrokenError: A row is damaged or missing.
    """
    # What lies before these is not looked at; before the oldest of all there is nothing.
    after = 0 if whole else rows[0][1]
    check_page(connection, rows, after, times.LATEST, last_page=True)


def check_alone(connection: apsw.Connection, row: Row) -> None:
    """Make sure that a row is as it was written, whatever lies before and after it.

    Raises:
        StoreBrokenError: It is not.
    """
    check_page(connection, [row], row[0] - 1, row[0], last_page=False)


def check_dead_letter(number: int, digest: bytes, letter: DeadLetter) -> None:
    """Make sure that a dead letter is as it was written.

    Raises:
        StoreBrokenError: It is not.
    """
    if digest != digest_of(letter):
        msg = f"the dead letter {number} is not as it was written"
        raise damaged(msg)


def newest(connection: apsw.Connection) -> tuple[int, int]:
    """Return the greatest ``loaded_at`` and number of a dead letter that there have been."""
    letter: int | None = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'dead_letters'"
    ).get
    return newest_event(connection), letter or 0


def newest_event(connection: apsw.Connection) -> int:
    """Return the greatest ``loaded_at`` that there has been."""
    loaded_at: int | None = connection.execute("SELECT max(last_loaded_at) FROM totals").get
    return loaded_at or 0


def _unlike() -> StoreBrokenError:
    return damaged("a row is not as it was written")


def _check_link(last: int, previous: int, *, first: bool) -> None:
    # The first one's predecessor may have been deleted, or lie behind where reading began.
    if previous > last or (previous < last and not first):
        msg = f"events between {_text(last)} and {_text(previous)} are missing"
        raise damaged(msg)


def _check_end(connection: apsw.Connection, last: int) -> None:
    known = newest_event(connection)
    deleted: int = connection.execute("SELECT deleted_until FROM chain").get or 0
    if known > max(last, deleted):
        msg = f"events after {_text(last)} are missing, there were some until later"
        raise damaged(msg)


def _text(moment: int) -> str:
    return times.to_text(moment) if times.EARLIEST <= moment <= times.LATEST else "an unknown time"


def check_all(connection: apsw.Connection, advance: Callable[[int], None] = _nothing) -> None:
    """Look at each page of the file, and at each event and dead letter.

    For a store without a high-water mark: a write-ahead log that lies beside an older copy of its
    file is read as if it were the copy's. Its pages replace some of the copy's, and the rest of a
    tree is of another time. SQLite notices when it gets there, which may be long after the newest
    events, all in the log, were found whole.

    Args:
        connection: In a transaction, so that all of it is of one moment.
        advance: Takes how many more events were looked at.

    Raises:
        apsw.Error: SQLite could not even begin.
        StoreBrokenError: Something is damaged or missing.
    """
    found: str = connection.execute("PRAGMA integrity_check(1)").get
    if found != "ok":
        msg = f"SQLite's check says {found.splitlines()[-1]}"
        raise damaged(msg)
    for number, digest, *rest in connection.execute(_LETTERS):
        check_dead_letter(number, digest, DeadLetter(*rest))
    check_events(connection, 0, advance)
