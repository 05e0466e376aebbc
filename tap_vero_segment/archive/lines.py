"""An object's lines: unzipped as they come, however large the object is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

try:
    from isal import isal_zlib as zlib
except ImportError:  # no wheel for this machine
    import zlib  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE: Final = 1_000_000
"""Bytes of a line; Segment's calls have 32 KB at most."""

BOM: Final = b"\xef\xbb\xbf"
"""What some editors begin a file with."""

_BROKEN: Final[type[Exception]] = zlib.error  # type: ignore[assignment]  # isal's stub lacks it
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31  # zlib's way to say: with gzip's header
_PIECE: Final = 1024 * 1024
_SLICE: Final = 64 * 1024  # what is not taken yet is copied with each piece
_SHORT: Final = 100
"""Bytes of a line, on average, below which most lines must be blank: no call is so short."""
_NOT_BLANK: Final = re.compile(rb"\S[^\n]*")
"""A line from its first byte that is not white space; linear, whatever it is searched in."""


class DamagedError(Exception):
    """The object cannot be read to its end."""


def unzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unzip an object if it is gzipped, which its first two bytes tell, and no name or header.

    Args:
        chunks: The object's bytes.

    Yields:
        Its content, in pieces of 1 MiB at most where it is gzipped.

    Raises:
        DamagedError: It is gzipped, but broken or cut off, or something else follows. What came
            before has been yielded.
    """
    source = (
        chunk[start : start + _SLICE] for chunk in chunks for start in range(0, len(chunk), _SLICE)
    )
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= len(_GZIP):
            break
    if head.startswith(_GZIP):
        yield from _gather(_unzip_members(head, source))
    else:
        yield head
        yield from source


def _gather(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join pieces that are small: members of a byte each must not make pieces of a byte each."""
    held: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size >= _SLICE:
                whole, held, size = b"".join(held), [], 0
                yield whole
    except DamagedError:
        yield b"".join(held)
        raise
    yield b"".join(held)


def _unzip_members(data: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Unzip one gzip member after the other."""
    member = zlib.decompressobj(_GZIP_WINDOW)
    line_ended = True
    while data:
        more = True
        while more:
            if member.eof:
                # A file may hold several gzip members, and zeros to fill a block.
                data = data.lstrip(b"\0")
                if not data:
                    break
                if len(data) < len(_GZIP):
                    data += next(source, b"")
                if data[: len(_GZIP)] != _GZIP[: len(data)]:
                    if not line_ended:
                        yield b"\n"  # the last line is whole, as its member is
                    msg = "bytes after the end of the gzip data"
                    raise DamagedError(msg)
                member = zlib.decompressobj(_GZIP_WINDOW)
            try:
                piece = member.decompress(data, _PIECE)
            except _BROKEN as error:
                msg = "bad gzip"
                raise DamagedError(msg) from error
            yield piece
            line_ended = piece.endswith(b"\n") if piece else line_ended
            data = member.unused_data if member.eof else member.unconsumed_tail
            # A full piece can leave some behind though all input is taken.
            more = bool(data) or (len(piece) == _PIECE and not member.eof)
        data = next(source, b"")
    if not member.eof:
        msg = "truncated gzip"
        raise DamagedError(msg)


def first_lines(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield about as much of a content as is wanted, cut at the end of a line.

    Args:
        pieces: The content.
        limit: Bytes after which no further piece is taken.
    """
    rest = b""
    for piece in pieces:
        whole, end, tail = (rest + piece).rpartition(b"\n")
        yield whole + end
        rest = tail
        limit -= len(piece)
        if limit <= 0:
            # Of a line that is too long anyhow, a part tells as much.
            yield rest if len(rest) > MAX_LINE else b""
            return
    yield rest


def split_lines(  # noqa: C901, PLR0912  # a step for each state that a piece can leave behind
    pieces: Iterable[bytes],
) -> Iterator[tuple[int, bytes]]:
    r"""Split content at its ``\n`` into lines, without those that are blank.

    Of white space there can be gigabytes in an object of megabytes, so it is skipped a piece at a
    time. A line that is longer than :data:`MAX_LINE` is cut to one byte more, so that it can be
    reported; its rest is skipped without being held.

    Yields:
        Each line's number, which counts blank lines too, and the line. White space at a line's
        beginning may be missing.
    """
    number = 1
    rest = b""
    overlong = False
    for piece in pieces:
        content = rest + piece if rest else piece
        line_ends = content.count(b"\n")
        if overlong and not line_ends:
            continue
        if content.isspace():
            # It ends a line that was too long, at most.
            if line_ends:
                number += line_ends
                overlong = False
            rest = b""
            continue
        start = 0
        if overlong:
            start = content.index(b"\n") + 1
            number += 1
            overlong = False
        if line_ends * _SHORT < len(content):
            lines = content[start:].split(b"\n") if start else content.split(b"\n")
            rest = lines.pop()
            for line in lines:
                if line:
                    yield number, line if len(line) <= MAX_LINE else line[: MAX_LINE + 1]
                number += 1
        else:
            rest = b""
            for found in _NOT_BLANK.finditer(content, start):
                number += content.count(b"\n", start, found.start())
                start = found.end()
                if start == len(content):
                    rest = found[0]
                    break
                yield number, found[0][: MAX_LINE + 1]
            else:
                number += content.count(b"\n", start)
        if rest.isspace():
            rest = b""
        elif len(rest) > MAX_LINE:
            yield number, rest[: MAX_LINE + 1]
            overlong = True
            rest = b""
    if rest:
        yield number, rest
