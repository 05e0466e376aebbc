"""One pass over the source for all selected streams."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.record import to_record, to_tracks
from tap_vero_segment.tap.messages import page_serializer
from tap_vero_segment.tap.streams import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from singer_sdk.metrics import Counter

    from tap_vero_segment.collection import Collection
    from tap_vero_segment.record import Record
    from tap_vero_segment.sources.base import Source
    from tap_vero_segment.tap.messages import Writer
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.tap.streams import VeroStream
    from tap_vero_segment.tap.tap import TapVeroSegment
    from tap_vero_segment.track import TrackCall


class _Output:
    """A selected stream, and what of the page at hand belongs to it."""

    def __init__(self, stream: VeroStream, serialize: Writer, counter: Counter) -> None:
        self.stream = stream
        self.serialize = serialize
        self.counter = counter
        self.start = stream.bookmark or ""
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


class _Page(NamedTuple):
    """What a page comes to.

    Attributes:
        bookmark: How far the bookmarks may go; None: not at all.
        beyond_end: Whether an event lies beyond ``end_date``, so that no bookmark may pass it.
    """

    bookmark: str | None
    beyond_end: bool


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
                page_serializer(stream, batch_config),
                stack.enter_context(stream.get_record_counter()),
            )
            for stream in streams
        }
        start = min(output.start for output in outputs.values())
        for stream in streams:
            stack.enter_context(stream.get_sync_timer())
        beyond_end = False
        for calls in source.pages(start or None, size):
            page = _distribute(calls, outputs, tap.settings, beyond_end=beyond_end)
            beyond_end = page.beyond_end
            lines = b"".join(output.take() for output in outputs.values())
            with tap.uninterrupted():
                tap.write_page(lines)
                if page.bookmark is not None:
                    for stream in streams:
                        stream.advance(page.bookmark)
                    tap.state_writer.write_state(tap.state)


def _distribute(
    calls: Sequence[TrackCall],
    outputs: dict[Collection | None, _Output],
    settings: Settings,
    *,
    beyond_end: bool,
) -> _Page:
    """Give each stream its records of a page.

    Bookmarks stop before the first event that ``end_date`` leaves out: a later run with a later
    ``end_date`` must find it. What ``start_date`` leaves out is passed for good.
    """
    tracks = outputs.get(None)
    bookmark: str | None = None
    for call in calls:
        received_before = settings.received_before
        if received_before is not None and call.received_at >= received_before:
            beyond_end = True
        if not beyond_end:
            bookmark = call.loaded_at
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
    return _Page(bookmark, beyond_end)
