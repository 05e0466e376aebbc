"""Progress of a long read, for whoever watches the log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

logger = logging.getLogger("tap-vero-segment")

INTERVAL: Final = 5.0
"""Seconds between two lines."""


class Progress:
    """Tells every few seconds how far an archive has been read.

    Args:
        objects: How many there are to read.
        size: Their bytes, as stored.
    """

    def __init__(self, objects: int, size: int) -> None:
        self.events = 0
        self._objects = objects
        self._size = size
        self._objects_done = 0
        self._bytes_done = 0
        self._started = self._told = time.monotonic()

    def count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass chunks on, and count their bytes."""
        for chunk in chunks:
            self._bytes_done += len(chunk)
            yield chunk
            self._tell_sometimes()

    def object_read(self, size: int, events: int) -> None:
        """Count an object that was read elsewhere, to its end."""
        self._bytes_done += size
        self.events += events
        self.object_done()

    def object_done(self) -> None:
        """Count an object that was read to its end."""
        self._objects_done += 1
        self._tell_sometimes()

    def done(self) -> None:
        """Tell the final figures, if there was anything to do."""
        if self._objects:
            self._tell()

    def _tell_sometimes(self) -> None:
        if time.monotonic() - self._told >= INTERVAL:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        elapsed = max(self._told - self._started, 0.001)
        left = (self._size - self._bytes_done) * elapsed / max(self._bytes_done, 1)
        logger.info(
            "%d of %d objects, %.1f of %.1f MB, %d events, %.0f events/s, %.0f s left",
            self._objects_done,
            self._objects,
            self._bytes_done / 1e6,
            self._size / 1e6,
            self.events,
            self.events / elapsed,
            max(left, 0),
        )
