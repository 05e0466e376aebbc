from __future__ import annotations

import itertools
import json
import time
from typing import Any
from urllib.parse import quote, quote_plus, unquote_to_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment.inputs.body import (
    NotAnObjectError,
    UnmappableError,
    clean,
    read_object,
    unquote,
)
from tap_vero_segment.limits import MAX_DEPTH
from tests.support.fuzz import fuzz, payloads
from tests.support.payloads import documented

BOM = b"\xef\xbb\xbf"

PAYLOAD = documented("bounced") | {"note": "50% off & more = a+b; é 👟"}
BODY = json.dumps(PAYLOAD).encode()
COMPACT_BODY = json.dumps(PAYLOAD, separators=(",", ":")).encode()

disguises = {
    "plain": lambda body: body,
    "byte order mark": lambda body: BOM + body,
    "percent-encoded": lambda body: quote(body).encode(),
    "percent-encoded, but for what a URL may hold": lambda body: quote(
        body, safe=";,/?:@&=+$!*'()#"
    ).encode(),
    "percent-encoded, every byte": lambda body: b"".join(b"%%%02x" % byte for byte in body),
    "percent-encoded after a byte order mark": lambda body: quote(BOM + body).encode(),
    "form-encoded": lambda body: quote_plus(body).encode(),
    "a form's field": lambda body: urlencode({"payload": body}).encode(),
    "a form's field among others": lambda body: urlencode({"v": "1", "json": body}).encode(),
    "a form's field after a byte order mark": lambda body: urlencode({"a": BOM + body}).encode(),
    "a form's name": lambda body: urlencode({body: ""}).encode(),
}
each_disguise = pytest.mark.parametrize("disguise", disguises.values(), ids=disguises.keys())


def nested(depth: int, *, inner: str = "{") -> bytes:
    """An object that is so many levels deep, the outermost one included."""
    opening, closing = ('{"a":', "}") if inner == "{" else ("[", "]")
    last = "{}" if inner == "{" else "[]"
    return f'{{"a":{opening * (depth - 2)}{last}{closing * (depth - 2)}}}'.encode()


@pytest.mark.parametrize("body", [BODY, COMPACT_BODY], ids=["spaced", "compact"])
@each_disguise
def test_an_object_is_read_however_the_sender_wrapped_it(disguise, body):
    assert read_object(disguise(body)) == PAYLOAD


@pytest.mark.parametrize(
    "body",
    [
        b'\n\t {"a" :\r\n 1 } \n',
        b'{"a":1.0e0,"b":"\\u0041"}',
        '{"a":"é👟"}'.encode(),
        b'{"a":"\\ud83d\\udc5f"}',
        b'{"a":"\\u0000"}',
        b'{"":{"":[]}}',
        b"{}",
        b'{"a":1,"a":2}',
    ],
)
def test_json_is_read_as_json_says(body):
    assert read_object(body) == json.loads(body)


def test_halves_of_surrogate_pairs_are_read():
    assert read_object(b'{"a":"x\\ud83d","\\udc5f":["\\udc5f\\ud83d"]}') == {
        "a": "x\ud83d",
        "\udc5f": ["\udc5f\ud83d"],
    }


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        ("9" * 400, int("9" * 400)),
        ("9" * 5000, "9" * 5000),
        ("-" + "9" * 5000, "-" + "9" * 5000),
        ("1e400", "1e400"),
        ("-1.5E+400", "-1.5E+400"),
        ("1e-400", 0.0),
        ("0.1", 0.1),
        ("1e16", 1e16),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.parametrize("beside", ["", ',"half":"\\ud83d"'], ids=["", "beside half a pair"])
def test_numbers_of_any_size_are_read(number, value, beside):
    found = read_object(f'{{"a":{number}{beside}}}'.encode())["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"not json",
        BODY[:-1],
        BODY[1:],
        BODY + b"x",
        BODY + BODY,
        b"{'a': 1}",
        b"{a: 1}",
        b'{"a":1,}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":"line\nbreak"}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\xbd"}',
        b"\x1f\x8b\x08\x00",
        BODY.decode().encode("utf-16"),
        BOM,
        b"%",
        b"%7B",
        b"=",
        b"&&&",
        b"payload=",
        b"payload=%7B%22a%22",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_is_refused(body):
    with pytest.raises(NotAnObjectError):
        read_object(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "an array"),
        (b'[{"type":"sent"}]', "an array"),
        (b"[" * 500_000, "an array"),
        (BOM + b" \n[" + b"[" * 500_000, "an array"),
        (b'"text"', "text"),
        (b"7", "a number"),
        (b"true", "true or false"),
        (b"null", "null"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_json_that_is_no_object_is_refused(body, reason):
    with pytest.raises(NotAnObjectError, match=reason):
        read_object(body)


@pytest.mark.parametrize("inner", ["{", "["], ids=["objects", "arrays"])
@each_disguise
def test_nesting_is_read_down_to_the_limit(disguise, inner):
    body = nested(MAX_DEPTH, inner=inner)
    assert read_object(disguise(body)) == json.loads(body)


@pytest.mark.parametrize("inner", ["{", "["], ids=["objects", "arrays"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 900, 50_000])
@each_disguise
def test_deeper_nesting_cannot_be_mapped(disguise, depth, inner):
    with pytest.raises(UnmappableError, match="nested deeper than 100 levels"):
        read_object(disguise(nested(depth, inner=inner)))


def test_many_brackets_that_are_not_nested_are_no_depth():
    body = {"a": [{}] * 1000, "b": "[{" * 1000}
    assert read_object(json.dumps(body).encode()) == body


@pytest.mark.parametrize("body", [b"hush-hush", b'"hush-hush"', b'{"a":hush-hush}'])
def test_a_refusal_repeats_nothing_of_the_body(body):
    with pytest.raises(NotAnObjectError) as refusal:
        read_object(body)
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        ("a\0b", "a\ufffdb"),
        ("x\ud83d", "x\ufffd"),
        ("\udc5f\ud83d", "\ufffd\ufffd"),
        ("é👟", "é👟"),
        ({"a\0": ["\0", {"\ud83d": "\0"}]}, {"a\ufffd": ["\ufffd", {"\ufffd": "\ufffd"}]}),
        ([1, 1.5, True, None], [1, 1.5, True, None]),
    ],
    ids=ascii,
)
def test_text_is_cleaned_of_what_no_warehouse_holds(value, cleaned):
    assert clean(value) == cleaned


def test_keys_that_are_alike_once_cleaned_are_both_kept():
    alike = dict(zip(["a\0", "a\ufffd", "a\ud83d"], ["\0", "b", "c"], strict=True))
    cleaned = clean(alike)
    assert sorted(cleaned.values()) == ["b", "c", "\ufffd"]
    assert all(key.startswith("a\ufffd") for key in cleaned)
    assert clean(dict(reversed(alike.items()))) == cleaned


def test_a_key_that_needs_no_cleaning_keeps_its_name():
    alike = zip(
        ["a\0", "a\ud800", "a\udfff", "a\ufffd", "a\ufffd\ufffd1"], range(1, 6), strict=True
    )
    expected = {
        "a\ufffd": 4,
        "a\ufffd\ufffd1": 5,
        "a\ufffd\ufffd2": 1,
        "a\ufffd\ufffd3": 2,
        "a\ufffd\ufffd4": 3,
    }
    for items in itertools.permutations(alike):
        assert clean(dict(items)) == expected


HALVES = [chr(code) for code in range(0xD800, 0xE000)]
SLOW = {
    # Each was read in more than a second, most in many.
    "keys of two halves": json.dumps(
        {one + other: 1 for one in HALVES[-175:] for other in HALVES[-175:]}
    ).encode(),
    "keys with numbers": json.dumps(
        dict.fromkeys(["\0", *HALVES[:9000], *(f"\ufffd\ufffd{n}" for n in range(15_000))], 1)
    ).encode(),
    "braces of a form": b"{&" * 262_144,
    "quoted braces of a form": b"%7B&" * 131_072,
    "names of a form": b"a={&" * 131_072,
    "percent signs": b"%" * 524_288,
    "a brace and percent signs": b"%7B" + b"%" * 524_285,
    "floats that are hard to round": b'{"a":[%b]}'
    % b",".join([b"1.7976931348623157e308"] * 22_000),
}


@pytest.mark.parametrize("body", SLOW.values(), ids=SLOW.keys())
def test_no_body_takes_long_to_read(body):
    started = time.thread_time()
    try:
        cleaned = clean(read_object(body))
    except NotAnObjectError:
        cleaned = {}
    assert time.thread_time() - started < 1
    assert len(json.dumps(cleaned, ensure_ascii=False).encode()) < 4 * len(body)


@fuzz
@given(st.text("%aF09 é+", max_size=30).map(str.encode))
def test_percent_encoding_is_undone_as_the_standard_library_does(text):
    assert unquote(text) == unquote_to_bytes(text)


@fuzz
@given(payloads, st.sampled_from(sorted(disguises)), st.sampled_from([None, 1]))
def test_any_object_is_read_as_the_standard_library_does(payload, disguise, indent):
    body = json.dumps(payload, indent=indent).encode()
    # Not by ==, to which 1, 1.0 and True are the same.
    assert repr(read_object(disguises[disguise](body))) == repr(json.loads(body))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(disguises[draw(st.sampled_from(sorted(disguises)))](BODY))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 20)))
        body[start:end] = draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"[" * 300]))
    return bytes(body[: draw(st.integers(0, len(body)) | st.just(len(body)))])


@fuzz
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text('{}[]":,\\u0123de+-.%&= \n', max_size=60).map(str.encode),
        damaged(),
    )
)
def test_any_bytes_are_an_object_or_refused(body):
    try:
        value: Any = read_object(body)
    except (NotAnObjectError, UnmappableError):
        return
    assert isinstance(value, dict)
    json.dumps(value)
