"""The track call: the one model of an event that every room of this project shares."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec


class TrackCall(
    msgspec.Struct,
    rename="camel",
    omit_defaults=True,
    kw_only=True,
    gc=False,
    tag_field="type",
    tag="track",
):
    """A Segment Track call, as far as this project keeps it; its JSON has ``"type": "track"``.

    All times are fixed-width UTC text (see :mod:`tap_vero_segment.times`).

    Attributes:
        message_id: The event's id: unique, at most 100 characters in Segment.
        event: The event's name, such as ``Email Sent``.
        user_id: The user's id, as text.
        anonymous_id: What identifies the user where there is no ``user_id``.
        timestamp: When the event happened. It can lie in the past or future: never a bookmark.
        original_timestamp: The time as the sender had it.
        sent_at: When the sender sent it.
        received_at: When the first server received it.
        context: The recipient's address, IP and user agent, and what else the sender put there.
        properties: What the event is about.
        loaded_at: When it became readable at the source; set by the store or archive that has it.
    """

    message_id: str
    event: str
    user_id: str | None = None
    anonymous_id: str | None = None
    timestamp: str
    original_timestamp: str | None = None
    sent_at: str | None = None
    received_at: str
    context: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    loaded_at: str | None = None


encode: Final = msgspec.json.Encoder().encode
"""Write a track call as JSON, one line without its line end."""
_decoder: Final = msgspec.json.Decoder(TrackCall)


def decode(line: bytes) -> TrackCall:
    """Read a track call from JSON.

    Raises:
        msgspec.DecodeError: It is no JSON, or has not the shape of a track call.
        UnicodeDecodeError: It is not UTF-8.
    """
    return _decoder.decode(line)


_LOADED_AT: Final = re.compile(rb',"loadedAt":"([^"]+)"}\Z')


def without_loaded_at(line: bytes) -> tuple[bytes, str]:
    """Undo :func:`with_loaded_at`; return the encoded track call and its ``loadedAt``.

    Raises:
        ValueError: It was not made by that function.
    """
    found = _LOADED_AT.search(line, len(line) - 64)
    if found is None:
        msg = "a track call without loadedAt at its end"
        raise ValueError(msg)
    return line[: found.start()] + b"}", found[1].decode()


def with_loaded_at(call: bytes, loaded_at: str) -> bytes:
    """Return an encoded track call that has no ``loadedAt`` with one, without decoding it."""
    return b'%b,"loadedAt":"%b"}' % (call[:-1], loaded_at.encode())
