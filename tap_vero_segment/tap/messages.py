"""Singer messages on standard output, a page at a time."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Final

import msgspec
from singer_sdk.contrib.msgspec import enc_hook
from singer_sdk.helpers._util import utc_now
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.singerlib.encoding.base import GenericSingerWriter
from singer_sdk.singerlib.encoding.simple import Message

from tap_vero_segment.record import COMMON_NAMES, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from tap_vero_segment.tap.streams import VeroStream

    Serializer = Callable[[Iterable[Row]], bytes]

encode: Final = msgspec.json.Encoder(enc_hook=enc_hook, decimal_format="number").encode
"""Returns a value as JSON."""


def to_line(message: Message) -> bytes:
    """Return a message as JSON with its line end."""
    return encode(message.to_dict()) + b"\n"


class SingerOutput(GenericSingerWriter[bytes, Message]):
    """Standard output: Singer messages, one or a page of them with one system call."""

    _holding = False
    _end: Callable[[], None] | None = None

    def serialize_message(self, message: Message) -> bytes:
        """Return a message as JSON with its line end."""
        return to_line(message)

    def write_message(self, message: Message) -> None:
        """Write a message."""
        self.write_page(self.format_message(message))

    def write_page(self, lines: bytes) -> None:
        """Write messages that are serialized already."""
        output = sys.stdout.buffer
        # With PYTHONUNBUFFERED this is a bare file, which a signal lets write a part only.
        rest = memoryview(lines)
        while rest:
            rest = rest[output.write(rest) :]
        output.flush()

    @contextmanager
    def uninterrupted(self) -> Generator[None]:
        """Hold a signal back until messages and the state that goes with them are written.

        A handler that ran in the middle of a page would write its own state into that page, or a
        state that the page is not yet part of.
        """
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._end is not None:
            self._end()

    def holds(self, end: Callable[[], None]) -> bool:
        """Return whether a signal is held back; what it is to do is then done later."""
        if self._holding:
            self._end = end
        return self._holding


def page_serializer(stream: VeroStream) -> Serializer:
    """Return what turns a page's rows of a stream into lines of messages.

    A stream without a stream map is written directly, without the columns that are deselected;
    any other goes through the SDK's own steps. Both give the same messages.
    """
    deselected = deselected_columns(stream)
    if deselected is None:
        return lambda rows: b"".join(
            to_line(message)
            for record in stream.records_of(rows)
            for message in stream.mapped(record)
        )
    if stream.collection is None:
        return _TracksSerializer(stream.name, deselected)
    return _CollectionSerializer(stream.name, deselected)


def deselected_columns(stream: VeroStream) -> frozenset[str] | None:
    """Return the columns that a stream's records leave without.

    Returns:
        Their names; None: more happens to the records than that, by a stream map, by flattening or
        by selection within a column.
    """
    columns = stream.schema["properties"]
    maps = stream.stream_maps
    if not (
        len(maps) == 1
        and type(maps[0]) is SameRecordTransform
        and not maps[0].flattening_enabled
        and maps[0].stream_alias == stream.name
    ):
        return None
    deselected = {breadcrumb for breadcrumb, selected in stream.mask.items() if not selected}
    if any(len(breadcrumb) != len(_COLUMN) for breadcrumb in deselected):
        return None
    names = frozenset(name for _, name in deselected)
    kept = stream.effective_schema.get("properties", {}).keys()
    return names if columns.keys() - names <= kept else None


_COLUMN: Final = ("properties", "name")
"""The form of a column's breadcrumb in a catalog."""


class _TracksSerializer:
    """Writes a page's rows as RECORD messages of ``tracks``.

    Args:
        stream: The stream's name.
        deselected: The columns to leave out.
    """

    def __init__(self, stream: str, deselected: frozenset[str]) -> None:
        self._before = _before_record(stream)
        self._deselected = deselected & COMMON_NAMES

    def __call__(self, rows: Iterable[Row]) -> bytes:
        before, after = self._before, _after_record()
        deselected = self._deselected
        return b"".join(
            [b"%b%b%b" % (before, encoded_common(row, deselected), after) for row in rows]
        )


class _CollectionSerializer:
    """Writes a page's rows as RECORD messages of a collection's stream.

    Args:
        stream: The stream's name.
        deselected: The columns to leave out.
    """

    def __init__(self, stream: str, deselected: frozenset[str]) -> None:
        self._before = _before_record(stream)
        self._common = deselected & COMMON_NAMES
        self._own = deselected - self._common

    def __call__(self, rows: Iterable[Row]) -> bytes:
        before, after = self._before, _after_record()
        deselected, own_deselected = self._common, self._own
        lines = []
        for row in rows:
            own = row.own
            for name in own_deselected:
                setattr(own, name, msgspec.UNSET)
            common = encoded_common(row, deselected)
            rest = encode(own)
            comma = b"," if len(common) > len(b"{}") < len(rest) else b""
            lines.append(b"%b%b%b%b%b" % (before, common[:-1], comma, rest[1:], after))
        return b"".join(lines)


def encoded_common(row: Row, deselected: frozenset[str]) -> bytes:
    """Return a row's common columns as JSON, except those deselected.

    The collection's stream and ``tracks`` mostly want the same, and each row is encoded once.
    """
    if row.encoded is None or row.encoded[0] != deselected:
        common = row.common
        if deselected:
            common = copy(common)
            for name in deselected:
                setattr(common, name, msgspec.UNSET)
        row.encoded = (deselected, encode(common))
    return row.encoded[1]


def _before_record(stream: str) -> bytes:
    return b'{"type":"RECORD","stream":%b,"record":' % encode(stream)


def _after_record() -> bytes:
    return b',"time_extracted":%b}\n' % encode(utc_now().isoformat())
