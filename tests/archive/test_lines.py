from __future__ import annotations

import gzip
import itertools
import time
import tracemalloc
import zlib
from collections import deque
from typing import TYPE_CHECKING

import isal.isal_zlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment.archive import lines
from tap_vero_segment.archive.lines import MAX_LINE, DamagedError, split_lines, unzip
from tests.support.fuzz import fuzz

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MEGABYTE = 1_000_000
NEWLINES = bytes(10 if byte % 3 == 0 else 97 + byte % 26 for byte in range(256))
"""Makes a third of all bytes line ends."""
TEXT = b"".join(b'{"line": %d}\n' % number for number in range(2_000))


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch):
    """Both libraries that unzip, whichever this machine would take."""
    chosen = {"isal": isal.isal_zlib, "zlib": zlib}[request.param]
    monkeypatch.setattr(lines, "zlib", chosen)
    monkeypatch.setattr(lines, "_BROKEN", chosen.error)


def pieces_of(content: bytes, size: int) -> Iterator[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


def unzipped(chunks: Iterable[bytes]) -> tuple[bytes, str | None]:
    """What comes out, and what is said of the rest."""
    content = b""
    try:
        for piece in unzip(chunks):
            content += piece
    except DamagedError as error:
        return content, str(error)
    return content, None


# Unzipping


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000, MEGABYTE])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_gzipped_object_is_unzipped_however_its_bytes_come(library, level, size):
    assert unzipped(pieces_of(gzip.compress(TEXT, level), size)) == (TEXT, None)


@pytest.mark.parametrize("size", [1, 2, MEGABYTE])
@pytest.mark.parametrize("content", [TEXT, b"{", b"\x1f", b"\x1f{}\n", b"", b"\x8b\x1f"])
def test_what_does_not_begin_like_gzip_comes_as_it_is(library, content, size):
    assert unzipped(pieces_of(content, size)) == (content, None)


@pytest.mark.parametrize("size", [1, 5, 1_000, MEGABYTE])
def test_several_members_and_zeros_after_them_are_one_content(library, size):
    members = [gzip.compress(part) for part in (TEXT[:100], b"", TEXT[100:5_000], TEXT[5_000:])]
    content = b"".join(members) + bytes(512)
    assert unzipped(pieces_of(content, size)) == (TEXT, None)


@fuzz
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(1, 50))
def test_any_members_in_any_pieces_come_to_their_content(parts, size):
    content = b"".join(gzip.compress(part, 1) for part in parts)
    assert unzipped(pieces_of(content, size)) == (b"".join(parts), None)


def test_an_object_cut_off_anywhere_is_told_and_what_came_before_is_right(library):
    content = gzip.compress(TEXT[:300]) + gzip.compress(TEXT[300:600])
    whole = len(gzip.compress(TEXT[:300]))
    for end in range(2, len(content)):
        got, error = unzipped([content[:end]])
        assert TEXT.startswith(got)
        if end != whole:  # there a shorter object ends well
            assert error == "truncated gzip", end


def test_a_damaged_byte_anywhere_behind_the_header_is_told(library):
    content = gzip.compress(TEXT[:3_000])
    for place in range(10, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        _, error = unzipped(pieces_of(bytes(damaged), 500))
        assert error in {"bad gzip", "truncated gzip"}, place


@pytest.mark.parametrize("size", [1, 2, 1_000, MEGABYTE])
@pytest.mark.parametrize("rest", [b"something else", b"x", b"\0\0{}\n", b"\x1f\x8c"])
def test_something_else_behind_a_member_is_told_after_all_of_the_member(library, rest, size):
    said = "bytes after the end of the gzip data"
    for text in (TEXT, TEXT[:-1]):
        # Nothing can complete the last line: it is whole.
        assert unzipped(pieces_of(gzip.compress(text) + rest, size)) == (TEXT, said)


def test_a_thousandfold_content_comes_in_pieces_of_a_mebibyte(library):
    content = gzip.compress(bytes(50 * MEGABYTE), 9)
    sizes = [len(piece) for piece in unzip([content])]
    assert sum(sizes) == 50 * MEGABYTE
    assert max(sizes) <= 1024 * 1024


# Lines


def reference(content: bytes, limit: int) -> list[tuple[int, bytes]]:
    """The lines that are not blank, without white space around them, and their numbers."""
    return [
        (number, line.lstrip()[: limit + 1].rstrip())
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    ]


def lines_found(pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    return [(number, line.strip()) for number, line in split_lines(pieces) if line.strip()]


PARTS = st.sampled_from(
    [b"a", b"bc", b"\n", b"\n\n", b" ", b"\r\n", b"\t \n", b"\n" * 50, b"0123456789" * 30]
)


@fuzz
@given(st.lists(PARTS, max_size=30))
def test_content_in_any_pieces_comes_to_its_lines(pieces):
    assert lines_found(pieces) == reference(b"".join(pieces), MAX_LINE)


@pytest.mark.parametrize("limit", [1, 4, 7])
@fuzz
@given(pieces=st.lists(st.binary(max_size=6).map(lambda x: x.translate(NEWLINES)), max_size=20))
def test_lines_beyond_the_limit_come_cut_once_and_the_others_whole(limit, pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE", limit)
        assert lines_found(pieces) == reference(b"".join(pieces), limit)


@pytest.mark.parametrize("size", [1_000, 65_536, 4 * MEGABYTE])
@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 10 * MEGABYTE])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n{}\n"])
def test_a_line_is_whole_up_to_the_limit_and_told_beyond_it(length, size, end):
    content = b"first\n" + b"x" * length + end
    found = [line for _, line in split_lines(pieces_of(content, size))]
    assert [len(line) for line in found] == [
        5,
        min(length, MAX_LINE + 1),
        *([2] if end.endswith(b"}\n") else []),
    ]


def test_a_line_of_a_gigabyte_is_never_held():
    piece = b"x" * MEGABYTE
    pieces = itertools.chain([b"{}\n"], itertools.repeat(piece, 1_000), [b"\n{}\n"])
    tracemalloc.start()
    try:
        found = [len(line) for _, line in split_lines(pieces)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [2, MAX_LINE + 1, 2]
    assert peak < 8 * MEGABYTE


@pytest.mark.parametrize("before", [b"", b" " * (MAX_LINE + 1), b"\t\r" * MEGABYTE])
def test_white_space_before_a_call_costs_neither_the_call_nor_its_number(before):
    content = b"\n" * 5 * MEGABYTE + before + b"{}\n" + b" " * 3 * MEGABYTE + b"\n[]"
    expected = [(5 * MEGABYTE + 1, b"{}"), (5 * MEGABYTE + 3, b"[]")]
    for size in (1_000, 65_536, 4 * MEGABYTE, 20 * MEGABYTE):
        assert lines_found(pieces_of(content, size)) == expected


def seconds(pieces: list[bytes]) -> float:
    """The processor's time that it takes to split content, the better of two tries."""
    tries = []
    for _ in range(2):
        began = time.process_time()
        deque(split_lines(pieces), maxlen=0)
        tries.append(time.process_time() - began)
    return min(tries)


@pytest.mark.parametrize(
    "block",
    [b"\n", b"\r\n", b" \n", b" ", b"\t" * 98 + b"\n", b"\n" * 200 + b"{}\n"],
    ids=["line ends", "CRLF", "blanks", "one blank line", "long blank lines", "calls between"],
)
def test_blank_lines_are_skipped_at_the_speed_of_memory(block):
    """Two gigabytes of line ends once took a tap 99 seconds."""
    piece = block * (MEGABYTE // len(block))
    # A fifth of a microsecond for each byte it was, and now a hundredth.
    assert seconds([piece] * 20) < 1.0


def test_members_of_a_byte_do_not_make_pieces_of_a_byte():
    content = gzip.compress(b"x") * 100_000
    pieces = list(unzip([content]))
    assert b"".join(pieces) == b"x" * 100_000
    assert len(pieces) <= 2
