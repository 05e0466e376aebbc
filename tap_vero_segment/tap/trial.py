"""A trial run (``--test``): whether the source can be read, shown by a record of each stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment.sources.open import open_trial
from tap_vero_segment.tap.messages import page_serializer
from tap_vero_segment.tap.outputs import Output, Outputs
from tap_vero_segment.tap.streams import PAGE_SIZE, ErasuresStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_vero_segment.record import Row
    from tap_vero_segment.tap.messages import SingerOutput
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.tap.streams import VeroStream


def try_out(output: SingerOutput, settings: Settings, streams: Sequence[VeroStream]) -> str:
    """Look at the source's first events, and write a record of each stream that has one there.

    The source is opened once and read up to a page, as there is no telling how much a stream that
    has no events would take. No state is written, and no dead letter.

    Returns:
        What was found, for people.

    Raises:
        UserError: The source cannot be read, or is none.
    """
    with open_trial(settings.source) as source:
        source.check()
        firsts = {
            stream.collection: _First(stream)
            for stream in streams
            if not isinstance(stream, ErasuresStream)
        }
        outputs = Outputs(
            {collection: Output(first, _uncounted) for collection, first in firsts.items()},
            settings,
        )
        seen = 0
        records = b""
        for page in source.pages(None, PAGE_SIZE):
            outputs.distribute(page.calls)
            records += outputs.take()
            seen += len(page.calls)
            if seen >= PAGE_SIZE:
                break
    # Of a trial that fails, nothing is to be taken for data.
    with output.uninterrupted():
        for stream in streams:
            stream._write_schema_message()  # noqa: SLF001  # the SDK's own path
        output.write_page(records)
    found = [first.stream for first in firsts.values() if first.written]
    if not seen:
        return "the source can be read; no event was found"
    if not found:
        return f"of the first {seen} events none was received between start_date and end_date"
    return f"the first {seen} events hold records of {', '.join(found)}"


class _First:
    """Writes a stream's first record, and none after it.

    Args:
        stream: The stream.

    Attributes:
        stream: Its name.
        written: Whether it has been written.
    """

    def __init__(self, stream: VeroStream) -> None:
        self.stream = stream.name
        self.written = False
        self._serialize = page_serializer(stream)

    def __call__(self, rows: Iterable[Row]) -> bytes:
        if self.written:
            return b""
        for row in rows:
            lines = self._serialize([row])
            if lines:  # a stream map may have left it out
                self.written = True
                return lines
        return b""


def _uncounted(records: int) -> None:
    """Do nothing: metrics are of runs."""
