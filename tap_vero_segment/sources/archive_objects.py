"""Reading one object of an archive: its calls, page by page, and its lines that are none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tap_vero_segment import times
from tap_vero_segment.archive.lines import BOM, MAX_LINE, DamagedError, split_lines
from tap_vero_segment.archive.objects import ReplacedError
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.body import UnmappableError
from tap_vero_segment.inputs.segment import read_call
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.sources.base import SETTING, SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tap_vero_segment.archive.objects import Objects, StoredObject
    from tap_vero_segment.errors import UserError
    from tap_vero_segment.track import TrackCall

logger = logging.getLogger("tap-vero-segment")


class ArchiveReader:
    """Reads objects of an archive.

    Args:
        objects: The archive.
        bury: Keeps a line that cannot be read, or raises the error that goes with it.

    Attributes:
        lines: How many lines it has read that are not blank.
    """

    def __init__(
        self, objects: Objects, bury: Callable[[Mapping[str, Any], UserError], None]
    ) -> None:
        self.lines = 0
        self._objects = objects
        self._bury_letter = bury

    def pages(
        self, stored: StoredObject, content: Iterable[bytes], size: int
    ) -> Iterator[tuple[list[TrackCall], bool]]:
        """Yield an object's calls that are ours, page by page, and whether there may be more.

        Args:
            stored: The object.
            content: Its bytes, unzipped.
            size: The most calls in a page.

        Yields:
            Pages, cut into slices; the last one, which may be empty, is the one after which there
            is no more.

        Raises:
            UserError: The object, or a line of it, cannot be read.
        """
        calls: list[TrackCall] = []
        held = sliced = 0
        for call, length in self._calls(stored, content):
            calls.append(call)
            held += length
            full = len(calls) + sliced >= size
            if full or len(calls) >= SLICE or held >= PAGE_BYTES:
                sliced = 0 if full else sliced + len(calls)
                yield calls, True
                calls, held = [], 0
        yield calls, False

    def _calls(
        self, stored: StoredObject, content: Iterable[bytes]
    ) -> Iterator[tuple[TrackCall, int]]:
        """Yield the calls of an object that are ours, with their lines' lengths."""
        loaded_at = times.to_text(stored.modified_at)
        where = f"{self._objects.url}/{stored.path}"
        number = 0
        try:
            for number, whole_line in split_lines(content):
                line = whole_line.removeprefix(BOM) if number == 1 else whole_line
                if not line or line.isspace():
                    continue
                self.lines += 1
                try:
                    call = _read(line)
                except UnmappableError as error:
                    self._bury(where, number, str(error), line)
                    continue
                if call is not None:
                    call.loaded_at = loaded_at
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
        self._bury_letter(letter, SettingError(SETTING, problem))


def _read(line: bytes) -> TrackCall | None:
    if len(line) > MAX_LINE:
        msg = f"longer than {MAX_LINE} bytes"
        raise UnmappableError(msg)
    return read_call(line)
