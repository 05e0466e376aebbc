"""A Segment raw archive as a source: history that lies in an object store already."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Final

from tap_vero_segment import times
from tap_vero_segment.archive.lines import MAX_LINE, DamagedError, split_lines, unzip
from tap_vero_segment.archive.listing import list_objects
from tap_vero_segment.archive.objects import Objects, ReplacedError
from tap_vero_segment.archive.prefetch import aside, read_ahead
from tap_vero_segment.closing import Closing
from tap_vero_segment.dead_letters import DeadLetters
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.body import UnmappableError
from tap_vero_segment.inputs.segment import read_call
from tap_vero_segment.sources.base import SETTING, Page
from tap_vero_segment.sources.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_vero_segment.archive.objects import StoredObject
    from tap_vero_segment.sources.base import SourceSettings
    from tap_vero_segment.track import TrackCall

logger = logging.getLogger("tap-vero-segment")

_PAGE_BYTES: Final = 8_000_000
"""Lines of a page, in bytes: a thousand calls can be large."""

_EMPTY: Final = "no object of an archive is there, or none of a day that is wanted"


class ArchiveSource(Closing):
    """Events of a Segment raw archive.

    ``loaded_at`` is when the object that holds an event was last modified: old days get new
    objects, so nothing else tells what is new.

    Args:
        settings: Where the archive is, how to get at it, and which days of it are wanted.

    Raises:
        SettingError: It cannot be listed.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._objects = Objects(settings.url, settings.storage_options, SETTING)
        self._lookback = settings.lookback_seconds * times.SECOND
        self._dead_letters = DeadLetters(settings.dead_letter)
        self._mark = times.now()
        bounds = _micros(settings.received_from), _micros(settings.received_before)
        self._listing = aside(lambda: list_objects(self._objects, *bounds))

    def check(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`: it has objects."""
        if not self._listing.objects:
            raise SettingError(SETTING, f"{self._objects.url}: {_EMPTY}")

    def resume_from(self, bookmark: str) -> str:
        """See :class:`tap_vero_segment.sources.base.Source`: the lookback before the bookmark."""
        return times.to_text(max(times.from_text(bookmark) - self._lookback, times.EARLIEST))

    def pages(self, after: str | None, size: int) -> Iterator[Page]:
        """See :class:`tap_vero_segment.sources.base.Source`.

        The bookmark moves when an object, and every other of the same time, has been read to its
        end.
        """
        if not self._listing.objects:
            logger.warning("%s: %s", self._objects.url, _EMPTY)
        since = times.EARLIEST - 1 if after is None else times.from_text(after)
        wanted = [
            stored for stored in self._listing.objects if since < stored.modified_at <= self._mark
        ]
        progress = Progress(len(wanted), sum(stored.size for stored in wanted))
        followers = itertools.chain(wanted[1:], [None])
        for (stored, chunks), follower in zip(
            read_ahead(self._objects.read, wanted), followers, strict=False
        ):
            calls: list[TrackCall] = []
            held = 0
            for call, length in self._calls(stored, chunks, progress):
                calls.append(call)
                held += length
                if len(calls) >= size or held >= _PAGE_BYTES:
                    yield Page(calls, None)
                    calls, held = [], 0
            last_of_its_time = follower is None or follower.modified_at > stored.modified_at
            yield Page(calls, self._bookmark(stored) if last_of_its_time else None)
            progress.object_done()
        progress.done()

    def _bookmark(self, stored: StoredObject) -> str | None:
        """Return how far the bookmark may go: not past days that ``end_date`` left out."""
        left_out_from = self._listing.left_out_from
        if left_out_from is not None and stored.modified_at >= left_out_from:
            return None
        return times.to_text(stored.modified_at)

    def _calls(
        self, stored: StoredObject, chunks: Iterable[bytes], progress: Progress
    ) -> Iterator[tuple[TrackCall, int]]:
        """Yield the calls of an object that are ours, with their lines' lengths."""
        loaded_at = times.to_text(stored.modified_at)
        where = f"{self._objects.url}/{stored.path}"
        number = 0
        try:
            for number, line in enumerate(split_lines(unzip(progress.count(chunks))), start=1):
                if not line or line.isspace():
                    continue
                try:
                    call = _read(line)
                except UnmappableError as error:
                    self._bury(where, number, str(error), line)
                    continue
                if call is not None:
                    call.loaded_at = loaded_at
                    progress.events += 1
                    yield call, len(line)
        except DamagedError as error:
            self._bury(where, number + 1, str(error))
        except ReplacedError:
            # The new object is younger than this run's mark: the next run reads it, whole.
            logger.warning("%s was overwritten meanwhile: left for the next run", where)

    def _bury(self, where: str, line: int, reason: str, text: bytes = b"") -> None:
        """Keep a line that cannot be read; without one, say that an object's rest cannot."""
        letter = {
            "object": where,
            "line": line,
            "reason": reason,
            "text": text.decode(errors="backslashreplace"),
        }
        problem = f"{where}: line {line}: {reason} (set dead_letter to keep such lines and go on)"
        self._dead_letters.add(letter, SettingError(SETTING, problem))

    def close(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`."""


def _read(line: bytes) -> TrackCall | None:
    if len(line) > MAX_LINE:
        msg = f"longer than {MAX_LINE} bytes"
        raise UnmappableError(msg)
    return read_call(line)


def _micros(text: str | None) -> int | None:
    return None if text is None else times.from_text(text)
