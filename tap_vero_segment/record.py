"""A track call's columns: the step from a track call to a record, and the step back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.collection import COLLECTIONS, COMMON_COLUMNS, EMAIL_COLUMNS, Collection

if TYPE_CHECKING:
    from tap_vero_segment.track import TrackCall

Record = dict[str, Any]
Fields = dict[str, Any]
"""The fields of a track call as its JSON has them: ``messageId``, ``userId`` and so on."""

_COMMON: Final = tuple(column.name for column in COMMON_COLUMNS)
_NO_PROPERTIES: Final = frozenset(_COMMON) - {"context"}  # which is no object, where it is left
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
            email = take_text(rest, "email")
            if rest:
                context["traits"] = rest
            else:
                del context["traits"]
        ip = take_text(context, "ip")
        user_agent = take_text(context, "userAgent")
        if user_agent is None:
            user_agent = take_text(context, "user_agent")
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
        record[name] = take_text(properties, name)
    record["properties"] = properties or None
    return record


def to_fields(record: Record) -> Fields:
    """Return the track call that a record was made of: the inverse of :func:`to_record`.

    It says nothing of when it was sent, received and loaded, as it is about to be sent anew. Of a
    record that is not quite of that shape, every column that is none of the common ones is a
    property.
    """
    rest = {name: value for name, value in record.items() if value is not None}
    context = take_object(rest, "context")
    properties = take_object(rest, "properties")
    if "context_traits_email" in rest:
        traits = context.get("traits")
        email = {"email": rest["context_traits_email"]}
        context["traits"] = traits | email if isinstance(traits, dict) else email
    if "context_ip" in rest:
        context["ip"] = rest["context_ip"]
    if "context_user_agent" in rest:
        # Where one spelling is there already, as no text, the column came from the other one.
        key = "user_agent" if "userAgent" in context else "userAgent"
        context[key] = rest["context_user_agent"]
    properties.update((name, value) for name, value in rest.items() if name not in _NO_PROPERTIES)
    fields = {
        "type": "track",
        "messageId": rest.get("id"),
        "event": rest.get("event_text"),
        "userId": rest.get("user_id"),
        "anonymousId": rest.get("anonymous_id"),
        "timestamp": rest.get("timestamp"),
        "originalTimestamp": rest.get("original_timestamp"),
        "context": context or None,
        "properties": properties or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


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


def take_text(holder: dict[str, Any], key: str) -> str | None:
    """Move a key out of a dictionary; what a text column cannot hold stays there."""
    value = holder.get(key)
    text = as_text(value)
    if text is not None or (value is None and key in holder):
        del holder[key]
    return text


def take_object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    """Move an object out of a dictionary, as a copy; what is none stays there."""
    return dict(holder.pop(key)) if isinstance(holder.get(key), dict) else {}
