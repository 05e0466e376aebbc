"""One pass over the source for all selected streams."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.record import to_record, to_tracks
from tap_vero_segment.tap.messages import page_serializer
from tap_vero_segment.tap.streams import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from singer_sdk.metrics import Counter

    from tap_vero_segment.collection import Collection
    from tap_vero_segment.record import Record
    from tap_vero_segment.sources.base import Page, Source
    from tap_vero_segment.tap.messages import Writer
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.tap.streams import VeroStream
    from tap_vero_segment.tap.tap import TapVeroSegment
    from tap_vero_segment.track import TrackCall


class _Output:
    """A selected stream, and what of the page at hand belongs to it."""

    def __init__(
        self, stream: VeroStream, source: Source, serialize: Writer, counter: Counter
    ) -> None:
        self.serialize = serialize
        self.counter = counter
        self.start = source.resume_from(stream.bookmark) if stream.bookmark else ""
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
        self.counter.increment(len(records))
        return self.serialize(records)


class _Horizon:
    """How far bookmarks may go: not past the first event that ``end_date`` leaves out.

    A later run with a later ``end_date`` must find that event. What ``start_date`` leaves out is
    passed for good.
    """

    def __init__(self, received_before: str | None) -> None:
        self._received_before = received_before
        self._reached = False

    def bookmark(self, page: Page) -> str | None:
        """Return the bookmark that a page's end allows; None: it stays where it is."""
        if self._reached:
            return None
        if self._received_before is None:
            return page.bookmark
        present = earlier = None
        for call in page.calls:
            if call.loaded_at != present:
                present, earlier = call.loaded_at, present
            if call.received_at >= self._received_before:
                self._reached = True
                return earlier
        return page.bookmark


def sync(tap: TapVeroSegment, source: Source, streams: Sequence[VeroStream]) -> None:
    """Write what is new in the source to standard output.

    Each page's messages are followed by a STATE message, so that wherever a run ends, the last
    state that was written holds for everything before it. A stream that was selected later than
    the others catches up from its own bookmark, in the same pass.

    Raises:
        UserError: The source cannot be read, or a bookmark of the state cannot.
    """
    batch_config = tap.batch_config
    size = PAGE_SIZE if batch_config is None else batch_config.batch_size
    with ExitStack() as stack:
        outputs = {
            stream.collection: _Output(
                stream,
                source,
                page_serializer(stream, batch_config),
                stack.enter_context(stream.get_record_counter()),
            )
            for stream in streams
        }
        start = min(output.start for output in outputs.values())
        for stream in streams:
            stack.enter_context(stream.get_sync_timer())
        horizon = _Horizon(tap.settings.received_before)
        for page in source.pages(start or None, size):
            bookmark = horizon.bookmark(page)
            _distribute(page.calls, outputs, tap.settings)
            lines = b"".join(output.take() for output in outputs.values())
            with tap.uninterrupted():
                tap.write_page(lines)
                if bookmark is not None:
                    for stream in streams:
                        stream.advance(bookmark)
                    tap.state_writer.write_state(tap.state)


def _distribute(
    calls: Sequence[TrackCall],
    outputs: dict[Collection | None, _Output],
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
