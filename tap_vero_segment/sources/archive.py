"""A Segment raw archive as a source: history that lies in an object store already."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.archive.lines import unzip
from tap_vero_segment.archive.listing import list_objects
from tap_vero_segment.archive.objects import Objects, StoredObject
from tap_vero_segment.archive.prefetch import in_thread, read_ahead
from tap_vero_segment.closing import Closing
from tap_vero_segment.dead_letter_file import DeadLetterFile
from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.archive_objects import ArchiveReader
from tap_vero_segment.sources.base import SETTING, Page
from tap_vero_segment.sources.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.record import Record
    from tap_vero_segment.sources.base import SourceSettings
    from tap_vero_segment.track import TrackCall

logger = logging.getLogger("tap-vero-segment")

EMPTY: Final = "no object of an archive is there, or none of a day that is wanted"

_CLOCKS_DIFFER: Final = 60 * times.SECOND
"""Microseconds that an object may be dated in the future without a warning."""


class PlannedObject(NamedTuple):
    """An object that is to be read.

    Attributes:
        stored: The object.
        bookmark: The bookmark once it and all before it have been read; None: others of the same
            time follow.
    """

    stored: StoredObject
    bookmark: str | None


def open_archive(settings: SourceSettings) -> Objects:
    """Open the object store that an archive is in.

    Raises:
        SettingError: It cannot be opened.
    """
    return Objects(settings.url, settings.storage_options, SETTING)


def bounds_of(settings: SourceSettings) -> tuple[int | None, int | None]:
    """Return the start and the end of what is wanted, in microseconds since 1970."""
    return _micros(settings.received_from), _micros(settings.received_before)


class ArchiveSource(Closing):
    """Events of a Segment raw archive.

    ``loaded_at`` is when the object that holds an event was last modified: old days get new
    objects, so nothing else tells what is new.

    Args:
        settings: Where the archive is, how to get at it, and which days of it are wanted.

    Raises:
        SettingError: It cannot be listed.

    Attributes:
        dead_letters: Where lines go that cannot be read.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._objects = open_archive(settings)
        self._lookback = settings.lookback_seconds * times.SECOND
        self.dead_letters = DeadLetterFile(settings.dead_letter)
        self._mark = times.now()
        bounds = bounds_of(settings)
        self._listing = in_thread(lambda: list_objects(self._objects, *bounds))

    def check(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`: it has objects."""
        if not self._listing.objects:
            raise SettingError(SETTING, f"{self._objects.url}: {EMPTY}")

    def resume_from(self, bookmark: str) -> str:
        """See :class:`tap_vero_segment.sources.base.Source`: the lookback before the bookmark."""
        return times.to_text(max(times.from_text(bookmark) - self._lookback, times.EARLIEST))

    def has_reached(self, bookmark: str) -> bool:
        """See :class:`tap_vero_segment.sources.base.Source`: it can be as late as the clock says.

        The newest object may have been deleted, and clocks differ by less than the lookback.
        """
        return times.from_text(self.resume_from(bookmark)) <= self._mark

    def pages(self, after: str | None, size: int) -> Iterator[Page]:
        """See :class:`tap_vero_segment.sources.base.Source`.

        The bookmark moves when an object, and every other of the same time, has been read to its
        end.
        """
        plan = self.plan(after)
        progress = Progress(len(plan), sum(each.stored.size for each in plan))
        reader = ArchiveReader(self._objects, self.dead_letters.add)

        def content(stored: StoredObject) -> Iterator[bytes]:
            # Unzipped in the thread that downloads: that leaves this one to the decoding.
            return unzip(progress.count(self._objects.read(stored)))

        objects = read_ahead(content, [each.stored for each in plan])
        for (stored, pieces), each in zip(objects, plan, strict=False):
            calls: list[TrackCall] = []
            for calls, more in reader.pages(stored, pieces, size):
                progress.events += len(calls)
                if more:
                    yield Page(calls, None)
            yield Page(calls, each.bookmark)
            progress.object_done()
        progress.done()

    def erasures(self, after: str | None, size: int) -> Iterator[list[Record]]:
        """See :class:`tap_vero_segment.sources.base.Source`: an archive has none, and says so."""
        del after, size
        logger.warning("erasures: an archive does not say what was erased; a collector does")
        yield from ()

    def plan(self, after: str | None) -> list[PlannedObject]:
        """Return which objects are to be read, in order.

        Args:
            after: As for :meth:`pages`.
        """
        if not self._listing.objects:
            logger.warning(
                "%s: %s. If there should be one, check the URL's prefix, and try --test",
                self._objects.url,
                EMPTY,
            )
        since = times.EARLIEST - 1 if after is None else times.from_text(after)
        wanted = [
            stored for stored in self._listing.objects if since < stored.modified_at <= self._mark
        ]
        self._report_others(since)
        return [
            PlannedObject(
                stored,
                self._bookmark(stored)
                if follower is None or follower.modified_at > stored.modified_at
                else None,
            )
            for stored, follower in zip(wanted, [*wanted[1:], None], strict=False)
        ]

    def _report_others(self, since: int) -> None:
        """Report the objects that this run does not read."""
        url = self._objects.url
        earlier = [each.modified_at for each in self._listing.objects if each.modified_at <= since]
        if earlier:
            logger.info(
                "%s: %d objects are not read, as they were last modified until %s: the bookmark "
                "less lookback_seconds is %s",
                url,
                len(earlier),
                times.to_text(max(earlier)),
                times.to_text(since),
            )
        if self._listing.left_out:
            logger.info(
                "%s: %d folders of days are not read, as start_date and end_date leave them out",
                url,
                self._listing.left_out,
            )
        # A store's clock may be a little ahead; the next run reads what is dated so.
        limit = max(self._mark, times.now()) + _CLOCKS_DIFFER
        future = [each.modified_at for each in self._listing.objects if each.modified_at > limit]
        if future:
            logger.warning(
                "%s: %d objects are not read yet, as they are dated in the future, until %s. "
                "If that is wrong, set the clocks right and write these objects again (of files, "
                "`touch` sets the time)",
                url,
                len(future),
                times.to_text(max(future)),
            )

    def _bookmark(self, stored: StoredObject) -> str | None:
        """Return how far the bookmark may go: not past days that ``end_date`` left out."""
        left_out_from = self._listing.left_out_from
        if left_out_from is not None and stored.modified_at >= left_out_from:
            return None
        return times.to_text(stored.modified_at)

    def close(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`; it reports what was set aside."""
        letters = self.dead_letters
        if letters.count:
            logger.warning(
                "dead letters of this run: %d, appended to %s", letters.count, letters.path
            )


def _micros(text: str | None) -> int | None:
    return None if text is None else times.from_text(text)
