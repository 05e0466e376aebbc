"""Segment's Track calls, from whoever sends or archives them, to this project's track call.

The fields are those of segment.com/docs/connections/spec/track and, for archives, of the raw data
that Segment's storage destinations write. Vero's events can stand among many others, as some
set-ups share a write key: a call counts by its ``type`` and ``event``.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT, Collection
from tap_vero_segment.inputs.body import (
    UnmappableError,
    as_number,
    check_depth,
    clean,
    is_shallow,
    read_json,
)
from tap_vero_segment.inputs.ids import canonical_json, content_id
from tap_vero_segment.limits import MAX_DEPTH
from tap_vero_segment.record import as_text, take_text
from tap_vero_segment.track import TrackCall

DROPPED: Final = frozenset(
    {
        "type",
        "writeKey",  # a live secret
        "_metadata",
        "__segment_internal",
        "integrations",
        "projectId",
        "channel",
        "version",
    }
)
"""Fields of Segment's own, which no record keeps."""

_WRITE_KEY: Final = re.compile("[_-]*".join(["", *"writekey", ""]), re.IGNORECASE)
"""Other spellings of its name: ``write_key``, ``WriteKey``."""

EVENTS: Final = {**BY_EVENT, "Unsubscribed": BY_EVENT["Email Unsubscribed"]}
"""Collections by the event's name; the last is how Segment's email spec has it."""

_TIMES: Final = ("timestamp", "originalTimestamp", "sentAt", "receivedAt")


_NOTHING: Final = msgspec.Raw(b"null")


class _Head(msgspec.Struct, gc=False):
    """What tells whether a call is one of ours."""

    type: Any = None
    event: Any = None


class _Plain(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A call as almost all of them are: known fields only, each of its usual type."""

    type: str
    message_id: str
    received_at: str
    event: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    context: msgspec.Raw = _NOTHING
    properties: msgspec.Raw = _NOTHING
    write_key: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = msgspec.field(default=_NOTHING, name="_metadata")
    segment_internal: msgspec.Raw = msgspec.field(default=_NOTHING, name="__segment_internal")
    integrations: msgspec.Raw = _NOTHING
    project_id: msgspec.Raw = _NOTHING
    channel: msgspec.Raw = _NOTHING
    version: msgspec.Raw = _NOTHING


_head: Final = msgspec.json.Decoder(_Head)
_plain: Final = msgspec.json.Decoder(_Plain)
_object: Final = msgspec.json.Decoder(dict[str, Any] | None, float_hook=as_number)


def read_call(line: bytes) -> TrackCall | None:
    """Read a call, as an archive's line has it.

    Returns:
        The track call; None where it is none of the collections.

    Raises:
        UnmappableError: It is no JSON object, or has no ``messageId`` or no ``receivedAt``.
    """
    # Hardly a line has a backslash at all, and one byte is found sooner than six.
    if (b"\\" not in line or b"\\u0000" not in line) and is_shallow(line):
        try:
            return _from_plain(_plain.decode(line))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # the careful way finds out what is the matter, and mostly nothing is
    try:
        head = _head.decode(line)
        if _collection(head.type, head.event) is None:
            return None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return from_fields(_read_fields(line))


def is_dropped(name: str) -> bool:
    """Return whether no record keeps a call's field of a name."""
    return name in DROPPED or _WRITE_KEY.fullmatch(name) is not None


def from_fields(
    fields: dict[str, Any],
    replaced: dict[str, Any] | None = None,
    batch: dict[str, Any] | None = None,
) -> TrackCall | None:
    """Turn a call's fields into a track call, whatever types they have.

    What has no place in a track call goes to its ``context``: nothing is dropped but
    what :func:`is_dropped` names.

    Args:
        fields: The call's JSON object; it is not changed.
        replaced: What it had where it has something else now.
        batch: What its batch says beside it, already clean.

    Returns:
        The track call; None where it is none of the collections.

    Raises:
        UnmappableError: It has no ``messageId``, no ``receivedAt``, or is nested too deeply.
    """
    collection = _collection(fields.get("type"), fields.get("event"))
    if collection is None:
        return None
    for each in (fields, replaced or {}, batch or {}):
        # A call is one level deeper than the webhook it may come from.
        check_depth(each, MAX_DEPTH + 1)
    rest = clean({key: value for key, value in fields.items() if not is_dropped(key)})
    del rest["event"]
    moments = {name: _take_time(rest, name) for name in _TIMES}
    received_at = moments["receivedAt"]
    message_id = take_text(rest, "messageId")
    if not message_id:
        msg = "a call without messageId"
        raise UnmappableError(msg)
    if received_at is None:
        msg = "a call without receivedAt, or with one that is no time"
        raise UnmappableError(msg)
    user_id = take_text(rest, "userId") or None
    anonymous_id = take_text(rest, "anonymousId") or None
    properties = _take_object(rest, "properties")
    context = _take_object(rest, "context") or {}
    for each in (rest, clean(replaced or {}), batch or {}):
        for name, value in each.items():
            context[_free_name(name, context)] = value
    return TrackCall(
        message_id=message_id,
        event=collection.event,
        user_id=user_id,
        anonymous_id=anonymous_id,
        timestamp=moments["timestamp"] or moments["originalTimestamp"] or received_at,
        original_timestamp=moments["originalTimestamp"],
        sent_at=moments["sentAt"],
        received_at=received_at,
        context=context or None,
        properties=properties or None,
    )


def _free_name(name: str, taken: dict[str, Any]) -> str:
    """Return a name for a field beside others: neither of two of one name may win."""
    if name not in taken:
        return name
    numbered = (f"_{name}_{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([f"_{name}"], numbered) if each not in taken)


def from_client(
    fields: dict[str, Any], received_at: int, batch: dict[str, Any]
) -> TrackCall | None:
    """Turn a call that a client sends to the Tracking API into a track call, as Segment would.

    The client's ``timestamp`` is the original one. Where the client says when it sent the call, its
    clock's error is taken off: ``timestamp = receivedAt - (sentAt - originalTimestamp)``
    (segment.com/docs/connections/spec/common/#timestamps). A call that has an
    ``originalTimestamp`` already, be it null, has been through a server before, and keeps both.

    Args:
        fields: The call; it is not changed.
        received_at: When it was received, in microseconds since 1970.
        batch: What its batch says beside the calls and their context, already clean: ``sentAt`` is
            for a call without one, the rest goes to the call's ``context``. Empty: it came alone.

    Returns:
        The track call; None where it is none of the collections.

    Raises:
        UnmappableError: It is nested too deeply.
    """
    if _collection(fields.get("type"), fields.get("event")) is None:
        return None
    call = dict(fields)
    if call.get("sentAt") is None:
        call["sentAt"] = batch.get("sentAt")
    happened_at = _moment(call.get("timestamp"))
    if "originalTimestamp" not in call and happened_at is not None:
        call["originalTimestamp"] = call["timestamp"]
        sent = _moment(call["sentAt"])
        if sent is not None:
            skewed = received_at - (sent - happened_at)
            if times.EARLIEST <= skewed <= times.LATEST:
                call["timestamp"] = times.to_text(skewed)
    replaced = _replace(call, "receivedAt", times.to_text(received_at))
    # A batch that is sent again says another time of sending, which is no difference.
    content = fields
    if happened_at is None and "sentAt" in batch:
        content = {**fields, "sentAt": call["sentAt"]}
    replaced |= _give_id(call, content, received_at)
    rest = {name: value for name, value in batch.items() if name != "sentAt"}
    return from_fields(call, replaced, rest)


def from_webhook(fields: dict[str, Any], received_at: int) -> TrackCall | None:
    """Turn a call that Segment itself delivers into a track call.

    Args:
        fields: The call; it is not changed.
        received_at: When it was received here, in microseconds since 1970, for a call that does
            not say when Segment received it.

    Returns:
        The track call; None where it is none of the collections.

    Raises:
        UnmappableError: It is nested too deeply.
    """
    if _collection(fields.get("type"), fields.get("event")) is None:
        return None
    call = dict(fields)
    replaced: dict[str, Any] = {}
    if _moment(call.get("receivedAt")) is None:
        replaced = _replace(call, "receivedAt", times.to_text(received_at))
    replaced |= _give_id(call, fields, received_at)
    return from_fields(call, replaced)


def _give_id(call: dict[str, Any], content: dict[str, Any], received_at: int) -> dict[str, Any]:
    """Give a call without ``messageId`` one that is made from its content; return what it had.

    Any time in the content is one of its own: with another one it would be other content.
    """
    if as_text(call.get("messageId")):
        return {}
    moments = (_moment(content.get(name)) for name in _TIMES)
    own = next((moment for moment in moments if moment is not None), None)
    return _replace(call, "messageId", content_id(own, received_at, canonical_json(content)))


def _replace(call: dict[str, Any], name: str, value: str) -> dict[str, Any]:
    """Set a field; return what it was before, if it was anything."""
    before = call.get(name)
    call[name] = value
    return {} if before is None or before == "" else {name: before}


def _moment(value: Any) -> int | None:
    try:
        return times.from_text(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _collection(kind: Any, event: Any) -> Collection | None:
    """Return the collection that a call of a type and an event belongs to, if it is one of ours."""
    return EVENTS.get(event) if kind == "track" and isinstance(event, str) else None


def _from_plain(call: _Plain) -> TrackCall | None:
    """Turn a usual call into a track call; the same as :func:`from_fields` would, but quicker.

    Raises:
        ValueError: It is not so usual: a time cannot be read, say.
    """
    collection = _collection(call.type, call.event)
    if collection is None:
        return None
    received_at = times.canonical(call.received_at)
    original = call.original_timestamp
    original_timestamp = None if original is None else times.canonical(original)
    if call.timestamp is None or call.timestamp == original:
        timestamp = original_timestamp or received_at
    else:
        timestamp = times.canonical(call.timestamp)
    if not call.message_id:
        raise ValueError
    return TrackCall(
        message_id=call.message_id,
        event=collection.event,
        user_id=call.user_id or None,
        anonymous_id=call.anonymous_id or None,
        timestamp=timestamp,
        original_timestamp=original_timestamp,
        sent_at=None if call.sent_at is None else times.canonical(call.sent_at),
        received_at=received_at,
        context=_object.decode(call.context) or None,
        properties=_object.decode(call.properties) or None,
    )


def _read_fields(line: bytes) -> dict[str, Any]:
    try:
        value = read_json(line)
    except RecursionError:
        msg = "nested too deeply"
        raise UnmappableError(msg) from None
    except ValueError:
        msg = "not JSON"
        raise UnmappableError(msg) from None
    if not isinstance(value, dict):
        msg = "JSON, but not an object"
        raise UnmappableError(msg)
    return value


def _take_time(rest: dict[str, Any], name: str) -> str | None:
    """Take a time; what is none stays."""
    value = rest.get(name)
    if value is None:
        rest.pop(name, None)
        return None
    if not isinstance(value, str):
        return None
    try:
        moment = times.canonical(value)
    except ValueError:
        return None
    del rest[name]
    return moment


def _take_object(rest: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Take an object; text or the like stays."""
    value = rest.get(name)
    if value is None or isinstance(value, dict):
        rest.pop(name, None)
        return value
    return None
