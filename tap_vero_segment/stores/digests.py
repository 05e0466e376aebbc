"""What tells one dead letter from another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import DeadLetter


def digest_of(letter: DeadLetter) -> bytes:
    """Return 32 bytes that only the same body has that came in by the same input."""
    return hashlib.sha256(b"%b\0%b" % (letter.input.encode(), letter.body)).digest()
