"""What the live page's list tells of an event, in a line."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tap_vero_segment.collection import BY_EVENT

SHOWN: Final = 120
"""Characters of a value; what is longer is cut, and is whole in the event itself."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event in the list.

    Attributes:
        at: Its ``loadedAt``, which names it.
        event: The event's name.
        collection: The slug of its collection.
        who: The recipient.
        what: The campaign, or what else it is about.
    """

    at: str
    event: str
    collection: str
    who: str
    what: str


def entry_of(line: bytes) -> Entry:
    """Return what is told of an event.

    Args:
        line: The track call with ``loadedAt``, as a store returns it.
    """
    call = msgspec.json.decode(line)
    properties = _object(call.get("properties"))
    traits = _object(_object(call.get("context")).get("traits"))
    event = call["event"]
    return Entry(
        call["loadedAt"],
        event,
        BY_EVENT[event].stream,
        _first(traits.get("email"), call.get("userId"), call.get("anonymousId")),
        _first(properties.get("campaign_name"), properties.get("email_subject")),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(*values: Any) -> str:
    """Return the first of some values that says anything, as short text."""
    for value in values:
        text = value if isinstance(value, str) else ""
        text = " ".join(text.split())
        if text:
            return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return ""
