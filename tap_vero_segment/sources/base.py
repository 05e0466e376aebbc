"""What every source can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from tap_vero_segment.closing import Closable
from tap_vero_segment.errors import SettingError
from tap_vero_segment.track import TrackCall, decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tap_vero_segment.record import Record

SETTING = "source"
"""The setting that names a source, for errors."""

DEFAULT_LOOKBACK: Final = 3_600
"""Seconds: an object that was uploaded in parts is dated at the upload's start, and listed late."""


class SourceSettings(NamedTuple):
    """What a source may need to know; each takes what it needs.

    Attributes:
        url: The setting ``source``.
        token: The setting ``token``.
        storage_options: The setting ``storage_options``.
        lookback_seconds: The setting ``lookback_seconds``.
        dead_letter: The setting ``dead_letter``.
        received_from: The start of what is wanted, as fixed-width UTC text. A source may leave out
            what was received earlier, but need not.
        received_before: The end of it, likewise.
    """

    url: str
    token: str | None = None
    storage_options: Mapping[str, Any] = {}
    lookback_seconds: int = DEFAULT_LOOKBACK
    dead_letter: Path | None = None
    received_from: str | None = None
    received_before: str | None = None


SLICE: Final = 100
"""Track calls that are made, written and forgotten together. Of a thousand, the first would have
left the processor's cache when its turn comes: that took a third of the time on top."""

SLICE_BYTES: Final = 1_000_000
"""Bytes of their lines after which a slice ends: what is made of them takes many times as much."""


class Page(NamedTuple):
    """Some of a source's track calls.

    Attributes:
        calls: In rising order of ``loaded_at``; there may be none.
        bookmark: The ``loaded_at`` up to which, with this page, everything has been read; None:
            it is not time for a bookmark yet.
    """

    calls: list[TrackCall]
    bookmark: str | None


class Source(Closable, Protocol):
    """A place that holds track calls, each with its ``loaded_at``.

    Opening it fixes the high-water mark: what becomes readable later is left for the next time.
    Opening and reading raise :class:`SettingError` when the source cannot be read.
    """

    def check(self) -> None:
        """Make sure that the source has the layout of one, though it may hold no event.

        Raises:
            SettingError: It has not.
        """

    def resume_from(self, bookmark: str) -> str:
        """Return the cursor at which a run begins that follows one which came to a bookmark.

        It lies before the bookmark where a source can show late what belongs before it.
        """

    def has_reached(self, bookmark: str) -> bool:
        """Return whether a bookmark can be of this source.

        False: the source has not come as far. It was restored from a copy, is another one, or its
        clock was set back.
        """

    def pages(self, after: str | None, size: int) -> Iterator[Page]:
        """Yield what became readable after a cursor, up to the high-water mark, page by page.

        Args:
            after: A ``loaded_at``, as fixed-width UTC text; None: from the beginning.
            size: The most track calls in a page.

        Yields:
            Pages, in rising order of ``loaded_at``.
        """

    def erasures(self, after: str | None, size: int) -> Iterator[list[Record]]:
        """Yield the records of the stream ``erasures``, page by page.

        Args:
            after: A ``loaded_at`` of that stream, as fixed-width UTC text; None: from the
                beginning, as it is where the source has not come as far.
            size: The most records in a page.
        """


def erasure_record(erased_id: str, erased_at: str, loaded_at: str) -> Record:
    """Return a record of the stream ``erasures``; times are fixed-width UTC text."""
    return {"id": erased_id, "erased_at": erased_at, "loaded_at": loaded_at}


def decode_lines(lines: Sequence[bytes], where: str) -> Iterator[list[TrackCall]]:
    """Read a page's lines, slice by slice.

    Args:
        lines: Track calls as JSON with ``loadedAt``.
        where: The page, for errors.

    Yields:
        Slices, none of which is empty.

    Raises:
        SettingError: A line is no such thing. Its content is not repeated.
    """
    start = held = 0
    for end, line in enumerate(lines, start=1):
        held += len(line)
        if end - start == SLICE or held >= SLICE_BYTES or end == len(lines):
            yield _decode(lines[start:end], where, start)
            start, held = end, 0


def _decode(lines: Sequence[bytes], where: str, before: int) -> list[TrackCall]:
    calls = []
    for number, line in enumerate(lines, start=before + 1):
        try:
            call = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(where, number, "no track call") from error
        if call.loaded_at is None:
            raise _unreadable(where, number, "a track call without loadedAt")
        calls.append(call)
    return calls


def _unreadable(where: str, number: int, what: str) -> SettingError:
    return SettingError(SETTING, f"{where}: line {number} is {what}")
