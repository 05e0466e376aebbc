"""A collector's store, read where it lies: on the same machine, or in the shared database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.closing import Closing
from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.base import SETTING, Page, decode_lines, erasure_record
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.open import open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.record import Record


class StoreSource(Closing):
    """Events of a collector's store.

    Args:
        url: The store's URL.

    Raises:
        SettingError: It names no store that can be read.
    """

    def __init__(self, url: str) -> None:
        self._reader = open_reader(url, SETTING)
        try:
            self._mark = self._reader.high_water()
        except StoreError as error:
            raise _unreadable(error) from error

    def check(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`: opening the store has seen to it."""

    def resume_from(self, bookmark: str) -> str:
        """See :class:`tap_vero_segment.sources.base.Source`: a store shows nothing late."""
        return bookmark

    def has_reached(self, bookmark: str) -> bool:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        return self._mark is not None and times.from_text(bookmark) <= self._mark

    def pages(self, after: str | None, size: int) -> Iterator[Page]:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        cursor = 0 if after is None else times.from_text(after)
        try:
            while self._mark is not None and cursor < self._mark:
                lines = self._reader.lines(cursor, self._mark, size)
                if not lines:
                    return
                where = f"the store after {after or 'its beginning'}"
                for calls in decode_lines(lines, where):
                    after = calls[-1].loaded_at or ""
                    yield Page(calls, after)
                cursor = times.from_text(after or "")
        except StoreError as error:
            raise _unreadable(error) from error

    def erasures(self, after: str | None, size: int) -> Iterator[list[Record]]:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        cursor = 0 if after is None else times.from_text(after)
        try:
            mark = self._reader.newest_erased() or 0
            if cursor > mark:
                cursor = 0
            while cursor < mark and (page := self._reader.erased(cursor, size)):
                wanted = [each for each in page if each.loaded_at <= mark]
                yield [
                    erasure_record(
                        each.id, times.to_text(each.erased_at), times.to_text(each.loaded_at)
                    )
                    for each in wanted
                ]
                cursor = page[-1].loaded_at
        except StoreError as error:
            raise _unreadable(error) from error

    def close(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        self._reader.close()


def _unreadable(error: StoreError) -> SettingError:
    return SettingError(SETTING, f"the store cannot be read: {error}")
