"""What a page of the source means to the streams, and to their bookmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.record import to_record, to_tracks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_vero_segment.collection import Collection
    from tap_vero_segment.record import Record
    from tap_vero_segment.sources.base import Page
    from tap_vero_segment.tap.messages import Writer
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.track import TrackCall


class Output:
    """A selected stream, and what of the page at hand belongs to it.

    Args:
        serialize: Takes a page's records; returns their messages.
        count: Is told how many records there were.
        start: The ``loaded_at`` up to which an earlier run has written the stream.
    """

    def __init__(self, serialize: Writer, count: Callable[[int], None], start: str = "") -> None:
        self.serialize = serialize
        self.count = count
        self.start = start
        self.records: list[Record] = []

    def add(self, record: Record) -> None:
        """Add a record, unless an earlier run has written it."""
        if record["loaded_at"] > self.start:
            self.records.append(record)

    def take(self) -> bytes:
        """Return the page's records as lines of messages, and forget them."""
        records, self.records = self.records, []
        if not records:
            return b""
        self.count(len(records))
        return self.serialize(records)


class Horizon:
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


def distribute(
    calls: Sequence[TrackCall],
    outputs: dict[Collection | None, Output],
    settings: Settings,
) -> None:
    """Give each stream its records of a page."""
    tracks = outputs.get(None)
    for call in calls:
        collection = BY_EVENT.get(call.event)
        if collection is None or not settings.covers(call):
            continue
        output = outputs.get(collection)
        of_tracks = tracks if collection.email else None
        if output is None and of_tracks is None:
            continue
        record = to_record(call, collection)
        if of_tracks is not None:
            of_tracks.add(to_tracks(record))
        if output is not None:
            output.add(record)
