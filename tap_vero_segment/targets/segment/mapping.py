"""Records of any stream that has events: from a record to a track call.

The streams of ``tap-vero-segment`` go back to the track calls that they were made of. Of any other
stream, the columns that name the event, the user and the time are found by their names, and all
other columns are properties.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

import msgspec
from singer_sdk.helpers._typing import is_string_type

from tap_vero_segment import times
from tap_vero_segment.collection import (
    BY_STREAM,
    COLLECTIONS,
    COMMON_COLUMNS,
    TRACKS,
    columns,
)
from tap_vero_segment.errors import UserError
from tap_vero_segment.inputs.body import clean, read_json
from tap_vero_segment.limits import MAX_CALL
from tap_vero_segment.record import take_object, take_text, to_fields
from tap_vero_segment.targets.segment.calls import DeadCall, OutgoingCall, encode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tap_vero_segment.record import Fields, Record

MAX_ID: Final = 100
"""Characters of a ``messageId`` in Segment."""

_OWN: Final = frozenset({"id", "event_text", "timestamp"})
"""The columns by which a stream of this project's tap is known."""

_COMMON: Final = frozenset(column.name for column in COMMON_COLUMNS)
OF_COLLECTIONS: Final = (
    frozenset(column.name for each in COLLECTIONS for column in columns(each)) - _COMMON
)
"""The columns that a collection's stream has, and ``tracks`` has not."""

_OBJECTS: Final = ("context", "properties")
"""Their columns that are objects."""

_sorted_encoder: Final = msgspec.json.Encoder(order="sorted")


class _Wanted(NamedTuple):
    """Something of an event that a column may hold.

    Attributes:
        what: What it is, for people.
        columns: The columns that may hold it, the first choice first.
        text: Whether a column that holds no text is none of them.
    """

    what: str
    columns: tuple[str, ...]
    text: bool = True


_EVENT: Final = _Wanted("event name", ("event_text", "event", "event_name"))
_IDENTITY: Final = _Wanted("identity", ("user_id", "anonymous_id"), text=False)
_USER_ID: Final = _IDENTITY._replace(columns=("user_id",))
_ANONYMOUS_ID: Final = _IDENTITY._replace(columns=("anonymous_id",))
_TIME: Final = _Wanted(
    "time",
    ("timestamp", "original_timestamp", "occurred_at", "created_at", "sent_at", "received_at"),
)
_ID: Final = _Wanted("id", ("message_id", "id"), text=False)


def is_tracks(stream: str, names: Collection[str]) -> bool:
    """Whether a stream is ``tracks``, whatever stream maps have named it.

    It has the common columns of the collections' streams, and none of their other columns. So has
    Segment's own table of that name. A stream of another tap that only has the name is a stream
    like any other.

    Args:
        stream: The stream's name.
        names: The names of its columns.
    """
    found = frozenset(names)
    if stream in BY_STREAM or not found >= _OWN or found & OF_COLLECTIONS:
        return False
    others = found - _COMMON
    if "loaded_at" in found and ("context" in found or not others):
        return True  # of our tap; a stream map can have added columns to it
    return stream == TRACKS and all(name.startswith(("context_", "uuid")) for name in others)


class StreamMapping:
    """The way from a stream's records to track calls.

    Args:
        stream: The stream's name.
        schema: Its JSON schema.
        key_properties: Its primary key.

    Raises:
        UserError: Its records have no event name, no identity or no time.
    """

    def __init__(
        self, stream: str, schema: Mapping[str, Any], key_properties: Sequence[str]
    ) -> None:
        found = schema["properties"]
        missing = [wanted for wanted in (_EVENT, _IDENTITY, _TIME) if not _found(found, wanted)]
        if missing:
            lacks = " and ".join(f"no {what} ({_any_of(names)})" for what, names, _ in missing)
            msg = (
                f"stream {stream}: {lacks}, so it has no events for Segment: deselect it, or name "
                "its columns so with stream_maps"
            )
            raise UserError(msg)
        self._stream = stream
        self._own = found.keys() >= _OWN
        self._key = key_properties
        self._event = _found(found, _EVENT)
        self._user_id = _found(found, _USER_ID)
        self._anonymous_id = _found(found, _ANONYMOUS_ID)
        self._time = _found(found, _TIME)
        # Without a key, message_id will not do: of an email, all events have the same.
        self._id = [
            name
            for name in _found(found, _ID)
            if (list(key_properties) == [name] if key_properties else _plain(name) == "id")
        ]

    def read(self, record: Record) -> OutgoingCall | DeadCall:
        """Return a record's track call, be it one that can be delivered or not."""
        if self._own:
            record = _unflattened(record)
        try:
            return self._read(record)
        except UnicodeEncodeError:
            # A half of a surrogate pair, which no UTF-8 can write.
            return self._read(clean(record))

    def _read(self, record: Record) -> OutgoingCall | DeadCall:
        own = record if self._own else self._as_own(record)
        if not _is_id(own.get("id")):
            own = own | {"id": self._made_id(record)}
        fields = to_fields(own)
        problem = _settle_time(fields)
        if not fields.get("event"):
            problem = f"no {_EVENT.what}"
        elif not (fields.get("userId") or fields.get("anonymousId")):
            problem = f"no {_IDENTITY.what}"
        body = encode(fields)
        if len(body) > MAX_CALL:
            problem = f"longer than {MAX_CALL} bytes"
        call = OutgoingCall(fields["messageId"], body)
        return call if problem is None else DeadCall(call, problem)

    def _as_own(self, record: Record) -> Record:
        """Return a record of another tap in the shape that this project's own have."""
        rest = {name: value for name, value in record.items() if value is not None}
        return {
            "id": self._take_id(rest),
            "event_text": _take(rest, self._event),
            "user_id": _take(rest, self._user_id),
            "anonymous_id": _take(rest, self._anonymous_id),
            "timestamp": _take(rest, self._time),
            "context": take_object(rest, "context"),
            "properties": take_object(rest, "properties") | rest,
        }

    def _take_id(self, rest: Record) -> str | None:
        for name in self._id:
            value = rest.get(name)
            # No number, and nothing that could be an address: errors name an event by its id.
            if _is_id(value) and not value.isdecimal() and "@" not in value:
                del rest[name]
                return value
        return None

    def _made_id(self, record: Record) -> str:
        """Make an id of the stream's name and of a record's key, or of all that it holds.

        Numbers and keys are unique in their stream only, and a key can be an address: hence a hash.
        """
        key = [record.get(name) for name in self._key]
        content = record if not key or None in key else key
        return hashlib.sha256(_sorted_encoder.encode([self._stream, content])).hexdigest()


def _unflattened(record: Record) -> Record:
    """Return a record of ours with the objects that flattening has turned into JSON text."""
    objects = {}
    for name in _OBJECTS:
        text = record.get(name)
        if isinstance(text, str):
            with suppress(ValueError, RecursionError):
                value = read_json(text.encode(errors="surrogatepass"))
                if isinstance(value, dict):
                    objects[name] = value
    return record | objects if objects else record


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def _found(columns: Mapping[str, Any], wanted: _Wanted) -> list[str]:
    """Return a schema's columns that may hold what is wanted, the first choice first."""
    return [
        name
        for choice in wanted.columns
        for name, schema in columns.items()
        if _plain(name) == _plain(choice) and not (wanted.text and is_string_type(schema) is False)
    ]


def _plain(name: str) -> str:
    """Return a column's name so that userId, USER_ID and user_id are one."""
    return name.replace("_", "").lower()


def _take(rest: Record, names: Iterable[str]) -> str | None:
    """Take the first text or number that is there and not empty."""
    for name in names:
        text = take_text(rest, name)
        if text:
            return text
    return None


def _settle_time(fields: Fields) -> str | None:
    """Write a call's time in one way; return what is the matter with it, if anything is."""
    try:
        fields["timestamp"] = times.canonical(fields["timestamp"])
    except KeyError:
        return f"no {_TIME.what}"
    except (TypeError, ValueError):
        return "a timestamp that is no date or time"
    return None


def _any_of(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]])
