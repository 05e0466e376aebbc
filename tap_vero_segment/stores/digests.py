"""What tells one dead letter from another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tap_vero_segment.inputs.ids import ALIKE

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import DeadLetter


def digest_of(letter: DeadLetter) -> bytes:
    """Return 32 bytes that only the same body has that came in by the same input, at about a time.

    As with ids, the time is that of receipt, cut to a multiple of :data:`ALIKE`.
    """
    return digests_alike(letter)[1]


def digests_alike(letter: DeadLetter) -> tuple[bytes, bytes, bytes]:
    """Return the digest, between those of the same body received shortly before and after."""
    content = hashlib.sha256(b"%b\0%b" % (letter.input.encode(), letter.body)).digest()
    slot = letter.received_at // ALIKE

    def digest(number: int) -> bytes:
        return hashlib.sha256(b"%d\0%b" % (number, content)).digest()

    return digest(slot - 1), digest(slot), digest(slot + 1)
