"""Singer messages from standard input: records as they are, all others as objects."""

from __future__ import annotations

import json
import os
import re
import select
import signal
from collections import Counter
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from tap_vero_segment.singer.target_reader import MessageReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

CHUNK: Final = 1 << 20
"""Bytes that are read at a time."""

MAX_LINE: Final = 16 << 20
"""Bytes of the longest line; a longer one could take more memory than a loader should."""

PATIENCE: Final = 5.0
"""Seconds without a line after which the target looks at the clock."""

_HALVES: Final = re.compile("[\ud800-\udfff]")


class RecordMessage(msgspec.Struct, gc=False):
    """A message, of which only a record's own fields are read.

    Attributes:
        type: The message's type.
        stream: The stream's name.
        record: The record, as JSON.
        version: The version of the table that it is part of.
        time_extracted: When the tap read it.
    """

    type: str
    stream: str = ""
    record: msgspec.Raw = msgspec.Raw(b"")
    version: int | None = None
    time_extracted: str | None = None


_decode: Final = msgspec.json.Decoder(RecordMessage).decode


class RecordReader(MessageReader):
    """Reads Singer messages; of a record only where it belongs, not what it holds.

    Attributes:
        between: Called when all lines so far are handled, at least every few seconds.
        failed: Called when a message could not be handled, whatever the reason.
        mended: How many records held half a surrogate pair, which no UTF-8 can write.
    """

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], None] = lambda: None
        self.failed: Callable[[], None] = lambda: None
        self.mended = 0

    def process_lines(
        self, file_input: IO[bytes] | None, callbacks: Mapping[str, Callable[[Any], None]]
    ) -> Counter[str]:
        """Hand each message to the callback of its type: a record's as :class:`RecordMessage`."""
        try:
            return self._process(file_input or self.default_input, callbacks)
        except BaseException:
            self.failed()
            raise

    def _process(
        self, source: IO[bytes], callbacks: Mapping[str, Callable[[Any], None]]
    ) -> Counter[str]:
        counts: Counter[str] = Counter()
        take_record = callbacks["RECORD"]
        for line in self._lines(getattr(source, "buffer", source)):
            self.number += 1
            try:
                message = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                message = self._decode_patiently(line)
            counts[message.type] += 1
            if message.type == "RECORD":
                if not (message.stream and message.record):
                    self._refuse("a message without record or stream")
                take_record(message)
            elif message.type in callbacks:
                callbacks[message.type](self.deserialize_json(line))
            else:
                self._refuse("a message of an unknown type")
        return counts

    def _decode_patiently(self, line: bytes) -> RecordMessage:
        """Read what the grammar of JSON, or Python's, allows and msgspec does not.

        Raises:
            InvalidInputLine: It is not a message.
        """
        try:
            fields = json.loads(line)
            record = json.dumps(fields.pop("record", None), ensure_ascii=False)
            message = msgspec.convert(fields, RecordMessage)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            self._refuse("not JSON that can be read, or not a Singer message", error)
        # Halves of surrogate pairs: a subject that was cut in the middle of an emoji.
        record, count = _HALVES.subn("\ufffd", record)
        self.mended += bool(count)
        message.record = msgspec.Raw(record.encode())
        return message

    def _lines(self, file_input: IO[bytes]) -> Iterator[bytes]:
        tail: list[bytes] = []
        length = 0
        for chunk in self._chunks(file_input):
            first, *lines = chunk.split(b"\n")
            tail.append(first)
            length += len(first)
            if length > MAX_LINE:
                self.number += 1
                self._refuse(f"longer than {MAX_LINE >> 20} MB")
            if lines:
                # Lines can be large: each is given up once it is handled.
                line, tail = b"".join(tail), [lines.pop()]
                length = len(tail[0])
                if line:
                    yield line
                del line
                yield from filter(None, lines)
        line = b"".join(tail)
        if line:
            yield line

    def _chunks(self, file_input: IO[bytes]) -> Iterator[bytes]:
        """Yield the input's bytes; wake up for signals and now and then."""
        try:
            descriptor = file_input.fileno()
        except (AttributeError, OSError):  # no file
            yield from iter(lambda: _as_bytes(file_input.read(CHUNK)), b"")
            return
        with _woken_by_signals() as woken:
            while True:
                ready, _, _ = select.select([descriptor, woken], [], [], PATIENCE)
                if woken in ready:
                    os.read(woken, CHUNK)
                self.between()
                if descriptor in ready:
                    chunk = os.read(descriptor, CHUNK)
                    if not chunk:
                        return
                    yield chunk


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


@contextmanager
def _woken_by_signals() -> Generator[int]:
    """Yield what can be read once a signal has come: a handler alone does not end a wait."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        with suppress(ValueError):
            signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)
