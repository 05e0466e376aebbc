"""Request bodies: bytes to a JSON object, as tolerant as the senders are careless."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from tap_vero_segment.limits import MAX_BODY, MAX_DEPTH, MAX_FORM_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator

BOM: Final = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8, which some senders and editors begin a text with."""
_REPLACEMENT: Final = "�"
_HALVES: Final = re.compile("[\ud800-\udfff]")
_MAX_INTEGER_DIGITS: Final = 4000  # Python refuses to convert more than 4,300

_GZIP: Final = b"\x1f\x8b"
"""The first two bytes of gzip data, and of no JSON."""
_GZIP_WINDOW: Final = 31  # zlib's way to say: with gzip's header


class BodyError(ValueError):
    """A body that is of no use; the message says why, for its sender and its dead letter."""


class NotJSONError(BodyError):
    """The body is not JSON, not what JSON is wanted of it, or not gzip that could hold any."""


class TooLargeError(BodyError):
    """The body holds more than Segment would take."""


class TooLongError(BodyError):
    """The body is longer than :data:`MAX_BODY` when it is unzipped."""


class NotAnObjectError(ValueError):
    """The body is not JSON, or it is JSON but not an object."""


class UnmappableError(ValueError):
    """The body is a JSON object, but no track call can be made of it."""


def unzip(body: bytes) -> bytes:
    """Return the content of a gzipped body; any other body stays as it is.

    The first two bytes tell, as not every proxy and client keeps the header true.

    Raises:
        NotJSONError: It is damaged or holds more than one gzip member.
        TooLongError: Its content is longer than :data:`MAX_BODY`.
    """
    if not body.startswith(_GZIP):
        return body
    member = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # One byte more than it may be: a small body can unzip to gigabytes.
        content = member.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise not_gzip() from error
    if len(content) > MAX_BODY:
        msg = f"the body is longer than {MAX_BODY} bytes"
        raise TooLongError(msg)
    if not member.eof:
        raise not_gzip()
    if member.unused_data:
        # Another one, maybe: thousands of them, each with nothing in it, would take long to read.
        msg = "the body goes on behind its first gzip member"
        raise NotJSONError(msg)
    return content


def not_gzip() -> NotJSONError:
    """Return the error of a body that should be gzip and is not."""
    return NotJSONError("the body is not gzip")


def read_object(body: bytes) -> dict[str, Any]:
    """Read a request body as a JSON object.

    JSON as it should be is read, and so is what senders make of it: a byte order mark, a body
    that is percent-encoded or the one field of a form (seen by a third-party reader of Vero's
    webhooks), halves of surrogate pairs, and numbers beyond what a float or Python's integers hold
    (those become text).

    Raises:
        NotAnObjectError: It is none of these.
        UnmappableError: It is nested deeper than :data:`MAX_DEPTH`.
    """
    try:
        value = read_json(body)
    except ValueError:
        body, value = _read_form(body)
    except RecursionError:
        if body.removeprefix(BOM).lstrip().startswith(b"["):
            raise NotAnObjectError(_not_an_object([])) from None
        raise UnmappableError(_too_deep()) from None
    if not isinstance(value, dict):
        raise NotAnObjectError(_not_an_object(value))
    if not is_shallow(body):
        check_depth(value)
    return value


def is_shallow(text: bytes) -> bool:
    """Whether JSON cannot be nested too deeply, told without reading it."""
    return text.count(b"{") + text.count(b"[") <= MAX_DEPTH


def check_depth(value: Any, levels: int = MAX_DEPTH) -> None:
    """Refuse what is nested too deeply.

    Raises:
        UnmappableError: It is nested deeper than so many levels.
    """
    if _depth_exceeds(value, levels):
        raise UnmappableError(_too_deep())


def _too_deep() -> str:
    return f"nested deeper than {MAX_DEPTH} levels"


def _not_an_object(value: Any) -> str:
    names = {list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return f"JSON, but {names.get(type(value), 'a number')} instead of an object"


def read_json(text: bytes) -> Any:
    """Read JSON, strictly if it can be and with patience if not; a byte order mark is allowed.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply to be read.
    """
    text = text.removeprefix(BOM)
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Strict reading failed. What the grammar of JSON allows is read all the same, as a
        # subject cut in the middle of an emoji must not cost the event.
        return json.loads(
            text.decode(), parse_int=_integer, parse_float=as_number, parse_constant=_refuse
        )


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits


def as_number(digits: str) -> float | str:
    """Read a float; text where no float can hold it."""
    value = float(digits)
    return value if math.isfinite(value) else digits


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


# msgspec's own reading of a float that is hard to round takes twenty times as long as Python's, so
# that half a megabyte of them would stop all other threads for a third of a second.
_decoder: Final = msgspec.json.Decoder(float_hook=as_number)


def _read_form(body: bytes) -> tuple[bytes, Any]:
    """Find JSON in a percent-encoded body, or in a form's one field that holds it, and read it."""
    for text in _candidates(body):
        candidate = text.removeprefix(BOM)
        if candidate.lstrip().startswith(b"{"):
            try:
                return candidate, read_json(candidate)
            except RecursionError:
                raise UnmappableError(_too_deep()) from None
            except ValueError:
                continue
    msg = "not JSON"
    raise NotAnObjectError(msg)


def _candidates(body: bytes) -> Iterator[bytes]:
    """Yield what may be JSON: the body as a whole, then each name and value of a form."""
    # In a form's encoding a space is a plus, and a colon never stays as it is. In any other a plus
    # is a plus, as in many an address.
    yield unquote(body if b":" in body else body.replace(b"+", b" "))
    if b"&" in body or b"=" in body:
        for field in body.split(b"&", MAX_FORM_FIELDS)[:MAX_FORM_FIELDS]:
            for part in field.split(b"=", 1):
                text = unquote(part.replace(b"+", b" "))
                yield text.decode(errors="replace").encode()


def unquote(text: bytes) -> bytes:
    """Undo percent-encoding, in time that does not depend on how much of it is broken.

    The standard library takes a second for half a megabyte of percent signs.
    """
    return _QUOTED.sub(lambda run: bytes.fromhex(run[0].replace(b"%", b"").decode()), text)


_QUOTED: Final = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return any(isinstance(value, (dict, list)) for value in level)


def clean(value: Any) -> Any:
    """Return a value without the characters that no warehouse's text can hold.

    U+0000 (PostgreSQL refuses it) and halves of surrogate pairs (no UTF-8 can write them) become
    U+FFFD. The body is kept verbatim beside the track call, so nothing is lost for good.
    """
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, dict):
        cleaned = {_clean_text(key): clean(item) for key, item in value.items()}
        return cleaned if len(cleaned) == len(value) else _clean_alike(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def _clean_alike(fields: dict[str, Any]) -> dict[str, Any]:
    """Clean an object of which some keys differ in nothing else, and keep each of its values.

    A key that needs no cleaning keeps its name; others get a number where theirs is taken.
    """
    names = {key: key for key in fields if _clean_text(key) == key}
    taken = set(names)
    numbers: Counter[str] = Counter()
    for key in sorted(fields.keys() - taken):  # the names must not depend on the keys' order
        name = cleaned = _clean_text(key)
        while name in taken:
            numbers[cleaned] += 1
            name = f"{cleaned}{_REPLACEMENT}{numbers[cleaned]}"
        names[key] = name
        taken.add(name)
    return {names[key]: clean(item) for key, item in fields.items()}


def _clean_text(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", _REPLACEMENT)
    return text if text.isascii() else _HALVES.sub(_REPLACEMENT, text)
