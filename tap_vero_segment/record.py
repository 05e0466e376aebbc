"""A track call's columns: the step from a track call to a record, and the step back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import asdict

from tap_vero_segment.collection import (
    COLLECTIONS,
    COMMON_COLUMNS,
    EMAIL_COLUMNS,
    PROPERTIES_COLUMN,
    SEGMENT_COLUMNS,
    Collection,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_vero_segment.track import TrackCall

Record = dict[str, Any]
Fields = dict[str, Any]
"""The fields of a track call as its JSON has them: ``messageId``, ``userId`` and so on."""

_COMMON: Final = tuple(column.name for column in COMMON_COLUMNS)
_FURTHER: Final = tuple(column.name for column in SEGMENT_COLUMNS)
COMMON_NAMES: Final = frozenset((*_COMMON, *_FURTHER))
"""The names of all columns that every stream has, or can have."""
_NO_PROPERTIES: Final = COMMON_NAMES - {"context"}  # which is no object, where it is left


def _struct(name: str, columns: Iterable[str]) -> type[msgspec.Struct]:
    """Return a class for some of a record's columns, which msgspec writes as an object."""
    return msgspec.defstruct(name, [(column, Any) for column in columns], gc=False)


_Common: Final = _struct("Common", _COMMON)
_SegmentCommon: Final = _struct("SegmentCommon", (*_COMMON, *_FURTHER))

_OWN_COLUMNS: Final = {
    collection.event: tuple(column.name for column in (*EMAIL_COLUMNS, *collection.columns))
    for collection in COLLECTIONS
}
_CHANNEL: Final = [column.name for column in EMAIL_COLUMNS].index("campaign_channel")
_OWN: Final = {
    collection.event: _struct("Own", (*_OWN_COLUMNS[collection.event], PROPERTIES_COLUMN.name))
    for collection in COLLECTIONS
}


class Row(msgspec.Struct, gc=False):
    """A record in two parts, as ``tracks`` has the first only, and neither is made twice.

    Attributes:
        common: The columns that every stream has.
        own: The other columns of its collection.
        encoded: The common columns as JSON without some of them, and which those are; None: not yet
            asked for.
    """

    common: Any
    own: Any
    encoded: tuple[frozenset[str], bytes] | None = None

    def record(self) -> Record:
        """Return the record of its collection's stream."""
        return asdict(self.common) | asdict(self.own)

    def tracks(self) -> Record:
        """Return the record of ``tracks``."""
        return asdict(self.common)


def to_row(
    call: TrackCall,
    collection: Collection,
    *,
    objects_as_text: bool = False,
    segment_columns: bool = False,
) -> Row:
    """Return a track call's columns; the call's context and properties are used up for it.

    What has no column of its own stays in ``context`` or ``properties``: nothing is dropped.

    Args:
        call: The track call.
        collection: Its collection.
        objects_as_text: Whether ``context`` and ``properties`` become text that holds their JSON.
        segment_columns: Whether the record has the further columns of Segment's warehouses.
    """
    properties = call.properties or {}
    values = []
    pop = properties.pop
    for name in _OWN_COLUMNS[collection.event]:
        value = pop(name, None)
        if value is not None and type(value) is not str:
            text = as_text(value)
            if text is None:
                properties[name] = value
            value = text
        values.append(value)
    channel = values[_CHANNEL]
    context = call.context
    email = ip = user_agent = None
    if context:
        traits = context.get("traits")
        if isinstance(traits, dict) and "email" in traits:
            email = take_text(traits, "email")
            if not traits:
                del context["traits"]
        ip = take_text(context, "ip")
        user_agent = take_text(context, "userAgent")
        if user_agent is None:
            user_agent = take_text(context, "user_agent")
        if channel is None or channel == context.get("channel"):
            channel = take_text(context, "channel")
    further = _further(call, context or {}) if segment_columns else ()
    common = (_SegmentCommon if segment_columns else _Common)(
        call.message_id,
        call.received_at,
        call.loaded_at,
        call.timestamp,
        call.original_timestamp,
        call.sent_at,
        collection.stream,
        collection.event,
        call.user_id,
        call.anonymous_id,
        email,
        ip,
        user_agent,
        channel,
        _object(context, as_text=objects_as_text),
        *further,
    )
    own = _OWN[collection.event](*values, _object(properties, as_text=objects_as_text))
    return Row(common, own)


def _further(call: TrackCall, context: Fields) -> list[str | None]:
    """Return the values of the further columns, taken out of the context."""
    values = [call.loaded_at]
    for holder in ("library", "integration"):
        fields = context.get(holder)
        if isinstance(fields, dict):
            values += [take_text(fields, "name"), take_text(fields, "version")]
            if not fields:
                del context[holder]
        else:
            values += [None, None]
    return values


def _object(value: dict[str, Any] | None, *, as_text: bool) -> dict[str, Any] | str | None:
    """Return what a column of objects holds."""
    if not value:
        return None
    return msgspec.json.encode(value).decode() if as_text else value


def to_record(call: TrackCall, collection: Collection) -> Record:
    """Return a track call as a record of its collection's stream; the call is not changed."""
    own = msgspec.structs.replace(
        call, context=_copy(call.context), properties=_copy(call.properties)
    )
    return to_row(own, collection).record()


def _copy(fields: Fields | None) -> Fields | None:
    if fields is None:
        return None
    return {
        name: dict(value) if isinstance(value, dict) else value for name, value in fields.items()
    }


def to_fields(record: Record) -> Fields:
    """Return the track call that a record was made of: the inverse of :func:`to_record`.

    It says nothing of when it was sent, received and loaded, as it is about to be sent anew. Of a
    record that is not quite of that shape, every column that is none of the common ones is a
    property.
    """
    rest = {name: value for name, value in record.items() if value is not None}
    context = _take_object_or_text(rest, "context")
    properties = _take_object_or_text(rest, "properties")
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
    channel = rest.get("context_channel")
    if channel is not None and channel != rest.get("campaign_channel"):
        context["channel"] = channel
    for name in _FURTHER[1:]:
        if name in rest:
            _, holder, key = name.split("_")
            fields = context.get(holder)
            own = {key: rest[name]}
            context[holder] = fields | own if isinstance(fields, dict) else own
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
    fields = {name: value for name, value in fields.items() if value is not None}
    if record.get("original_timestamp", "") is None:
        # Where the call says nothing of it, a Tracking API takes timestamp for it.
        fields["originalTimestamp"] = None
    return fields


def _take_object_or_text(record: Record, column: str) -> dict[str, Any]:
    """Move an object out of a record, where text can hold it: see :func:`to_row`."""
    value = record.get(column)
    if isinstance(value, str):
        try:
            found = msgspec.json.decode(value)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            found = None
        if isinstance(found, dict):
            del record[column]
            return found
    return take_object(record, column)


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
