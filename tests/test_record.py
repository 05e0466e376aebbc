from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment.collection import BY_STREAM, COLLECTIONS
from tap_vero_segment.inputs.body import clean
from tap_vero_segment.record import as_text, to_fields, to_record, to_row
from tap_vero_segment.track import TrackCall
from tests.support.contract import COLUMNS, TRACKS_COLUMNS
from tests.support.fuzz import fuzz, known_objects, values
from tests.support.records import LOADED_AT, RECEIVED_AT, assert_shape

SENT = BY_STREAM["email_sent"]
TIMESTAMP = "2015-06-22T23:37:18.000000Z"


traits = st.fixed_dictionaries({"email": values, "age": values})


def call(**fields: Any) -> TrackCall:
    return TrackCall(
        message_id="one",
        event="Email Sent",
        timestamp=TIMESTAMP,
        received_at=RECEIVED_AT,
        loaded_at=LOADED_AT,
        **fields,
    )


def filled(record: dict[str, Any]) -> dict[str, Any]:
    """The columns that hold something, beyond those that always do."""
    always = {"id", "received_at", "loaded_at", "timestamp", "event", "event_text"}
    return {
        name: value for name, value in record.items() if value is not None and name not in always
    }


def test_a_bare_call_has_its_times_and_its_event_and_nothing_else():
    record = to_record(call(), SENT)
    assert_shape(record)
    assert filled(record) == {}
    assert (record["id"], record["event"], record["event_text"]) == (
        "one",
        "email_sent",
        "Email Sent",
    )
    assert (record["received_at"], record["loaded_at"], record["timestamp"]) == (
        RECEIVED_AT,
        LOADED_AT,
        TIMESTAMP,
    )


def test_a_call_of_segments_vero_source_fills_its_columns():
    record = to_record(
        call(
            user_id="123",
            anonymous_id="a-1",
            original_timestamp="2015-06-22T23:37:17.000000Z",
            sent_at="2015-06-22T23:37:19.000000Z",
            context={
                "ip": "203.0.113.9",
                "userAgent": "Mozilla/5.0",
                "traits": {"email": "steve@getvero.com", "plan": "pro"},
                "library": {"name": "vero"},
            },
            properties={
                "email_id": "m-1",
                "email_subject": "Hello",
                "campaign_id": 987,
                "campaign_name": "Welcome",
                "link_url": "https://example.com",
            },
        ),
        SENT,
    )
    assert filled(record) == {
        "original_timestamp": "2015-06-22T23:37:17.000000Z",
        "sent_at": "2015-06-22T23:37:19.000000Z",
        "user_id": "123",
        "anonymous_id": "a-1",
        "context_traits_email": "steve@getvero.com",
        "context_ip": "203.0.113.9",
        "context_user_agent": "Mozilla/5.0",
        "context": {"traits": {"plan": "pro"}, "library": {"name": "vero"}},
        "email_id": "m-1",
        "email_subject": "Hello",
        "campaign_id": "987",
        "campaign_name": "Welcome",
        "properties": {"link_url": "https://example.com"},
    }


@pytest.mark.parametrize(
    ("context", "columns"),
    [
        ({}, {}),
        ({"ip": "203.0.113.9"}, {"context_ip": "203.0.113.9"}),
        ({"ip": None}, {}),
        ({"ip": {"v4": "203.0.113.9"}}, {"context": {"ip": {"v4": "203.0.113.9"}}}),
        ({"userAgent": "A"}, {"context_user_agent": "A"}),
        ({"user_agent": "B"}, {"context_user_agent": "B"}),
        ({"userAgent": None, "user_agent": "B"}, {"context_user_agent": "B"}),
        (
            {"userAgent": "A", "user_agent": "B"},
            {"context_user_agent": "A", "context": {"user_agent": "B"}},
        ),
        (
            {"userAgent": ["A"], "user_agent": "B"},
            {"context_user_agent": "B", "context": {"userAgent": ["A"]}},
        ),
        ({"traits": {"email": "a@b.example"}}, {"context_traits_email": "a@b.example"}),
        ({"traits": {"email": ["a"]}}, {"context": {"traits": {"email": ["a"]}}}),
        ({"traits": {"age": 7}}, {"context": {"traits": {"age": 7}}}),
        ({"traits": "none"}, {"context": {"traits": "none"}}),
        ({"email": "a@b.example"}, {"context": {"email": "a@b.example"}}),
        ({"channel": "sms"}, {"context_channel": "sms"}),
        ({"channel": ["sms"]}, {"context": {"channel": ["sms"]}}),
    ],
    ids=str,
)
def test_context_has_columns_for_four_things_and_keeps_the_rest(context, columns):
    assert filled(to_record(call(context=context), SENT)) == columns


@pytest.mark.parametrize("said", [None, "email", "server"])
def test_the_campaigns_channel_is_the_channel(said):
    context = {} if said is None else {"channel": said}
    record = to_record(call(context=context, properties={"campaign_channel": "email"}), SENT)
    assert (record["context_channel"], record["campaign_channel"]) == ("email", "email")
    assert record["context"] == ({"channel": "server"} if said == "server" else None)
    again = to_fields(record)
    assert (
        to_record(call(**{name: again.get(name) for name in ("context", "properties")}), SENT)[
            "context"
        ]
        == record["context"]
    )


@pytest.mark.parametrize(
    ("stream", "own"),
    [
        ("email_link_clicked", {"link_id": "1", "link_url": "https://example.com"}),
        ("email_unsubscribed", {"list_id": "1", "list_name": "News"}),
        ("email_bounced", {"bounce_type": "soft", "bounce_code": "1", "bounce_message": "Full"}),
        ("email_delivered", {"sender_ip": "198.51.100.7"}),
    ],
)
def test_a_property_is_a_column_where_its_stream_has_one(stream, own):
    for collection in COLLECTIONS:
        record = to_record(call(properties=own), collection)
        assert_shape(record)
        expected = own if collection.stream == stream else {"properties": own}
        assert filled(record) == expected, collection.stream


@pytest.mark.parametrize("value", [True, False, [], {}, ["a"], {"a": 1}, [None]], ids=str)
@pytest.mark.parametrize("stream", sorted(COLUMNS))
def test_what_is_no_text_stays_in_properties_whatever_its_column(stream, value):
    own = sorted(COLUMNS[stream] - {*TRACKS_COLUMNS, "properties"})
    record = to_record(call(properties=dict.fromkeys(own, value)), BY_STREAM[stream])
    assert_shape(record)
    assert filled(record) == {"properties": dict.fromkeys(own, value)}


@pytest.mark.parametrize("name", ["id", "timestamp", "event", "user_id", "context", "properties"])
def test_a_property_that_bears_a_common_columns_name_stays_a_property(name):
    record = to_record(call(properties={name: "x"}), SENT)
    assert filled(record) == {"properties": {name: "x"}}
    assert record["id"] == "one"


def test_a_property_that_is_null_is_a_null_column_or_stays():
    record = to_record(call(properties={"campaign_id": None, "other": None}), SENT)
    assert filled(record) == {"properties": {"other": None}}
    assert filled(to_record(call(properties={"campaign_id": None}), SENT)) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        (" x ", " x "),
        ("👟", "👟"),
        (0, "0"),
        (-7, "-7"),
        (550, "550"),
        (550.0, "550"),
        (-0.0, "0"),
        (5.1, "5.1"),
        (2**63, "9223372036854775808"),
        (10**40, "1" + "0" * 40),
        (1e300, "1e+300"),
        (9007199254740993, "9007199254740993"),
        (True, None),
        (False, None),
        (None, None),
        ([], None),
        ({}, None),
        (["a"], None),
    ],
    ids=repr,
)
def test_texts_and_numbers_are_text_and_nothing_else_is(value, text):
    assert as_text(value) == text


def test_tracks_has_the_common_columns_of_the_same_event():
    event = call(user_id="123", properties={"campaign_id": "987"})
    record = to_record(event, SENT)
    assert to_row(event, SENT).tracks() == {name: record[name] for name in TRACKS_COLUMNS}


@fuzz
@given(
    st.sampled_from(COLLECTIONS),
    known_objects.map(clean),
    st.fixed_dictionaries(
        {}, optional={"traits": values | traits, "ip": values, "userAgent": values}
    ).map(clean),
)
def test_any_call_has_a_record_of_its_streams_shape_and_stays_as_it_was(
    collection, properties, context
):
    given_call = call(properties=properties, context=context)
    before = copy.deepcopy(msgspec.structs.asdict(given_call))
    record = to_record(given_call, collection)
    assert_shape(record)
    assert msgspec.structs.asdict(given_call) == before
    assert to_record(given_call, collection) == record


def test_objects_as_text_are_the_same_call():
    one = {"context": {"traits": {"email": "a@example.com", "age": 7}, "page": {"url": "x"}}}
    one["properties"] = {"campaign_id": 7, "order": {"id": [1, None]}}
    objects, texts = (
        to_row(call(**copy.deepcopy(one)), SENT, objects_as_text=as_text_).record()
        for as_text_ in (False, True)
    )
    assert isinstance(texts["context"], str)
    assert isinstance(texts["properties"], str)
    assert to_fields(texts) == to_fields(objects)


@pytest.mark.parametrize("text", ["order 7", "[1]", "7", "{", ""])
def test_text_that_holds_no_object_stays_a_property(text: str):
    record = to_record(call(), SENT) | {"properties": text, "context": text}
    assert to_fields(record)["properties"] == {"properties": text, "context": text}
