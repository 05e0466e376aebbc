"""Checking all of a store, where no mark tells how far it goes.

A write-ahead log that lies beside an older copy of its file is read as if it were the copy's: its
pages replace some of the copy's, and the rest of a tree is of another time. SQLite notices when it
gets there, which may be long after the newest events, all in the log, were found whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.sqlite.damage import check_events, check_letter
from tap_vero_segment.stores.sqlite.errors import damaged

if TYPE_CHECKING:
    import apsw

_LETTERS: Final = "SELECT id, digest, received_at, input, reason, body FROM dead_letters"


def check_all(connection: apsw.Connection) -> None:
    """Look at each page of the file, and at each event and dead letter.

    Args:
        connection: In a transaction, so that all of it is of one moment.

    Raises:
        apsw.Error: SQLite could not even begin.
        StoreBrokenError: Something is damaged or missing.
    """
    found: str = connection.execute("PRAGMA integrity_check(1)").get
    if found != "ok":
        msg = f"SQLite's check says {found.splitlines()[-1]}"
        raise damaged(msg)
    for number, digest, *rest in connection.execute(_LETTERS):
        check_letter(number, digest, DeadLetter(*rest))
    check_events(connection, 0)
