"""Writing an archive in Segment's layout, from a collector's store."""

from __future__ import annotations

import gzip
import hashlib
import io
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.archive.lines import DamagedError, unzip
from tap_vero_segment.archive.listing import DAY
from tap_vero_segment.archive.objects import ReplacedError
from tap_vero_segment.recipients import identities_of
from tap_vero_segment.stores.base import Exported, Exports
from tap_vero_segment.stores.exports import missing
from tap_vero_segment.track import decode, without_loaded_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_vero_segment.archive.objects import Objects
    from tap_vero_segment.stores.base import Reader, Span, Writer
    from tap_vero_segment.stores.exports import Missing

SOURCE_ID: Final = "vero-collector"
"""Where Segment's layout has the source's id."""

CHUNK: Final = 20_000
"""Events that are written together; they become one object for each day of receipt."""

CHUNK_BYTES: Final = 16_000_000
"""Bytes of events that are written together, or a larger one alone: they are held in memory."""

_PAGE: Final = 1_000


class Written(NamedTuple):
    """What an archive has got.

    Attributes:
        events: How many events.
        objects: How many objects hold them.
    """

    events: int
    objects: int


class _Event(NamedTuple):
    loaded_at: str
    received_at: int
    call: bytes


class _Chunk(NamedTuple):
    """Events that are written together.

    Attributes:
        events: In the order of ``loaded_at``.
        until: The ``loaded_at`` up to which there are no others.
    """

    events: list[_Event]
    until: int


class _Lacking:
    """The events of a store that an archive lacks.

    Args:
        reader: The store.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._span = cache(self._span_of)

    def _span_of(self, since: int, before: int, until: int) -> Span | None:
        return self._reader.span(since, before, -1, until)

    def chunk(self, written: Sequence[Exported], wanted: Exported, *, whole: bool) -> _Chunk:
        """Return the next events that are lacking.

        Args:
            written: What the archive has.
            wanted: What it is to have.
            whole: Whether all of them are returned, or not more than a chunk.
        """
        events: list[_Event] = []
        size = 0
        for part in missing(written, wanted):
            for event in self._events(part):
                events.append(event)
                size += len(event.call)
                if not whole and (len(events) >= CHUNK or size >= CHUNK_BYTES):
                    return _Chunk(events, times.from_text(event.loaded_at))
        return _Chunk(events, wanted.until)

    def _events(self, part: Missing) -> Iterator[_Event]:
        after, until = part.after, part.until
        if part.since != times.EARLIEST:
            # Of what an earlier export has gone through, little is left: the index leads to it.
            span = self._span(part.since, part.before, until)
            if span is None:
                return
            after = max(after, span.first_loaded_at - 1)
            until = min(until, span.last_loaded_at)
        while after < until and (lines := self._reader.lines(after, until, _PAGE)):
            for line in lines:
                call, loaded_at = without_loaded_at(line)
                received_at = times.from_text(decode(call).received_at)
                if part.since <= received_at < part.before:
                    yield _Event(loaded_at, received_at, call)
            after = times.from_text(loaded_at)


def write_archive(
    reader: Reader, writer: Writer, objects: Objects, wanted: Exported
) -> Iterator[Written]:
    """Write what an archive lacks, chunk by chunk; note in the store what it has.

    An object is named after its content and never replaced, whatever another export writes, or
    one that ran before the store was restored from a backup. What is being written is noted
    beforehand, so that exports at once, and one that follows another that broke off, write the
    same objects.

    Args:
        reader: The store.
        writer: The same store.
        objects: The archive.
        wanted: What it is to have.

    Yields:
        What was written and read back.

    Raises:
        ObjectStoreError: An object cannot be written, or reads otherwise than it was written.
        StoreError: The store cannot be read or written.
    """
    lacking = _Lacking(reader)
    while True:
        written = reader.exports().get(objects.url, [])
        chunk = lacking.chunk(written, wanted, whole=False)
        if not chunk.events:
            if missing(written, wanted):
                writer.mark_exported(objects.url, wanted)
            return
        plan = Exports(written, Exported(chunk.until, wanted.before))
        agreed = writer.plan_export(objects.url, plan.planned)
        if agreed != plan:
            chunk = lacking.chunk(agreed.written, agreed.planned, whole=True)
        # Once the plan is noted, whoever erases people knows of it; who was erased before is here.
        people = writer.erased_people()
        days: dict[int, list[_Event]] = {}
        for event in chunk.events:
            if people and people.find(identities_of(decode(event.call)), event.received_at):
                continue
            days.setdefault(event.received_at - event.received_at % DAY, []).append(event)
        for day, events in days.items():
            _write(objects, day, events)
        writer.mark_exported(objects.url, agreed.planned)
        yield Written(sum(map(len, days.values())), len(days))


def _write(objects: Objects, day: int, events: Sequence[_Event]) -> None:
    """Write an object that is not there yet, and read it back."""
    content = io.BytesIO()
    hashed = hashlib.sha256()
    # Without a time in gzip's header, the same events are the same bytes.
    with gzip.GzipFile("", "wb", fileobj=content, mtime=0) as zipped:
        for event in events:
            line = b"%b\n" % event.call
            zipped.write(line)
            hashed.update(line)
    digest = hashed.hexdigest()
    span = f"{_in_name(events[0].loaded_at)}-{_in_name(events[-1].loaded_at)}"
    path = f"segment-logs/{SOURCE_ID}/{day // 1000}/{span}-{len(events)}-{digest[:16]}.gz"
    created = objects.create(path, content.getvalue())
    if _digest_of(objects, path) != digest:
        problem = (
            "reads otherwise than it was written: check the disk or the store, delete it"
            if created
            else "is there already, with other content: move it away"
        )
        raise objects.problem(path, f"{problem}, and run the export again")


def _in_name(loaded_at: str) -> str:
    """Return a time for a name: it sorts as time does, and holds no colon."""
    return loaded_at.replace("-", "").replace(":", "")


def _digest_of(objects: Objects, path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        for piece in unzip(objects.read(objects.find(path))):
            digest.update(piece)
    except (DamagedError, ReplacedError):
        return None
    return digest.hexdigest()
