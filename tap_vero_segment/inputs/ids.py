"""Ids for what comes without one: the same for the same content, and in the order of time."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any, Final

import msgspec

_MAX_MILLIS: Final = 2**48 - 1

ALIKE: Final = 600_000_000
"""Microseconds: equal content without a time of its own is the same event when it is received
within them, and another event later. Ten minutes are longer than senders try again at once."""
_sorted_encoder: Final = msgspec.json.Encoder(order="sorted")


def canonical_json(value: Any) -> bytes:
    """Write JSON so that the order of keys and its white space make no difference."""
    try:
        return _sorted_encoder.encode(value)
    except UnicodeEncodeError:
        # A half of a surrogate pair: the standard library escapes it.
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def content_id(happened_at: int | None, received_at: int, canonical: bytes) -> str:
    """Return an RFC 9562 UUID of version 8: the time in milliseconds, then the SHA-256.

    Equal content that tells its time has equal ids, whenever it comes. Without a time, the id has
    that of its receipt, cut to a multiple of :data:`ALIKE`: see :func:`ids_alike`. The time in
    front keeps a store's unique index growing at its end.

    Args:
        happened_at: The time that the content itself tells, in microseconds since 1970.
        received_at: When it was received, in microseconds since 1970.
        canonical: The content.
    """
    if happened_at is None:
        happened_at = received_at - received_at % ALIKE
    millis = min(max(happened_at // 1000, 0), _MAX_MILLIS)
    digest = int.from_bytes(hashlib.sha256(canonical).digest()[:10])
    value = millis << 80 | digest
    value = value & ~(0xF << 76) | 0x8 << 76  # version 8
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant of RFC 9562
    return str(uuid.UUID(int=value))


def ids_alike(event_id: str, received_at: int) -> tuple[str, ...]:
    """Return the ids that equal content may have which was received shortly before or after.

    Two receipts within :data:`ALIKE` of each other lie in the same slot of that length, and their
    ids are equal, or in neighbouring slots, and their ids differ by the time in front alone. A
    store looks for those, and compares the times of receipt.

    Args:
        event_id: An event's id.
        received_at: When it was received, in microseconds since 1970.

    Returns:
        Two ids; none, where the id is not one of content without a time.
    """
    start = received_at - received_at % ALIKE
    if event_id[:13] != _front(start) or len(event_id) != _LENGTH or event_id[14] != "8":
        return ()
    return _front(start - ALIKE) + event_id[13:], _front(start + ALIKE) + event_id[13:]


_LENGTH: Final = 36


def _front(moment: int) -> str:
    """Return the time in front of an id, as it is written."""
    digits = f"{min(max(moment // 1000, 0), _MAX_MILLIS):012x}"
    return f"{digits[:8]}-{digits[8:]}"
