"""An object's lines: unzipped as they come, however large the object is."""

from __future__ import annotations

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
        yield from _unzip_members(head, source)
    else:
        yield head
        yield from source


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


def split_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    r"""Split content at its ``\n``.

    A line that is longer than :data:`MAX_LINE` is yielded cut to one byte more, so that it can be
    told; the rest of it is passed over without being held.
    """
    rest = b""
    overlong = False
    for piece in pieces:
        lines = (rest + piece).split(b"\n")
        if overlong and len(lines) > 1:
            del lines[0]
            overlong = False
        rest = lines.pop()
        for line in lines:
            yield line if len(line) <= MAX_LINE else line[: MAX_LINE + 1]
        if overlong:
            rest = b""
        elif len(rest) > MAX_LINE:
            yield rest[: MAX_LINE + 1]
            overlong = True
            rest = b""
    if rest:
        yield rest
