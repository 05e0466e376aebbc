"""Track calls on their way out: encoded, and cut into batches that Segment takes.

Its limits are documented at segment.com/docs/connections/sources/catalog/libraries/server/http-api.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tap_vero_segment.limits import MAX_CALLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_BATCH: Final = 500_000
"""Bytes of a batch, unzipped: Segment's 500 KB, if a kilobyte is the smaller kind."""

_HEAD: Final = b'{"batch":['
_TAIL: Final = b"]}"
_EMPTY: Final = len(_HEAD + _TAIL)

# Records of batch files have their numbers as decimals.
encode: Final = msgspec.json.Encoder(decimal_format="number").encode
"""Write a call's fields as JSON."""


class OutgoingCall(NamedTuple):
    """A track call that is to be sent.

    Attributes:
        id: Its ``messageId``.
        body: It, as JSON.
    """

    id: str
    body: bytes


class DeadCall(NamedTuple):
    """A track call that can never be delivered.

    Attributes:
        call: The call.
        reason: Why that is so.
    """

    call: OutgoingCall
    reason: str


def batch_body(calls: Iterable[OutgoingCall]) -> bytes:
    """Return the body of a request that delivers calls."""
    return _HEAD + b",".join([call.body for call in calls]) + _TAIL


def batches(calls: Sequence[OutgoingCall]) -> Iterator[Sequence[OutgoingCall]]:
    """Cut calls, none of them longer than :data:`MAX_CALL`, into as few batches as can be."""
    start, size = 0, _EMPTY
    for index, call in enumerate(calls):
        length = len(call.body) + 1  # the comma
        if index - start == MAX_CALLS or size + length > MAX_BATCH:
            yield calls[start:index]
            start, size = index, _EMPTY
        size += length
    if start < len(calls):
        yield calls[start:]
