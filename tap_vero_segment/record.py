"""A track call's columns: the step from a track call to a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.collection import COLLECTIONS, COMMON_COLUMNS, EMAIL_COLUMNS, Collection

if TYPE_CHECKING:
    from tap_vero_segment.track import TrackCall

Record = dict[str, Any]

_COMMON: Final = tuple(column.name for column in COMMON_COLUMNS)
_PROPERTY_COLUMNS: Final = {
    collection: tuple(column.name for column in (*EMAIL_COLUMNS, *collection.columns))
    for collection in COLLECTIONS
}


def to_record(call: TrackCall, collection: Collection) -> Record:
    """Return a track call as a record of its collection's stream.

    What has no column of its own stays in ``context`` or ``properties``: nothing is dropped.
    """
    context = call.context
    email = ip = user_agent = None
    if context:
        context = dict(context)
        traits = context.get("traits")
        if isinstance(traits, dict) and "email" in traits:
            rest = dict(traits)
            email = _take_text(rest, "email")
            if rest:
                context["traits"] = rest
            else:
                del context["traits"]
        ip = _take_text(context, "ip")
        user_agent = _take_text(context, "userAgent")
        if user_agent is None:
            user_agent = _take_text(context, "user_agent")
    record: Record = {
        "id": call.message_id,
        "received_at": call.received_at,
        "loaded_at": call.loaded_at,
        "timestamp": call.timestamp,
        "original_timestamp": call.original_timestamp,
        "sent_at": call.sent_at,
        "event": collection.stream,
        "event_text": collection.event,
        "user_id": call.user_id,
        "anonymous_id": call.anonymous_id,
        "context_traits_email": email,
        "context_ip": ip,
        "context_user_agent": user_agent,
        "context": context or None,
    }
    properties = dict(call.properties) if call.properties else {}
    for name in _PROPERTY_COLUMNS[collection]:
        record[name] = _take_text(properties, name)
    record["properties"] = properties or None
    return record


def to_tracks(record: Record) -> Record:
    """Return the ``tracks`` record of a collection's record: its common columns."""
    return {name: record[name] for name in _COMMON}


def as_text(value: Any) -> str | None:
    """Return a value as a text column holds it, or ``None`` where it is no text or number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # JSON does not tell 550 from 550.0: both mean the code "550".
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return None


def _take_text(holder: dict[str, Any], key: str) -> str | None:
    """Move a key out of a dictionary; what a text column cannot hold stays there."""
    value = holder.get(key)
    text = as_text(value)
    if text is not None or (value is None and key in holder):
        del holder[key]
    return text
