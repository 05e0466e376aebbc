"""Webhooks as others have kept them: a record of a file or table, back to what Vero posted.

A record is the payload itself, a wrapper around it, or what a table makes of it:

- Stitch flattens a payload into columns (``user__id``), adds its own (``_sdc_received_at``), and
  splits one whose type changed (``bounce_code__bi``): stitchdata.com/docs, "Nested data
  structures", "Reserved keywords".
- Snowplow's Vero adapter takes the ``type`` out, writes times as text and ``_tags`` as ``tags``;
  its tables have columns such as ``campaign.trigger_event``: the schemas and tables of
  ``com.getvero`` in github.com/snowplow/iglu-central.
- Handlers of one's own mostly have a table with ``user_id``, ``campaign_name`` and the like.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.collection import BY_VERO_TYPE
from tap_vero_segment.inputs.body import UnmappableError, read_json, read_object

if TYPE_CHECKING:
    from collections.abc import Sequence

Fields = dict[str, Any]


class Wrapping(NamedTuple):
    """What the user says of records.

    Attributes:
        body_field: The field that holds the payload; None: the first of :data:`_BODIES`.
        received_field: The field that holds the time of receipt; None: the first of a shape's own.
        received_at: When a payload was received that tells no time and has none beside it, in
            microseconds since 1970; None: such a payload cannot be dated.
    """

    body_field: str | None = None
    received_field: str | None = None
    received_at: int | None = None


class Kept(NamedTuple):
    """What a record holds.

    Attributes:
        fields: Vero's payload, or a Segment call.
        body: The payload as text, where it was kept so.
        received_at: When it was received, in microseconds since 1970; None: that is not told.
        rebuilt: What the payload was put together from again, so that it may differ from the one
            that was posted: ``stitch``, ``snowplow`` or ``table``; empty: it is as it was posted.
    """

    fields: Fields
    body: bytes | None
    received_at: int | None
    rebuilt: str


_BODIES: Final = ("body", "payload", "data")
_RECEIVED: Final = ("received_at", "created_at", "timestamp")
_STITCH_RECEIVED: Final = ("_sdc_received_at", "_sdc_batched_at")
_SNOWPLOW_RECEIVED: Final = ("collector_tstamp", "root_tstamp")

SEGMENT_TYPES: Final = frozenset({"track", "identify", "page", "screen", "group", "alias"})
"""The types of Segment's calls, of which an archive holds all."""
_OBJECTS: Final = frozenset({"user", "campaign", "event", "changes"})
"""The objects that payloads have."""

_SEPARATOR: Final = re.compile(r"__|\.")
_STITCH: Final = re.compile("_*sdc_")
_SPLIT_BY_TYPE: Final = frozenset({"st", "it", "bi", "bo", "do", "de"})
"""What Stitch puts behind a column's name once values of another type come."""

_SNOWPLOW_COLUMN: Final = re.compile(
    r"(?:unstruct_event|contexts|derived_contexts)(?:_com_getvero_([a-z_]+?)(?:_\d+)+)?"
)
_SNOWPLOW_SCHEMA: Final = re.compile(r"iglu:com\.getvero/([a-z_]+)/")
_SNOWPLOW_TABLE: Final = re.compile(
    "(schema_(vendor|name|format|version)|root_id|root_tstamp|ref_)"
)
"""The columns that Snowplow adds to its tables."""
_SNOWPLOW_TYPES: Final = {"created": "user_created", "updated": "user_updated"}

_FLAT: Final[dict[str, tuple[str, str]]] = {
    "user_id": ("user", "id"),
    "user_email": ("user", "email"),
    "email": ("user", "email"),
    **{
        f"campaign_{name}": ("campaign", name)
        for name in (
            *("id", "type", "name", "subject", "permalink"),
            *("variation", "group", "channel", "locale"),
        )
    },
    **{
        name: ("campaign", name.removeprefix("campaign_"))
        for each in ("tags", "sent_to", "series_title", "template", "trigger_event")
        for name in (each, f"campaign_{each}")
    },
}
"""Where the columns of a handler's own table belong."""
_FLAT_MARKS: Final = frozenset(_FLAT) - {"email", "tags", "template"}
_HAPPENED: Final = "event_timestamp"
_TIMELESS: Final = frozenset({"converted", "resubscribed", "user_created", "user_updated"})
"""The types whose payloads tell no time: a handler's table has that of their receipt."""

_NUMBERS: Final = (("user", "id"), ("campaign", "id"), ("bounce_code",), ("id",))
"""The fields that Vero's documentation shows as numbers, which a table of text cannot tell."""
_WHOLE: Final = re.compile(r"(0|-?[1-9]\d{0,17})(?:\.0)?")

_ZONE: Final = re.compile(r"\s*(?:UTC|Z)$|\s+(?=[+-]\d\d:?\d\d$)")
_PLAIN_NUMBER: Final = re.compile(r"\d{9,}(\.\d+)?")
_MAX_NESTED: Final = 5
"""Wrappers around wrappers: a queue's around a proxy's around the body."""


def unwrap(record: Fields, wrapping: Wrapping, *, exact: bool = True) -> Kept | None:
    """Find Vero's payload or Segment's call in a record.

    Args:
        record: A JSON object, or a table's row.
        wrapping: What the user says of it.
        exact: Whether objects in it are as they were posted; a table's are not.

    Returns:
        What it holds; None: it is a row of Snowplow's that has no event of Vero's.

    Raises:
        ValueError: It holds neither, or the time of receipt cannot be read; the message says so,
            and repeats no value.
    """
    fields = record
    if not any(letter.islower() for name in fields for letter in name):
        fields = {name.lower(): value for name, value in fields.items()}  # as Snowflake has them
    if wrapping.body_field is not None:
        name = _name_in(fields, wrapping.body_field)
        if fields.get(name) is None:
            msg = "no field with the name given by --body-field"
            raise UnmappableError(msg)
        inner = _unwrap_value(fields[name], Wrapping(), _MAX_NESTED, exact=exact)
        return inner and _received(inner, fields, wrapping, (*_RECEIVED, *_STITCH_RECEIVED))
    return _unwrap(fields, wrapping, _MAX_NESTED, exact=exact)


def _unwrap(  # noqa: C901  # a step for each kind of record
    fields: Fields, wrapping: Wrapping, levels: int, *, exact: bool
) -> Kept | None:
    found = _snowplow(fields)
    if found is not None:
        kept = next((kept for kept in found if kept is not None), None)
        return kept and _received(kept, fields, wrapping, (*_SNOWPLOW_RECEIVED, *_RECEIVED))
    stitch = any(map(_STITCH.match, fields))
    fault: ValueError | None = None
    for name in _BODIES:
        value = fields.get(name)
        if levels == 0 or not _may_hold(value):
            continue
        try:
            inner = _unwrap_value(value, Wrapping(), levels - 1, exact=exact and not stitch)
        except ValueError as error:
            fault = fault or error
            continue
        if inner is not None and _is_inner(inner, fields):
            return _received(inner, fields, wrapping, (*_STITCH_RECEIVED, *_RECEIVED))
    if fields.get("type") in SEGMENT_TYPES:
        return _received(Kept(fields, None, None, ""), fields, wrapping, ())
    nested = any(isinstance(fields.get(name), dict) for name in _OBJECTS)
    if not nested and any(len(path) > 1 for path in map(_path, fields)):
        return _received(
            _of_columns(fields, None), fields, wrapping, (*_STITCH_RECEIVED, *_RECEIVED)
        )
    if not nested and fields.keys() & _FLAT_MARKS:
        return _of_flat(fields, wrapping)
    if not isinstance(fields.get("type"), str):
        raise fault or UnmappableError(
            "no Vero payload in it: name the field that holds the payload by --body-field"
        )
    if fault is not None and fields["type"] not in BY_VERO_TYPE:
        raise fault
    return _of_payload(fields, wrapping, exact=exact and not stitch)


def _may_hold(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and len(value) > 1)


def _is_inner(inner: Kept, outer: Fields) -> bool:
    """Whether a field's content is what counts: profiles can have such a field as well."""
    known = BY_VERO_TYPE.keys() | SEGMENT_TYPES
    return inner.fields.get("type") in known or outer.get("type") not in known


def _unwrap_value(value: Any, wrapping: Wrapping, levels: int, *, exact: bool) -> Kept | None:
    """Find the payload in a field, which may be an object or text that holds one."""
    if isinstance(value, dict):
        return _unwrap(value, wrapping, levels, exact=exact)
    if not isinstance(value, str):
        msg = "the field that holds the payload is neither an object nor text"
        raise UnmappableError(msg)
    body = value.encode(errors="surrogatepass")
    if value.lstrip().startswith('"'):  # JSON that was kept as JSON once more
        with suppress(ValueError):
            body = str(read_json(body)).encode(errors="surrogatepass")
    fields = read_object(body)
    kept = _unwrap(fields, wrapping, levels, exact=True)
    return kept._replace(body=body) if kept is not None and kept.fields is fields else kept


def _of_payload(fields: Fields, wrapping: Wrapping, *, exact: bool) -> Kept:
    """Return a payload that is the record itself, perhaps with the time of receipt beside."""
    names = [*_STITCH_RECEIVED, "received_at"]
    kept = _received(Kept(fields, None, None, ""), fields, wrapping, names)
    own = {name: value for name, value in fields.items() if not _STITCH.match(name)}
    if kept.received_at is not None:
        own.pop(_name_in(fields, wrapping.received_field or "received_at"), None)
    if exact:
        return kept if len(own) == len(fields) else kept._replace(fields=own)
    text = _is_text(own)
    for name in _OBJECTS & own.keys():
        own[name] = _parsed(own[name])
    shape = _shape(fields)
    return kept._replace(fields=_as_posted(_without_nulls(own), text=text), rebuilt=shape)


# Tables


def _path(column: str) -> tuple[str, ...]:
    """Return where a column's value was in the payload; of one part: at its top."""
    parts = tuple(_SEPARATOR.split(column))
    if parts[0] == "data" and len(parts) > 1:
        # With two parts it may be at the top, too, but it came from a nested payload.
        return ("", *parts[1:])
    return parts if parts[0] in _OBJECTS else (column,)


def _of_columns(fields: Fields, vero_type: str | None) -> Kept:
    """Put a flattened payload together again."""
    stitch = any(map(_STITCH.match, fields))
    payload: Fields = {}
    for column, value in fields.items():
        if value is None or _STITCH.match(column) or _SNOWPLOW_TABLE.match(column):
            continue
        path = [part for part in _path(column) if part]
        if stitch and column.rpartition("__")[2] in _SPLIT_BY_TYPE:
            path = path[:-1] if len(path) > 1 else [path[0].rpartition("__")[0]]
        holder = payload
        for name in path[:-1]:
            inner = holder.setdefault(name, {})
            holder = inner if isinstance(inner, dict) else {}
        holder.setdefault(path[-1], value)
    for name in _OBJECTS & payload.keys():
        payload[name] = _parsed(payload[name])
    event = payload.get("event")
    if isinstance(event, dict) and "data" in event:
        event["data"] = _parsed(event["data"])
    payload["type"] = vero_type or payload.get("type") or _type_by_time(payload)
    for name in (*_RECEIVED, *_SNOWPLOW_RECEIVED):
        if payload["type"] not in {"user_created", "user_updated"} or name in _SNOWPLOW_RECEIVED:
            payload.pop(name, None)
    return Kept(_as_posted(payload, text=_is_text(fields)), None, None, _shape(fields))


def _of_flat(fields: Fields, wrapping: Wrapping) -> Kept:
    """Put the row of a handler's own table together again."""
    payload: Fields = {}
    for column, value in fields.items():
        place = _FLAT.get(column)
        if value is None or column == "id":  # the table's own
            continue
        if place is None:
            payload[column] = value
        else:
            payload.setdefault(place[0], {}).setdefault(place[1], value)
    vero_type = payload["type"] = payload.get("type") or _type_by_time(payload)
    happened = payload.pop(_HAPPENED, None)
    names: list[str] = [name for name in _RECEIVED if name in payload]
    if vero_type in _TIMELESS:
        names.append(_HAPPENED)
    elif happened is not None:
        payload.setdefault(f"{vero_type}_at", happened)
    kept = _received(Kept(payload, None, None, "table"), fields, wrapping, names)
    for name in _RECEIVED:
        payload.pop(name, None)
    return kept._replace(fields=_as_posted(payload, text=_is_text(fields)))


def _shape(fields: Fields) -> str:
    return "stitch" if any(map(_STITCH.match, fields)) else "table"


def _is_text(fields: Fields) -> bool:
    """Whether a row comes from where all is text, as in CSV."""
    return all(isinstance(value, str) or value is None for value in fields.values())


def _type_by_time(payload: Fields) -> str:
    for vero_type in BY_VERO_TYPE:
        if f"{vero_type}_at" in payload:
            return vero_type
    msg = "no column that tells the type of the event"
    raise UnmappableError(msg)


def _parsed(value: Any) -> Any:
    """Read an object or array that a table holds as text."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        with suppress(ValueError, RecursionError):
            return read_json(value.encode(errors="surrogatepass"))
    return value


def _as_posted(payload: Fields, *, text: bool = False) -> Fields:
    """Undo what tables do to a payload's names, times and numbers, as far as that is known.

    Args:
        payload: A payload that was put together; it is changed.
        text: Whether its numbers have become text.
    """
    campaign = payload.get("campaign")
    if isinstance(campaign, dict):
        for name in ("trigger_event", "triggerevent"):
            if name in campaign:
                campaign.setdefault("trigger-event", campaign.pop(name))
    _set_seconds(payload, f"{payload.get('type')}_at")
    if isinstance(payload.get("event"), dict):
        _set_seconds(payload["event"], "triggered_at")
    for *holders, name in _NUMBERS:
        holder = payload.get(holders[0]) if holders else payload
        if not isinstance(holder, dict):
            continue
        value = holder.get(name)
        if isinstance(value, float) and value.is_integer():
            holder[name] = int(value)  # a column of numbers that lacked some
        elif text and isinstance(value, str) and (whole := _WHOLE.fullmatch(value)):
            holder[name] = int(whole[1])
    return {name: value for name, value in payload.items() if value not in (None, {})}


def _set_seconds(holder: Fields, name: str) -> None:
    """Write a time as Vero does: in whole seconds since 1970, where it is one."""
    moment = micros_of(holder.get(name))
    if moment is not None:
        whole = moment % times.SECOND == 0
        holder[name] = moment // times.SECOND if whole else times.to_text(moment)


# Snowplow


def _snowplow(fields: Fields) -> list[Kept | None] | None:
    """Return the events of Vero's in a record of Snowplow's; None: it is no such record."""
    schema = fields.get("schema")
    if isinstance(schema, str) and schema.startswith("iglu:"):
        return [_self_describing(fields)]
    if fields.keys() & {"schema_vendor", "root_id", "root_tstamp"}:
        return [_snowplow_row(fields)]
    columns = [
        (found[1], value)
        for name, value in fields.items()
        if (found := _SNOWPLOW_COLUMN.fullmatch(name))
    ]
    if not columns and not fields.keys() & {"collector_tstamp"}:
        return None
    kept: list[Kept | None] = []
    for name, value in columns:
        content = _parsed(value)
        for each in content if isinstance(content, list) else [content]:
            if isinstance(each, dict) and name is None:
                kept.append(_self_describing(each))
            elif isinstance(each, dict):
                kept.append(_of_snowplow(each, name))
    return kept


def _self_describing(fields: Fields, levels: int = _MAX_NESTED) -> Kept | None:
    """Return the event in a self-describing JSON, which may hold another one, or several."""
    content = _parsed(fields.get("data"))
    schema = _SNOWPLOW_SCHEMA.match(str(fields.get("schema")))
    if schema and isinstance(content, dict):
        return _of_snowplow(content, schema[1])
    for each in content if isinstance(content, list) else [content]:
        if isinstance(each, dict) and "schema" in each and levels:
            kept = _self_describing(each, levels - 1)
            if kept is not None:
                return kept
    return None


def _snowplow_row(fields: Fields) -> Kept | None:
    """Return the event in a row of one of Snowplow's tables."""
    if fields.get("schema_vendor", "com.getvero") != "com.getvero":
        return None
    name = fields.get("schema_name")
    kept = _of_columns(fields, _vero_type(name) if isinstance(name, str) else None)
    return kept._replace(fields=_with_tags(kept.fields), rebuilt="snowplow")


def _of_snowplow(content: Fields, name: str) -> Kept:
    payload = {"type": _vero_type(name), **_without_nulls(content)}
    return Kept(_with_tags(_as_posted(payload)), None, None, "snowplow")


def _vero_type(name: str) -> str:
    return _SNOWPLOW_TYPES.get(name, name)


def _with_tags(payload: Fields) -> Fields:
    changes = payload.get("changes")
    if isinstance(changes, dict) and "tags" in changes:
        changes.setdefault("_tags", changes.pop("tags"))
    return payload


def _without_nulls(value: Any) -> Any:
    """Return an object without the fields that a typed column has and the payload had not."""
    if isinstance(value, dict):
        return {
            name: _without_nulls(each)
            for name, each in value.items()
            if each is not None and each != {}
        }
    return value


# Times of receipt


def _received(kept: Kept, fields: Fields, wrapping: Wrapping, names: Sequence[str]) -> Kept:
    """Add the time of receipt that a record tells beside what it holds.

    Raises:
        UnmappableError: It cannot be read.
    """
    if wrapping.received_field is not None:
        names = [_name_in(fields, wrapping.received_field)]
    elif kept.received_at is not None:
        return kept
    unread = False
    for name in names:
        value = fields.get(name)
        if value is None or value == "":
            continue
        moment = micros_of(value)
        if moment is not None:
            if kept.rebuilt and wrapping.received_field is not None:
                kept.fields.pop(name, None)
            return kept._replace(received_at=moment)
        unread = True
    if unread:
        msg = "the time of receipt cannot be read: name its field by --received-field"
        if wrapping.received_field is not None:
            msg = "the field given by --received-field holds no time in ISO 8601 or since 1970"
        raise UnmappableError(msg)
    return kept


def _name_in(fields: Fields, name: str) -> str:
    """Return a field's name as a record has it, whose names may be in small letters."""
    return name if name in fields else name.lower()


def micros_of(value: Any) -> int | None:
    """Read a time as tables and logs write it, in microseconds since 1970; None: it is no time.

    Numbers count since 1970: seconds, or thousandths, millionths or billionths of them, by how
    large they are. Text is ISO 8601, also with a blank before its zone; without a zone it is UTC.
    """
    if isinstance(value, str):
        text = value.strip()
        if _PLAIN_NUMBER.fullmatch(text):
            value = float(text) if "." in text else int(text)
        else:
            zoned = _ZONE.sub(lambda found: "Z" if found[0].strip() else "", text)
            with suppress(ValueError):
                return times.from_text(zoned)
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    scale = times.SECOND
    for _ in range(3):
        if abs(value) * scale < _FAR:
            break
        scale //= 1000
    try:
        moment = value * scale if scale else value // 1000
        moment = round(moment)
    except (OverflowError, ValueError):
        return None
    return moment if times.EARLIEST <= moment <= times.LATEST else None


_FAR: Final = 10**17
"""Microseconds since 1970: the year 5138. What would be later counts smaller parts of a second."""
