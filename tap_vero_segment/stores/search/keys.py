"""What events are looked for by, and the keys of an event that lead to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.recipients import address, digits_of, folded, identities_of
from tap_vero_segment.record import as_text
from tap_vero_segment.track import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Search
    from tap_vero_segment.track import TrackCall

PARTS: Final = 256
"""Parts of a block: the first half for keys of a person or a message, the other for the rest."""

Key = tuple[int, int]
"""What an event is found by: the number of a part, and what an entry there begins with."""


class _Properties(msgspec.Struct, gc=False):
    email_id: Any = None
    campaign_id: Any = None
    campaign_name: Any = None


class _Call(msgspec.Struct, rename="camel", gc=False):
    """What of a track call is read in a fifth of the time that all of it takes."""

    message_id: str
    event: str
    timestamp: str
    user_id: str | None = None
    properties: _Properties | None = None


_decode: Final = msgspec.json.Decoder(_Call).decode
_NO_PROPERTIES: Final = _Properties()
_NOT_DIGITS: Final = bytes(sorted(set(range(256)) - set(b"0123456789")))


def matcher(search: Search) -> Callable[[bytes], bool]:
    """Return what says whether a track call, as JSON, fits a search."""
    tests = [
        test(value)
        for test, value in (
            (_is_of, search.collection),
            (_has_id, search.id),
            (_has_user_id, search.user_id),
            (_has_email_id, search.email_id),
            (_has_campaign, search.campaign),
        )
        if value is not None
    ]
    # Fixed-width text sorts as time does.
    if search.since is not None:
        since = times.to_text(within(search.since))
        tests.append(lambda call: call.timestamp >= since)
    if search.until is not None:
        until = times.to_text(within(search.until))
        tests.append(lambda call: call.timestamp < until)
    has_recipient = None if search.recipient is None else _has_recipient(search.recipient)
    has_text = None if search.text is None else _has_text(search.text)

    def fits(line: bytes) -> bool:
        if tests or has_text:
            call = _decode(line)
            if not all(test(call) for test in tests):
                return False
            if has_text and not has_text(call, line):
                return False
        return has_recipient is None or has_recipient(line)

    return fits


def within(moment: int) -> int:
    """Return the nearest point in time that can be written."""
    return min(max(moment, times.EARLIEST), times.LATEST)


def _is_of(collection: str) -> Callable[[_Call], bool]:
    names = {event for event, found in BY_EVENT.items() if found.stream == collection}
    return lambda call: call.event in names


def _has_id(value: str) -> Callable[[_Call], bool]:
    ids = {value, value.strip()}
    return lambda call: call.message_id in ids


def _has_user_id(value: str) -> Callable[[_Call], bool]:
    value = value.strip()
    return lambda call: call.user_id is not None and call.user_id.strip() == value


def _has_email_id(value: str) -> Callable[[_Call], bool]:
    value = value.strip()
    return lambda call: _plain((call.properties or _NO_PROPERTIES).email_id) == value


def _has_campaign(value: str) -> Callable[[_Call], bool]:
    value = folded(value)

    def test(call: _Call) -> bool:
        properties = call.properties or _NO_PROPERTIES
        return value in (_folded(properties.campaign_name), _folded(properties.campaign_id))

    return test


def _plain(value: Any) -> str | None:
    text = as_text(value)
    return None if text is None else text.strip()


def _folded(value: Any) -> str | None:
    text = as_text(value)
    return None if text is None else folded(text)


def _has_recipient(value: str) -> Callable[[bytes], bool]:
    identity = address(value)
    can_have = _can_have(identity.value)
    return lambda line: can_have(line) and identity in identities_of(decode(line))


def _can_have(value: str) -> Callable[[bytes], bool]:
    """Return what says in a moment that a track call does not hold a recipient, where it can.

    Whether it does takes twenty times as long to say.
    """
    if value.isascii() and digits_of(value):
        # However it is written there: no digit stands between those of a number.
        digits = value.encode()
        return lambda line: b"\\" in line or digits in line.translate(None, _NOT_DIGITS)
    if value.isascii() and "\\" not in value:
        return lambda line: b"\\" in line or value in line.decode().lower()
    return lambda _: True


def _has_text(value: str) -> Callable[[_Call, bytes], bool]:
    tests = [test(value) for test in (_has_id, _has_user_id, _has_email_id, _has_campaign)]
    has_recipient = _has_recipient(value)
    return lambda call, line: any(test(call) for test in tests) or has_recipient(line)


# Keys


def _hash(kind: str, value: str) -> int:
    return crc32(value.encode(errors="replace"), crc32(kind.encode()))


def _of_person(kind: str, value: str) -> Key:
    found = _hash(kind, value)
    return found >> 25, found & 0xFFFFFF


def _of_many(kind: str, value: str) -> Key:
    """Return a key that many events share, so that those of persons have short parts."""
    part, begins = _of_person(kind, value)
    return PARTS // 2 + part, begins


def keys_of(call: TrackCall) -> set[Key]:
    """Return all that an event is found by, apart from its id, which stores have an index of."""
    addresses = (each for each in identities_of(call) if each.kind == "address")
    keys = {_of_person("address", each.value) for each in addresses}
    if call.user_id is not None:
        keys.add(_of_person("user_id", call.user_id.strip()))
    properties = call.properties
    if properties:
        email_id = _plain(properties.get("email_id"))
        if email_id is not None:
            keys.add(_of_person("email_id", email_id))
        for name in ("campaign_id", "campaign_name"):
            campaign = _folded(properties.get(name))
            if campaign is not None:
                keys.add(_of_many("campaign", campaign))
    if collection := BY_EVENT.get(call.event):
        keys.add(_of_many("collection", collection.stream))
    return keys


def keys_wanted(search: Search) -> list[set[Key]]:
    """Return the keys that events need which fit a search: one of each set."""
    wanted = []
    if search.recipient is not None:
        wanted.append({_recipient(search.recipient)})
    if search.user_id is not None:
        wanted.append({_of_person("user_id", search.user_id.strip())})
    if search.email_id is not None:
        wanted.append({_of_person("email_id", search.email_id.strip())})
    if search.campaign is not None:
        wanted.append({_of_many("campaign", folded(search.campaign))})
    if search.text is not None:
        wanted.append(
            {
                _recipient(search.text),
                _of_person("user_id", search.text.strip()),
                _of_person("email_id", search.text.strip()),
                _of_many("campaign", folded(search.text)),
            }
        )
    if search.collection is not None:
        wanted.append({_of_many("collection", search.collection)})
    return wanted


def _recipient(value: str) -> Key:
    return _of_person("address", address(value).value)
