"""Who an event is about: the recipient's address or number, and the user's id."""

from __future__ import annotations

import base64
import html
import re
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tap_vero_segment.inputs.body import read_json, unquote
from tap_vero_segment.limits import MAX_BODY
from tap_vero_segment.record import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.track import TrackCall

_NAMES: Final = frozenset(
    "email emailaddress sentto campaignsentto phone phonenumber mobile mobilenumber".split()  # noqa: SIM905
)
"""Names of fields that hold the recipient's address or number, in small letters, without ``_``."""

ADDRESS: Final = re.compile(r"[^\s@<>()\",;]+@[^\s@<>()\",;]+")
NUMBER: Final = re.compile(r"[+(]?\d[\d\s().-]*")
SHORTEST: Final = 6
"""Digits of a number, or characters of an address in longer text, that are looked for everywhere. A
shorter one would be found in values that have nothing to do with it."""

_LOCAL: Final = re.compile(r"[^\s\"<>(),:;\\\[\]@]{1,254}")
_DOMAIN: Final = re.compile(r"[^\s\"<>(),:;\\\[\]@&/?#'|{}=%!]{1,254}")
"""What stands around the ``@`` of an address in longer text. What comes before may be glued on."""
_LONGEST: Final = 255
"""One more than the letters of either."""
_GLUE: Final = re.compile(r"[=&?/'{}|!#$%^*~`]+")
"""What may stand in front of an address, as in ``?to=ann@example.com``, hardly as part of it."""
_DIGITS: Final = re.compile(r"\+?[0-9]{6,20}")
_IDS: Final = frozenset({"userid"})
_ID_IN_TEXT: Final = re.compile(
    r"""["']?user_?id["']?\s*[:=]\s*["']?([^"',&}\s]+)|"user"\s*:\s*\{[^{}]*?"id"\s*:\s*"?([^",}\s]+)""",
    re.IGNORECASE,
)
_PROFILE_TYPES: Final = frozenset({"user_created", "user_updated"})

_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31  # zlib's way to say: with gzip's header
_ESCAPE: Final = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_LAYERS: Final = 4
"""How often a body may be encoded: a form that holds Base64 that holds gzip, say."""


class Identity(NamedTuple):
    """What tells a person.

    Attributes:
        kind: ``address``: an address or number that messages went to; or ``user_id``.
        value: An address is in small letters, without blanks around it; an id is as it is.
    """

    kind: str
    value: str


def address(text: str) -> Identity:
    """Return the identity that an address or number is, however a number is written."""
    value = folded(text)
    return Identity("address", digits_of(value) or value)


def user_id(text: str) -> Identity:
    """Return the identity that a user's id is."""
    return Identity("user_id", text)


def folded(text: str) -> str:
    """Return an address or number so that capital letters and blanks make no difference."""
    return text.strip().lower()


def digits_of(text: str) -> str:
    """Return the digits of a number that tells a person, without what stands between them.

    Empty: the text is not a number, or one of too few digits.
    """
    if not NUMBER.fullmatch(text):
        return ""
    digits = "".join(each for each in text if each.isdigit())
    return digits if len(digits) >= SHORTEST else ""


def identities_of(call: TrackCall) -> set[Identity]:
    """Return all that tells whose a track call is.

    That is the user's id, and the address or number wherever it stands as the recipient's: in the
    user's ids where they are addresses, and in fields of such names at any depth.
    """
    found = {user_id(call.user_id)} if call.user_id else set()
    for identity in (call.user_id, call.anonymous_id):
        if identity and "@" in identity and ADDRESS.fullmatch(identity.strip()):
            found.add(address(identity))
    for holder in (call.context, call.properties):
        if holder:
            found.update(_addresses(named_values(holder)))
    return found


def _addresses(values: Iterator[str]) -> Iterator[Identity]:
    """Yield what the values of fields are, and an address inside one, as ``Ann <ann@x.com>``."""
    for value in values:
        yield address(value)
        if "@" in value:
            yield from addresses_in(value)


def holds_address(name: str) -> bool:
    """Return whether a field of this name holds the recipient's address or number."""
    return name.lower().replace("_", "") in _NAMES


def named_values(value: Any, *, inside: bool = False) -> Iterator[str]:
    """Yield what fields hold whose names say that they hold an address or number.

    Args:
        value: Where to look.
        inside: Whether it is itself the value of such a field.
    """
    if isinstance(value, dict):
        for name, each in value.items():
            named = holds_address(name)
            text = as_text(each)
            if text is None:
                yield from named_values(each, inside=inside or named)
            elif text.strip() and (named or (inside and "@" in text)):
                yield folded(text)
    elif isinstance(value, list):
        for each in value:
            text = as_text(each)
            if text is None:
                yield from named_values(each, inside=inside)
            elif inside and text.strip():
                yield folded(text)


def addresses_in(text: str) -> set[Identity]:
    """Return every address that stands anywhere in a text."""
    found: set[str] = set()
    # From each @ to both sides, as a pattern for the whole would try each letter of a long word
    # anew; and each pair of sides once, as a hostile text can consist of them.
    for before, after in set(pairwise(text.lower().split("@"))):
        local = _LOCAL.match(before[:-_LONGEST:-1])  # backwards
        domain = _DOMAIN.match(after)
        if local and domain:
            start, end = local[0][::-1], domain[0].rstrip(".-")
            found.add(f"{start}@{end}")
            # Behind each of them, as o'hara can have one as well.
            unglued = (start[glue.end() :] for glue in _GLUE.finditer(start))
            found.update(f"{each}@{end}" for each in unglued if each)
    return {Identity("address", each) for each in found}


def identities_in(body: bytes) -> set[Identity]:
    """Return all that tells of whom a body is that could not be read or mapped.

    As nobody knows what it is, an address counts wherever it stands, and is looked for in what the
    body may be: gzip, percent-encoding, JSON's and HTML's escapes, Base64, UTF-16.
    """
    found: set[Identity] = set()
    for view in _views(body):
        text = view.decode(errors="replace")
        found.update(addresses_in(text))
        digits = {number.lstrip("+") for number in _DIGITS.findall(text)}
        found.update(Identity("address", number) for number in digits)
        found.update(user_id(one or other) for one, other in _ID_IN_TEXT.findall(text))
        try:
            found.update(_identities_of_json(read_json(view)))
        except (ValueError, RecursionError):
            continue
    return found


def _identities_of_json(value: Any) -> Iterator[Identity]:
    """Yield what fields of any JSON tell, at any depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        if not isinstance(each, dict):
            continue
        waiting += each.values()
        for name, field in each.items():
            text = as_text(field)
            if text and name.lower().replace("_", "") in _IDS:
                yield user_id(text)
            elif text and holds_address(name) and text.strip():
                yield address(text)
        user = each.get("user")
        holders = [user] if isinstance(user, dict) else []
        if each.get("type") in _PROFILE_TYPES:
            holders.append(each)
        for holder in holders:
            if text := as_text(holder.get("id")):
                yield user_id(text)


def _views(body: bytes) -> Iterator[bytes]:
    """Yield a body, and what it is once each layer of encoding is undone."""
    seen = {body}
    layer = [body]
    for _ in range(_LAYERS):
        yield from layer
        layer = list({view for each in layer for view in _undone(each)} - seen)
        seen.update(layer)


def _undone(view: bytes) -> Iterator[bytes]:
    if view.startswith(_GZIP):
        try:  # of one that is cut off, what there is
            yield zlib.decompressobj(_GZIP_WINDOW).decompress(view, MAX_BODY)
        except zlib.error:
            return
    if b"%" in view:
        yield unquote(view)
        yield unquote(view.replace(b"+", b" "))
    if b"\\u00" in view or b"\\/" in view:
        plain = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), view)
        yield plain.replace(b"\\/", b"/")
    if b"&#" in view:
        yield html.unescape(view.decode(errors="replace")).encode()
    if b"\0" in view:
        yield view.replace(b"\0", b"")
    decoded = [_base64(text) for text in set(_BASE64.findall(view))]
    yield from (each for each in decoded if each.startswith(_GZIP))
    if text := b"\n".join(each for each in decoded if b"@" in each):
        yield text


def _base64(text: bytes) -> bytes:
    plain = text.rstrip(b"=").translate(_URL_SAFE)
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4))
    except ValueError:
        return b""
