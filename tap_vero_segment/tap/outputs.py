"""What a page of the source means to the streams, and to their bookmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment.collection import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tap_vero_segment.collection import Collection
    from tap_vero_segment.record import Row
    from tap_vero_segment.sources.base import Page
    from tap_vero_segment.tap.messages import Serializer
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.track import TrackCall


class Output:
    """A selected stream, and what of the page at hand belongs to it.

    Args:
        serialize: Takes a page's rows; returns their messages.
        count: Called with the number of records.
        start: The ``loaded_at`` up to which an earlier run has written the stream.
    """

    def __init__(
        self, serialize: Serializer, count: Callable[[int], None], start: str = ""
    ) -> None:
        self.serialize = serialize
        self.count = count
        self.start = start
        self.rows: list[Row] = []

    def take(self) -> bytes:
        """Return the page's rows as lines of messages, and forget them."""
        rows, self.rows = self.rows, []
        if not rows:
            return b""
        self.count(len(rows))
        return self.serialize(rows)


class BookmarkLimit:
    """How far bookmarks may go: not past the first event that ``end_date`` leaves out.

    A later run with a later ``end_date`` must find that event. What ``start_date`` leaves out is
    passed for good.

    Attributes:
        reached: Whether that event has been met.
    """

    def __init__(self, received_before: str | None) -> None:
        self._received_before = received_before
        self.reached = False

    def bookmark(self, page: Page) -> str | None:
        """Return the bookmark that a page's end allows; None: it stays where it is."""
        if self.reached:
            return None
        if self._received_before is None:
            return page.bookmark
        present = earlier = None
        for call in page.calls:
            if call.loaded_at != present:
                present, earlier = call.loaded_at, present
            if call.received_at >= self._received_before:
                self.reached = True
                return earlier
        return page.bookmark


class Outputs:
    """The selected streams, and which of them an event belongs to.

    Args:
        by_collection: Each stream's output; None: that of ``tracks``.
        settings: Which events are wanted.
    """

    def __init__(
        self, by_collection: Mapping[Collection | None, Output], settings: Settings
    ) -> None:
        tracks = by_collection.get(None)
        self._all = list(by_collection.values())
        self._settings = settings
        self._bounded = settings.received_from is not None or settings.received_before is not None
        self._wanted = {
            collection.event: (
                collection,
                by_collection.get(collection),
                tracks if collection.email else None,
            )
            for collection in COLLECTIONS
            if collection in by_collection or (tracks is not None and collection.email)
        }

    @property
    def start(self) -> str:
        """The ``loaded_at`` after which any of them has something to write."""
        return min(output.start for output in self._all)

    def distribute(self, calls: Sequence[TrackCall]) -> None:
        """Give each stream its rows of a page, except those that an earlier run has written."""
        for call in calls:
            found = self._wanted.get(call.event)
            if found is None or (self._bounded and not self._settings.covers(call)):
                continue
            collection, output, of_tracks = found
            loaded_at = call.loaded_at or ""
            row = self._settings.row(call, collection)
            if of_tracks is not None and loaded_at > of_tracks.start:
                of_tracks.rows.append(row)
            if output is not None and loaded_at > output.start:
                output.rows.append(row)

    def take(self) -> bytes:
        """Return what was distributed as lines of messages, and forget it."""
        return b"".join([output.take() for output in self._all])
