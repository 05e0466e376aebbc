"""The reading half of the embedded store."""

from __future__ import annotations

from typing import Any, Final

import apsw

from tap_vero_segment import times
from tap_vero_segment.closing import Closing
from tap_vero_segment.stores.base import DeadLetter, KeptLetter, Summary, Total
from tap_vero_segment.stores.sqlite.connection import open_to_read, path_of, store_error
from tap_vero_segment.track import with_loaded_at

_PAGE: Final = """
SELECT loaded_at, call FROM events WHERE loaded_at > ? AND loaded_at <= ?
ORDER BY loaded_at LIMIT ?
"""
_LETTERS: Final = """
SELECT id, received_at, input, reason, body FROM dead_letters WHERE id > ? ORDER BY id LIMIT ?
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
        try:
            newest: int | None = self._connection.execute("SELECT max(loaded_at) FROM events").get
        except apsw.Error as error:
            raise store_error(error) from error
        return newest

    def lines(self, after: int, until: int | None, limit: int) -> list[bytes]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        bindings = (after, times.LATEST if until is None else until, limit)
        try:
            rows: list[Any] = self._connection.execute(_PAGE, bindings).fetchall()
        except apsw.Error as error:
            raise store_error(error) from error
        return [with_loaded_at(call, times.to_text(loaded_at)) for loaded_at, call in rows]

    def summary(self) -> Summary:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        try:
            with self._connection:  # one transaction: the figures fit each other
                totals: list[Any] = self._connection.execute(
                    "SELECT collection, events, first_loaded_at, last_loaded_at FROM totals"
                ).fetchall()
                dead_letters: int = self._connection.execute(
                    "SELECT count(*) FROM dead_letters"
                ).get
                passed_over: int | None = self._connection.execute(
                    "SELECT calls FROM passed_over"
                ).get
        except apsw.Error as error:
            raise store_error(error) from error
        return Summary([Total(*row) for row in totals], dead_letters, passed_over or 0)

    def size(self) -> int:
        """See :class:`tap_vero_segment.stores.base.Reader`: the file and its write-ahead log."""
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def dead_letters(self, after: int, limit: int) -> list[KeptLetter]:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        try:
            rows: list[Any] = self._connection.execute(_LETTERS, (after, limit)).fetchall()
        except apsw.Error as error:
            raise store_error(error) from error
        return [KeptLetter(number, DeadLetter(*rest)) for number, *rest in rows]

    def exported_until(self, destination: str | None = None) -> int | None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        try:
            until: int | None = self._connection.execute(
                "SELECT max(until) FROM exports WHERE destination = coalesce(?, destination)",
                (destination,),
            ).get
        except apsw.Error as error:
            raise store_error(error) from error
        return until

    def close(self) -> None:
        """See :class:`tap_vero_segment.stores.base.Reader`."""
        self._connection.close()
