"""Ids for what comes without one: the same for the same content, and in the order of time."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any, Final

import msgspec

_MAX_MILLIS: Final = 2**48 - 1
_sorted_encoder: Final = msgspec.json.Encoder(order="sorted")


def canonical_json(value: Any) -> bytes:
    """Write JSON so that the order of keys and its white space make no difference."""
    try:
        return _sorted_encoder.encode(value)
    except UnicodeEncodeError:
        # A half of a surrogate pair: the standard library escapes it.
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def content_id(happened_at: int | None, canonical: bytes) -> str:
    """Return an RFC 9562 UUID of version 8: the time in milliseconds, then the SHA-256.

    Equal content has equal ids, whenever it comes: what has no time has a zero there. The time in
    front keeps a store's unique index growing at its end.

    Args:
        happened_at: The time that the content itself tells, in microseconds since 1970.
        canonical: The content.
    """
    millis = min(max((happened_at or 0) // 1000, 0), _MAX_MILLIS)
    digest = int.from_bytes(hashlib.sha256(canonical).digest()[:10])
    value = millis << 80 | digest
    value = value & ~(0xF << 76) | 0x8 << 76  # version 8
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant of RFC 9562
    return str(uuid.UUID(int=value))
