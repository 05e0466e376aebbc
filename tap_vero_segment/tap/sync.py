"""One pass over the source for all selected streams."""

from __future__ import annotations

import gc
import logging
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from tap_vero_segment.closing import Closing
from tap_vero_segment.sources.open import is_archive
from tap_vero_segment.sources.progress import INTERVAL
from tap_vero_segment.tap.batch.batch_files import BatchFiles, batch_line, page_size
from tap_vero_segment.tap.batch.storage import open_storage
from tap_vero_segment.tap.messages import page_serializer, to_line
from tap_vero_segment.tap.outputs import BookmarkLimit, Output, Outputs
from tap_vero_segment.tap.streams import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tap_vero_segment.sources.base import Page, Source
    from tap_vero_segment.tap.batch.settings import BatchSettings
    from tap_vero_segment.tap.messages import Serializer, SingerOutput
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.tap.streams import ErasuresStream, VeroStream


logger = logging.getLogger("tap-vero-segment")

PATIENCE: Final = 60.0
"""Seconds after which batch files are completed though they are not full: an archive of which
little is ours can take hours to fill them, and an interrupted run must not have been in vain."""


def begin_again_if_behind(stream: VeroStream, source: Source) -> None:
    """Remove a stream's bookmark if the source has not come as far: it is not of this source.

    Whatever the source takes until it has come as far would be skipped.
    """
    if stream.bookmark is None or source.has_reached(stream.bookmark):
        return
    stream.logger.warning(
        "state: the bookmark of %s (%s) is later than anything in the source: the source was "
        "restored from a copy, is another one, or its clock was set back. The stream is read again "
        "from the beginning, so that nothing is skipped",
        stream.name,
        stream.bookmark,
    )
    stream.forget()


def start_of(stream: VeroStream, source: Source) -> str:
    """Return the ``loaded_at`` after which a stream is read; empty: from the beginning."""
    return source.resume_from(stream.bookmark) if stream.bookmark else ""


def sync(
    output: SingerOutput, settings: Settings, source: Source, streams: Sequence[VeroStream]
) -> None:
    """Write what is new in the source to standard output.

    RECORD messages of a page, or BATCH messages of files that are complete, are followed by a
    STATE message, so that wherever a run ends, the last state that was written holds for
    everything before it. A stream that was selected later than the others catches up from its own
    bookmark, in the same pass.

    Raises:
        UserError: The source cannot be read, a bookmark of the state cannot, or a batch file
            cannot be written.
    """
    with ExitStack() as stack:
        stack.enter_context(_seldom_collected())
        writer = stack.enter_context(_writer(output, settings.batch, streams))
        progress = _Progress(often=not is_archive(settings.source.url))
        by_collection = {
            stream.collection: Output(
                writer.serializer(stream),
                progress.counting(stack.enter_context(stream.get_record_counter()).increment),
                start_of(stream, source),
            )
            for stream in streams
        }
        outputs = Outputs(by_collection, settings)
        for stream in streams:
            stack.enter_context(stream.get_sync_timer())
        bookmark_limit = BookmarkLimit(settings.received_before)
        for page in source.pages(outputs.start or None, writer.page_size):
            writer.make_room(len(page.calls))
            bookmark = bookmark_limit.bookmark(page)
            outputs.distribute(page.calls)
            writer.write(outputs.take(), len(page.calls), bookmark)
            progress.read(page)
        writer.finish()
        progress.done()


class _Progress:
    """Says how far a run has come, and at its end what it has done.

    Args:
        often: Whether it says so on the way, too. An archive knows how much there is, and says it
            itself.
    """

    def __init__(self, *, often: bool) -> None:
        self._often = often
        self._records = self._events = 0
        self._up_to = ""
        self._began = self._said = time.monotonic()

    def counting(self, increment: Callable[[int], None]) -> Callable[[int], None]:
        """Return a function that counts records here, too."""

        def count(records: int) -> None:
            self._records += records
            increment(records)

        return count

    def read(self, page: Page) -> None:
        """Count a page that was read and written."""
        self._events += len(page.calls)
        if page.calls:
            self._up_to = f" up to {page.calls[-1].loaded_at}"
        if self._often and time.monotonic() - self._said >= INTERVAL:
            self._said = time.monotonic()
            logger.info("%d events read%s", self._events, self._up_to)

    def done(self) -> None:
        """Say what the run has done."""
        seconds = time.monotonic() - self._began
        told = "%d records of %d events%s, in %.0f s"
        logger.info(told, self._records, self._events, self._up_to, seconds)


def sync_erasures(output: SingerOutput, source: Source, stream: ErasuresStream) -> None:
    """Write the ids of events that were erased since the last run to standard output.

    They are RECORD messages always: even with batch files these are few and small.

    Raises:
        UserError: The source cannot be read.
    """
    with stream.get_record_counter() as counter:
        for page in source.erasures(stream.bookmark, PAGE_SIZE):
            if stream.bookmark is not None and page[0]["loaded_at"] <= stream.bookmark:
                stream.forget()  # the source has not come as far: it was restored from a copy
            lines = b"".join(
                to_line(message) for record in page for message in stream.mapped(record)
            )
            counter.increment(len(page))
            write(output, [stream], lines, page[-1]["loaded_at"])


def write(
    output: SingerOutput, streams: Sequence[VeroStream], lines: bytes, bookmark: str | None
) -> None:
    """Write messages, and the state that holds once they are written.

    Args:
        output: Where to.
        streams: All that are selected, one at least.
        lines: The messages.
        bookmark: The ``loaded_at`` that all streams have come to with them; None: no state.
    """
    with output.uninterrupted():
        output.write_page(lines)
        if bookmark is not None:
            for stream in streams:
                stream.advance(bookmark)
            streams[0].write_state()


class _RecordWriter(Closing):
    """RECORD messages: each page is written, and followed by its state, at once."""

    page_size = PAGE_SIZE

    def __init__(self, output: SingerOutput, streams: Sequence[VeroStream]) -> None:
        self._output = output
        self._streams = streams

    def serializer(self, stream: VeroStream) -> Serializer:
        return page_serializer(stream)

    def make_room(self, events: int) -> None:
        """A page has room of its own."""

    def write(self, lines: bytes, events: int, bookmark: str | None) -> None:  # noqa: ARG002
        write(self._output, self._streams, lines, bookmark)

    def finish(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is open."""


class _BatchWriter(Closing):
    """BATCH messages: pages gather in files, and the state follows when these are complete."""

    def __init__(
        self, output: SingerOutput, streams: Sequence[VeroStream], settings: BatchSettings
    ) -> None:
        self._output = output
        self._streams = streams
        self._settings = settings
        storage = open_storage(settings.root, settings.params)
        self._files = BatchFiles(settings, storage, uuid4().hex)
        self._events = 0
        self._bookmark: str | None = None
        self._finished_at = time.monotonic()
        self.page_size = page_size(settings)

    def serializer(self, stream: VeroStream) -> Serializer:
        return self._files.writer(stream)

    def make_room(self, events: int) -> None:
        """Complete the files if a page of so many events would overfill them."""
        if self._events and self._events + events > self._settings.size:
            self.finish()

    def write(self, lines: bytes, events: int, bookmark: str | None) -> None:  # noqa: ARG002
        """Take over a page, whose records are in the files already: there are no lines."""
        self._events += events
        self._bookmark = bookmark or self._bookmark
        waited = time.monotonic() - self._finished_at >= PATIENCE
        if not self._events or self._events >= self._settings.size or waited:
            self.finish()

    def finish(self) -> None:
        """Complete the files, and write their messages and the state that then holds."""
        lines = b"".join(batch_line(file, self._settings) for file in self._files.complete())
        if lines or self._bookmark is not None:
            write(self._output, self._streams, lines, self._bookmark)
        self._events = 0
        self._bookmark = None
        self._finished_at = time.monotonic()

    def close(self) -> None:
        """Discard the files that are not complete."""
        self._files.close()


def _writer(
    output: SingerOutput, batch: BatchSettings | None, streams: Sequence[VeroStream]
) -> _RecordWriter | _BatchWriter:
    if batch is None:
        return _RecordWriter(output, streams)
    return _BatchWriter(output, streams, batch)


@contextmanager
def _seldom_collected() -> Generator[None]:
    """Let the garbage collector look less often.

    A page is thousands of objects without a circle among them, which go as soon as the page does;
    looking for circles took a sixth of a run.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
