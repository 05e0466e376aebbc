"""A look at an archive that ends soon, however large it is: for trial runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.archive.lines import first_lines, unzip
from tap_vero_segment.archive.listing import first_objects
from tap_vero_segment.archive.prefetch import in_thread, read_ahead
from tap_vero_segment.closing import Closing
from tap_vero_segment.dead_letter_file import DeadLetterFile
from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.archive import EMPTY, bounds_of, open_archive
from tap_vero_segment.sources.archive_objects import ArchiveReader
from tap_vero_segment.sources.base import SETTING, Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tap_vero_segment.errors import UserError
    from tap_vero_segment.record import Record
    from tap_vero_segment.sources.base import SourceSettings

logger = logging.getLogger("tap-vero-segment")

MAX_OBJECTS: Final = 10
"""Objects that are looked at."""

MAX_BYTES: Final = 4_000_000
"""Bytes, unzipped, after which no more is read: some thousand lines."""


class ArchiveTrial(Closing):
    """The first lines of the objects that an archive lists first.

    No dead letter is written: a line that cannot be read is an error where a run would end at it,
    and else is counted.

    Args:
        settings: As for :class:`tap_vero_segment.sources.archive.ArchiveSource`.

    Raises:
        SettingError: It cannot be listed.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._objects = open_archive(settings)
        self._goes_on = settings.dead_letter is not None
        self._unreadable = 0
        DeadLetterFile(settings.dead_letter)  # whether it can be written
        bounds = bounds_of(settings)
        self._first = in_thread(lambda: first_objects(self._objects, *bounds, MAX_OBJECTS))

    def check(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`: it has objects."""
        if not self._first:
            raise SettingError(SETTING, f"{self._objects.url}: {EMPTY}")

    def resume_from(self, bookmark: str) -> str:
        """See :class:`tap_vero_segment.sources.base.Source`: a trial follows no run."""
        return bookmark

    def has_reached(self, bookmark: str) -> bool:  # noqa: ARG002
        """See :class:`tap_vero_segment.sources.base.Source`: a trial follows no run."""
        return True

    def erasures(self, after: str | None, size: int) -> Iterator[list[Record]]:
        """See :class:`tap_vero_segment.sources.base.Source`: an archive has none."""
        del after, size
        yield from ()

    def pages(self, after: str | None, size: int) -> Iterator[Page]:  # noqa: ARG002
        """See :class:`tap_vero_segment.sources.base.Source`; there are no bookmarks.

        Raises:
            SettingError: Or none of the lines can be read.
        """
        reader = ArchiveReader(self._objects, self._bury)
        left = MAX_BYTES
        objects = 0

        def counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal left
            for piece in pieces:
                left -= len(piece)
                yield piece

        for stored in self._first:
            # One by one: of the next object nothing is asked for before it is wanted.
            for _, content in read_ahead(lambda each: unzip(self._objects.read(each)), [stored]):
                for calls, _ in reader.pages(stored, first_lines(counted(content), left), size):
                    yield Page(calls, None)
            objects += 1
            if left <= 0:
                break
        self._tell(reader.lines, objects)

    def _tell(self, lines: int, objects: int) -> None:
        seen = f"the first {lines} lines, of {objects} objects,"
        logger.info("%s: %s were read", self._objects.url, seen)
        if not self._unreadable:
            return
        if self._unreadable >= lines:
            raise SettingError(
                SETTING, f"{self._objects.url}: none of {seen} can be read: this is no archive"
            )
        logger.warning("%d of them cannot be read, and are dead letters", self._unreadable)

    def _bury(self, letter: Mapping[str, Any], error: UserError) -> None:
        del letter
        if not self._goes_on:
            raise error
        self._unreadable += 1

    def close(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`."""
