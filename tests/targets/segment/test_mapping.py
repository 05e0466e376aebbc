"""What a record becomes: of this project's streams, and of any other that has events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from singer_sdk.helpers._flattening import flatten_record

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT, BY_STREAM, COLLECTIONS, columns
from tap_vero_segment.errors import UserError
from tap_vero_segment.inputs.body import clean
from tap_vero_segment.inputs.segment import from_client
from tap_vero_segment.limits import MAX_CALL
from tap_vero_segment.record import to_fields, to_record
from tap_vero_segment.tap.streams import collection_schema, tracks_schema
from tap_vero_segment.targets.segment.calls import DeadCall, OutgoingCall
from tap_vero_segment.targets.segment.mapping import StreamMapping
from tap_vero_segment.track import TrackCall
from tests.support.fuzz import fuzz, known_objects, payloads, values
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented
from tests.support.records import LOADED_AT, RECEIVED_AT, record_of

NOT_SENT = {"received_at", "loaded_at", "sent_at"}
"""The columns that are new where the event is received again."""

LATER = "2030-01-01T00:00:00.000000Z"

TEXT = {"type": ["string", "null"]}
NUMBER = {"type": ["integer", "null"]}


def sent_again(record: dict[str, Any]) -> dict[str, Any]:
    """The record that comes of it when a record's track call is received by a collector."""
    outcome = StreamMapping(
        record["event"], collection_schema(BY_STREAM[record["event"]]), ["id"]
    ).read(record)
    assert isinstance(outcome, (OutgoingCall, DeadCall))
    call = outcome.call if isinstance(outcome, DeadCall) else outcome
    fields = json.loads(call.body)
    assert not {"sentAt", "receivedAt", "loadedAt"} & fields.keys()
    again = from_client(fields, times.from_text(LATER), {})
    assert again is not None
    return to_record(again, BY_EVENT[again.event])


def same(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in NOT_SENT}


@pytest.mark.parametrize("vero_type", EMAIL_TYPES + OTHER_TYPES)
def test_a_documented_event_is_the_same_after_another_round(vero_type):
    record = record_of(json.dumps(documented(vero_type)).encode())
    again = sent_again(record)
    assert same(again) == same(record)
    assert (again["received_at"], again["loaded_at"], again["sent_at"]) == (LATER, None, None)


@pytest.mark.parametrize(
    ("vero_type", "column"),
    [
        (collection.vero_type, column.name)
        for collection in COLLECTIONS
        for column in columns(collection)
        if column.nullable and column.name not in NOT_SENT
    ],
)
def test_what_is_null_stays_null(vero_type, column):
    record = record_of(json.dumps(documented(vero_type)).encode()) | {"anonymous_id": "a"}
    if column == "context_channel":  # which repeats that one
        record["campaign_channel"] = None
    assert same(sent_again(record | {column: None})) == same(record | {column: None})


@fuzz
@given(payloads)
def test_any_flattened_event_is_the_same_after_another_round(payload):
    record = record_of(json.dumps(payload).encode())
    flattened = flatten_record(record, collection_schema(BY_STREAM[record["event"]]), max_level=2)
    assert not any(isinstance(value, dict) for value in flattened.values())
    assert same(sent_again(flattened)) == same(record)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"a": "\\ud83d"}', {"a": "\N{REPLACEMENT CHARACTER}"}),
        ('{"a": 1e999}', {"a": "1e999"}),
        ("[1]", {"properties": "[1]"}),
        ("plain", {"properties": "plain"}),
        ('{"a": \ud83d}', {"properties": '{"a": \N{REPLACEMENT CHARACTER}}'}),
        ('{"a":' * 2_000, {"properties": '{"a":' * 2_000}),
    ],
    ids=["half", "number", "list", "text", "half-text", "deep"],
)
def test_text_instead_of_properties_is_read_if_it_is_an_object(text, sent):
    record = record_of(json.dumps(documented("sent")).encode()) | {"properties": text}
    mapping = StreamMapping("email_sent", collection_schema(BY_STREAM["email_sent"]), ["id"])
    call = mapping.read(record)
    assert isinstance(call, OutgoingCall)
    assert json.loads(call.body)["properties"].items() >= sent.items()


@fuzz
@given(payloads)
def test_any_webhooks_event_is_the_same_after_another_round(payload):
    record = record_of(json.dumps(payload).encode())
    assert same(sent_again(record)) == same(record)


@fuzz
@given(
    st.sampled_from(COLLECTIONS),
    known_objects.map(clean),
    st.fixed_dictionaries(
        {"id": st.just(1)},
        optional={
            "traits": values | st.dictionaries(st.just("email"), values),
            "ip": values,
            "userAgent": values,
            "user_agent": values,
        },
    ).map(clean),
    st.sampled_from([None, RECEIVED_AT, "2015-06-22T23:37:18.000000Z"]),
)
def test_any_calls_event_is_the_same_after_another_round(
    collection, properties, context, original_timestamp
):
    call = TrackCall(
        message_id="one",
        event=collection.event,
        user_id="7",
        timestamp=RECEIVED_AT,
        original_timestamp=original_timestamp,
        received_at=RECEIVED_AT,
        loaded_at=LOADED_AT,
        context=context,
        properties=properties,
    )
    record = to_record(call, collection)
    assert same(sent_again(record)) == same(record)


def test_a_call_is_what_segment_wants_of_it():
    fields = to_fields(record_of(json.dumps(documented("opened")).encode()))
    assert fields == {
        "type": "track",
        "messageId": fields["messageId"],
        "event": "Email Opened",
        "userId": "123",
        "timestamp": "2015-06-22T23:37:18.000000Z",
        "originalTimestamp": "2015-06-22T23:37:18.000000Z",
        "context": {
            "traits": {"email": "steve@getvero.com"},
            "userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_5)",
        },
        "properties": fields["properties"],
    }
    assert fields["properties"]["campaign_id"] == "987"
    assert fields["properties"]["campaign_sent_to"] == "user@example.com"
    assert None not in fields["properties"].values()


def read(
    record: dict[str, Any],
    columns: dict[str, Any] | None = None,
    key: tuple[str, ...] = (),
    stream: str = "things",
) -> dict[str, Any]:
    """Read a record of another tap's stream; return the call's fields."""
    outcome = StreamMapping(
        stream, {"properties": columns or dict.fromkeys(record, TEXT)}, key
    ).read(record)
    assert isinstance(outcome, OutgoingCall), outcome
    fields: dict[str, Any] = json.loads(outcome.body)
    assert fields["messageId"] == outcome.id
    return fields


EVENT = {"event": "Order Completed", "user_id": "7", "timestamp": "2026-11-23T09:24:00Z"}


def test_another_taps_event_has_its_other_columns_as_properties():
    assert read(EVENT | {"id": "o-1", "total": 9.5, "lines": [{"sku": "a"}], "note": None}) == {
        "type": "track",
        "messageId": "o-1",
        "event": "Order Completed",
        "userId": "7",
        "timestamp": "2026-11-23T09:24:00.000000Z",
        "properties": {"total": 9.5, "lines": [{"sku": "a"}]},
    }


@pytest.mark.parametrize(
    ("columns", "field", "expected"),
    [
        ({"event_name": "A"}, "event", "A"),
        ({"eventName": "A"}, "event", "A"),
        ({"event": "a_b", "event_text": "A B"}, "event", "A B"),
        ({"user_id": 7}, "userId", "7"),
        ({"userId": "7"}, "userId", "7"),
        ({"USER_ID": "7"}, "userId", "7"),
        ({"anonymous_id": "x"}, "anonymousId", "x"),
        ({"anonymousId": "x"}, "anonymousId", "x"),
        ({"created_at": "2026-11-23"}, "timestamp", "2026-11-23T00:00:00.000000Z"),
        ({"createdAt": "2026-11-23"}, "timestamp", "2026-11-23T00:00:00.000000Z"),
        ({"sent_at": "2026-11-23T10:00+01:00"}, "timestamp", "2026-11-23T09:00:00.000000Z"),
        (
            {"timestamp": "2026-11-23", "created_at": "2026-11-22", "received_at": "2026-11-24"},
            "timestamp",
            "2026-11-23T00:00:00.000000Z",
        ),
    ],
    ids=str,
)
def test_columns_are_known_by_their_names(columns, field, expected):
    replaced = {"event": "event", "userId": "user_id", "anonymousId": "user_id"}.get(
        field, "timestamp"
    )
    rest = {name: value for name, value in EVENT.items() if name != replaced}
    assert read(rest | columns)[field] == expected


def test_a_column_that_has_a_meaning_but_no_use_is_a_property():
    fields = read(EVENT | {"created_at": "2026-11-22", "event_name": "x"})
    assert fields["properties"] == {"created_at": "2026-11-22", "event_name": "x"}


def test_an_empty_identity_gives_way_to_the_other():
    fields = read(EVENT | {"user_id": "", "anonymous_id": "x"})
    assert "userId" not in fields
    assert fields["anonymousId"] == "x"


def test_objects_of_properties_and_context_are_spread():
    fields = read(
        EVENT | {"properties": {"a": 1, "b": 2}, "b": 3, "context": {"library": {"name": "x"}}}
    )
    assert fields["properties"] == {"a": 1, "b": 3}
    assert fields["context"] == {"library": {"name": "x"}}


@pytest.mark.parametrize("name", ["properties", "context"])
def test_what_is_called_so_but_is_no_object_is_a_property(name):
    assert read(EVENT | {name: "text"})["properties"] == {name: "text"}
    own = record_of(json.dumps(documented("sent")).encode()) | {name: "text"}
    assert to_fields(own)["properties"][name] == "text"


def test_half_a_character_does_not_cost_the_event():
    assert read(EVENT | {"note": "cut \ud83d"})["properties"] == {"note": "cut \ufffd"}


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (["event"], "no event name (event_text, event or event_name)"),
        (["user_id"], "no identity (user_id or anonymous_id)"),
        (["timestamp"], "no time (timestamp, "),
        (list(EVENT), "no event name"),
        (list(EVENT), "no identity"),
        (list(EVENT), "no time"),
    ],
    ids=str,
)
def test_what_a_streams_schema_lacks_is_told_in_one_line(missing, told):
    columns = {name: TEXT for name in EVENT if name not in missing} | {"id": TEXT}
    with pytest.raises(UserError) as raised:
        StreamMapping("things", {"properties": columns}, ["id"])
    said = str(raised.value)
    assert said.startswith("stream things: ")
    assert told in said
    assert "stream_maps" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", ["event", "timestamp"])
def test_a_column_that_holds_no_text_is_neither_an_event_nor_a_time(name):
    columns = dict.fromkeys(EVENT, TEXT) | {name: NUMBER}
    with pytest.raises(UserError):
        StreamMapping("things", {"properties": columns}, [])


@pytest.mark.parametrize(
    "schema", [{}, {"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}], ids=str
)
def test_a_column_that_may_hold_text_will_do(schema):
    StreamMapping("things", {"properties": dict.fromkeys(EVENT, schema)}, [])


def test_each_stream_of_the_tap_has_events():
    for collection in COLLECTIONS:
        StreamMapping(collection.stream, collection_schema(collection), ["id"])
    StreamMapping("tracks", tracks_schema(), ["id"])


def id_of(record: dict[str, Any], key: tuple[str, ...] = (), stream: str = "things") -> str:
    message_id: str = read(EVENT | record, key=key, stream=stream)["messageId"]
    return message_id


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"id": "a"}, ()),
        ({"id": "a"}, ("id",)),
        ({"ID": "a"}, ("ID",)),
        ({"id": "b", "messageId": "a"}, ("messageId",)),
        ({"id": "b", "message_id": "a"}, ("message_id",)),
    ],
    ids=str,
)
def test_an_id_that_is_text_and_no_other_events_is_sent_as_it_is(columns, key):
    assert id_of(columns, key) == id_of(columns, key, "others") == "a"


def test_an_id_that_is_made_is_the_same_for_the_same_event_and_no_other():
    """A number or a key is unique within its stream only; without a key, the whole record counts.

    Whatever Segment takes for the same id it drops.
    """
    of_key, of_record = id_of({"id": 1}, ("id",)), id_of({"note": "a"})
    made = [
        of_key,
        of_record,
        id_of({"id": "1"}, ("id",)),
        id_of({"id": "1"}, ("id",), "others"),
        id_of({"id": 1}, ("id",), "others"),
        id_of({"id": 1, "day": "2026-11-23"}, ("id", "day")),
        id_of({"id": 1, "day": "2026-11-24"}, ("id", "day")),
        id_of({"note": "b"}),
        id_of({"note": "a"}, (), "others"),
        id_of({"id": "x" * 101}),
        id_of({"id": ""}),
        id_of({"id": "a", "day": "2026-11-23"}, ("id", "day")),
        id_of({"message_id": "m", "note": "delivered"}),
        id_of({"message_id": "m", "note": "opened"}),
        id_of({"message_id": "m", "id": 1}, ("id",), "fourth"),
    ]
    assert len(set(made)) == len(made)
    assert {len(message_id) for message_id in made} == {64}
    assert id_of({"id": 1, "note": "changed"}, ("id",)) == of_key
    assert id_of({"note": "a"}) == of_record


@pytest.mark.parametrize("name", ["email", "id", "message_id"])
def test_what_could_be_an_address_is_no_id(name):
    assert "@" not in id_of({name: "a@example.com"}, (name,))


def dead(record: dict[str, Any]) -> DeadCall:
    outcome = StreamMapping(
        record["event"], collection_schema(BY_STREAM[record["event"]]), ["id"]
    ).read(record)
    assert isinstance(outcome, DeadCall)
    return outcome


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": None, "anonymous_id": None}, "no identity"),
        ({"event_text": None}, "no event name"),
        ({"timestamp": None}, "no time"),
        ({"timestamp": "soon"}, "a timestamp that is no date or time"),
        ({"properties": {"text": "x" * MAX_CALL}}, f"longer than {MAX_CALL} bytes"),
        ({"properties": {"text": "é" * (MAX_CALL // 2)}}, f"longer than {MAX_CALL} bytes"),
    ],
    ids=["identity", "event", "time", "no-time", "long", "long-in-bytes"],
)
def test_a_record_that_can_never_be_delivered_is_told_why(columns, reason):
    record = record_of(json.dumps(documented("sent")).encode()) | columns
    found = dead(record)
    assert (found.call.id, found.reason) == (record["id"], reason)
    assert json.loads(found.call.body)["messageId"] == record["id"]


def test_a_call_may_be_as_long_as_segment_takes_it():
    record = record_of(json.dumps(documented("sent")).encode()) | {"properties": {"text": ""}}
    mapping = StreamMapping("email_sent", collection_schema(BY_STREAM["email_sent"]), ["id"])
    empty = mapping.read(record)
    assert isinstance(empty, OutgoingCall)
    room = MAX_CALL - len(empty.body)
    fits = mapping.read(record | {"properties": {"text": "x" * room}})
    assert isinstance(fits, OutgoingCall)
    assert len(fits.body) == MAX_CALL
    assert isinstance(mapping.read(record | {"properties": {"text": "x" * (room + 1)}}), DeadCall)
