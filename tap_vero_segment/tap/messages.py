"""Singer messages on standard output, a page at a time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec
from singer_sdk.contrib.msgspec import enc_hook
from singer_sdk.helpers._util import utc_now
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.singerlib.encoding.base import GenericSingerWriter
from singer_sdk.singerlib.encoding.simple import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tap_vero_segment.record import Record
    from tap_vero_segment.tap.streams import VeroStream

    Writer = Callable[[Iterable[Record]], bytes]

encode: Final = msgspec.json.Encoder(enc_hook=enc_hook, decimal_format="number").encode
"""Returns a value as JSON."""


def _line(message: Message) -> bytes:
    return encode(message.to_dict()) + b"\n"


class PageWriter(GenericSingerWriter[bytes, Message]):
    """Writes Singer messages, one or a page of them with one system call."""

    def serialize_message(self, message: Message) -> bytes:
        """Return a message as JSON with its line end."""
        return _line(message)

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


def page_serializer(stream: VeroStream) -> Writer:
    """Return what turns a page's records of a stream into lines of messages.

    A stream that is selected whole, without a stream map, is written directly; any other goes
    through the SDK's own steps. Both give the same messages.
    """
    if is_whole(stream):
        return lambda records: _whole_records(stream.name, records)
    return lambda records: _mapped_records(stream, records)


def is_whole(stream: VeroStream) -> bool:
    """Whether a stream's records leave as they are: nothing deselected, mapped or flattened."""
    columns = stream.schema["properties"]
    maps = stream.stream_maps
    return (
        len(maps) == 1
        and type(maps[0]) is SameRecordTransform
        and not maps[0].flattening_enabled
        and maps[0].stream_alias == stream.name
        and columns.keys() <= stream.effective_schema.get("properties", {}).keys()
        and all(stream.mask.values())
    )


class _RecordMessage(msgspec.Struct, tag_field="type", tag="RECORD", gc=False):
    stream: str
    record: dict[str, Any]
    time_extracted: str


def _whole_records(name: str, records: Iterable[Record]) -> bytes:
    extracted = utc_now().isoformat()
    lines = [encode(_RecordMessage(name, record, extracted)) for record in records]
    return b"\n".join([*lines, b""])


def _mapped_records(stream: VeroStream, records: Iterable[Record]) -> bytes:
    return b"".join(_line(message) for record in records for message in stream.mapped(record))
