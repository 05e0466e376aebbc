from __future__ import annotations

import copy
import json
import uuid
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment.inputs.body import UnmappableError, read_object
from tap_vero_segment.inputs.ids import ALIKE
from tap_vero_segment.inputs.vero import to_track
from tap_vero_segment.times import EPOCH
from tests.support.contract import TRACKS_COLUMNS, VERO_TYPES
from tests.support.fuzz import fuzz, pairs, payloads, shuffled, values
from tests.support.payloads import documented
from tests.support.records import (
    RECEIVED,
    RECEIVED_AT,
    assert_nothing_lost,
    assert_shape,
    record_of,
)

RECORDS = sorted((Path(__file__).parent / "vero_records").glob("*.json"))
"""Payloads, each with its record written out by hand."""

known_types = st.sampled_from(sorted(VERO_TYPES))
each_type = pytest.mark.parametrize("vero_type", VERO_TYPES)


def record(payload: dict[str, Any], received_at: int = RECEIVED) -> dict[str, Any]:
    return record_of(json.dumps(payload).encode(), received_at)


def id_of(payload: dict[str, Any], received_at: int = RECEIVED) -> str:
    return to_track(read_object(json.dumps(payload).encode()), received_at).message_id


def sent(**fields: Any) -> dict[str, Any]:
    return {"type": "sent", **fields}


# Every type, old shapes and new


SLOT_OF_RECEIPT = 0x01A207B48200
"""In milliseconds: 2026-11-23T09:20:00Z, for :data:`RECEIVED_AT`."""


@pytest.mark.parametrize("path", RECORDS, ids=[path.stem for path in RECORDS])
def test_a_payload_becomes_the_record_that_was_written_by_hand(path):
    case = json.loads(path.read_text(encoding="utf-8"))
    assert_shape(case["record"])
    assert record(case["payload"]) == case["record"]


def test_there_is_a_record_written_by_hand_for_every_type():
    cases = [json.loads(path.read_text(encoding="utf-8")) for path in RECORDS]
    assert {case["payload"]["type"] for case in cases} == VERO_TYPES.keys()


@each_type
def test_a_payload_of_its_type_alone_is_an_event(vero_type):
    found = record({"type": vero_type})
    assert_shape(found)
    stream, event = VERO_TYPES[vero_type]
    assert {name: value for name, value in found.items() if value is not None} == {
        "id": found["id"],
        "received_at": RECEIVED_AT,
        "loaded_at": found["loaded_at"],
        "timestamp": RECEIVED_AT,
        "original_timestamp": RECEIVED_AT,
        "sent_at": RECEIVED_AT,
        "event": stream,
        "event_text": event,
    }


@pytest.mark.parametrize("vero_type", ["", "Sent", "sent ", "exploded", None, 1, True, [], {}])
def test_a_type_that_vero_does_not_document_cannot_be_mapped(vero_type):
    with pytest.raises(UnmappableError):
        record({"type": vero_type, "user": {"id": 123}})


def test_a_payload_without_a_type_cannot_be_mapped():
    with pytest.raises(UnmappableError):
        record({"user": {"id": 123}})


def test_a_refusal_repeats_nothing_of_the_payload():
    with pytest.raises(UnmappableError) as refusal:
        record({"type": "steve@getvero.com", "user": {"email": "steve@getvero.com"}})
    assert "steve" not in str(refusal.value)


# Who


@pytest.mark.parametrize(
    ("user", "user_id", "anonymous_id", "email"),
    [
        ({"id": 123, "email": "a@b.example"}, "123", None, "a@b.example"),
        ({"id": "123", "email": "a@b.example"}, "123", None, "a@b.example"),
        ({"id": 0, "email": "a@b.example"}, "0", None, "a@b.example"),
        ({"id": 2**70, "email": None}, str(2**70), None, None),
        ({"id": None, "email": "a@b.example"}, None, "a@b.example", "a@b.example"),
        ({"email": "a@b.example"}, None, "a@b.example", "a@b.example"),
        ({"id": 123}, "123", None, None),
        ({"id": "👟", "email": "é@b.example"}, "👟", None, "é@b.example"),
        ({"id": None, "email": None}, None, None, None),
        ({}, None, None, None),
        (None, None, None, None),
    ],
    ids=ascii,
)
@each_type
def test_the_user_is_known_by_id_or_else_by_address(vero_type, user, user_id, anonymous_id, email):
    found = record({"type": vero_type, "user": user})
    assert (found["user_id"], found["anonymous_id"], found["context_traits_email"]) == (
        user_id,
        anonymous_id,
        email,
    )
    assert (found["properties"], found["context"]) == (None, None)


@pytest.mark.parametrize("user", [7, "steve", True, ["steve"], [{"id": 123}]], ids=str)
def test_a_user_that_is_no_object_stays_a_property(user):
    found = record(sent(user=user))
    assert (found["user_id"], found["anonymous_id"]) == (None, None)
    assert found["properties"] == {"user": user}


@pytest.mark.parametrize("value", ["", True, [], {}, ["123"], {"id": "123"}], ids=repr)
def test_an_id_that_is_none_stays_a_property_and_the_address_stands_in(value):
    found = record(sent(user={"id": value, "email": "a@b.example"}))
    assert (found["user_id"], found["anonymous_id"]) == (None, "a@b.example")
    assert found["properties"] == {"user": {"id": value}}


@pytest.mark.parametrize("value", ["", False, [], {"home": "a@b.example"}], ids=repr)
def test_an_address_that_is_none_stays_a_property(value):
    found = record(sent(user={"id": None, "email": value}))
    assert (found["anonymous_id"], found["context_traits_email"]) == (None, None)
    assert found["properties"] == {"user": {"email": value}}


@pytest.mark.parametrize("vero_type", ["user_created", "user_updated"])
def test_a_profile_is_read_inside_user_first_and_at_the_top_second(vero_type):
    found = record({"type": vero_type, "id": 1, "email": "top@b.example", "user": {"id": 2}})
    assert (found["user_id"], found["context_traits_email"]) == ("2", "top@b.example")
    assert found["properties"] == {"id": 1}


@pytest.mark.parametrize("vero_type", sorted(VERO_TYPES.keys() - {"user_created", "user_updated"}))
def test_an_id_at_the_top_of_any_other_payload_is_not_the_users(vero_type):
    found = record({"type": vero_type, "id": 1, "email": "top@b.example"})
    assert (found["user_id"], found["anonymous_id"]) == (None, None)
    assert found["properties"] == {"id": 1, "email": "top@b.example"}


@fuzz
@given(payloads)
def test_there_is_an_anonymous_id_where_there_is_no_user_id(payload):
    found = record(payload)
    email = found["context_traits_email"]
    assert found["anonymous_id"] == (email if found["user_id"] is None else None)


# What


@pytest.mark.parametrize("campaign", [None, {}], ids=str)
@each_type
def test_an_empty_campaign_leaves_no_trace(vero_type, campaign):
    found = record({"type": vero_type, "campaign": campaign})
    assert found["properties"] is None
    assert not any(value for name, value in found.items() if name.startswith("campaign_"))


@pytest.mark.parametrize("campaign", [987, "Welcome", False, [{"id": 987}]], ids=str)
def test_a_campaign_that_is_no_object_stays_a_property(campaign):
    assert record(sent(campaign=campaign))["properties"] == {"campaign": campaign}


@pytest.mark.parametrize(
    ("column", "holder", "first", "second"),
    [
        ("email_subject", "campaign", "subject", "email_subject"),
        ("campaign_name", "campaign", "name", "campaign_title"),
        ("campaign_variation", "campaign", "variation", "variation_name"),
    ],
)
def test_a_field_is_found_under_its_newer_or_its_older_name(column, holder, first, second):
    assert record(sent(**{holder: {first: "A"}}))[column] == "A"
    assert record(sent(**{holder: {second: "B"}}))[column] == "B"
    assert record(sent(**{holder: {first: None, second: "B"}}))[column] == "B"
    alone = record(sent(**{holder: {first: "A", second: None}}))
    assert (alone[column], alone["properties"]) == ("A", None)
    both = record(sent(**{holder: {first: "A", second: "B"}}))
    assert (both[column], both["properties"]) == ("A", {holder: {second: "B"}})
    odd = record(sent(**{holder: {first: {}, second: "B"}}))
    assert (odd[column], odd["properties"]) == ("B", {holder: {first: {}}})


def test_the_messages_id_is_the_payloads_or_else_the_campaigns():
    assert record(sent(message_id="A"))["email_id"] == "A"
    assert record(sent(campaign={"message_id": "B"}))["email_id"] == "B"
    both = record(sent(message_id="A", campaign={"message_id": "B"}))
    assert (both["email_id"], both["properties"]) == ("A", {"campaign": {"message_id": "B"}})


FIELDS = {
    "message_id": "email_id",
    "campaign.subject": "email_subject",
    "campaign.id": "campaign_id",
    "campaign.name": "campaign_name",
    "campaign.type": "campaign_type",
    "campaign.trigger-event": "campaign_trigger_event",
    "campaign.permalink": "campaign_permalink",
    "campaign.variation": "campaign_variation",
    "campaign.group": "campaign_group",
    "campaign.channel": "campaign_channel",
    "campaign.locale": "campaign_locale",
    "campaign.tags": "campaign_tags",
    "campaign.sent_to": "campaign_sent_to",
    "campaign.series_title": "campaign_series_title",
    "campaign.template": "campaign_template",
    "bounce_type": "bounce_type",
    "bounce_code": "bounce_code",
    "bounce_message": "bounce_message",
}
"""Where a bounce has what, and its column."""


def bounce(field: str, value: Any) -> dict[str, Any]:
    holder, _, key = field.rpartition(".")
    return {"type": "bounced", **({holder: {key: value}} if holder else {key: value})}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("", ""),
        (550, "550"),
        (-1.5, "-1.5"),
        ("é👟", "é👟"),
        ("a\0\ud83d", "a\ufffd\ufffd"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize(("field", "column"), FIELDS.items())
def test_a_text_or_a_number_fills_its_column(field, column, value, text):
    found = record(bounce(field, value))
    assert (found[column], found["properties"]) == (text, None)


@pytest.mark.parametrize("value", [True, [], {}, ["a", 1], {"a": {"b": None}}], ids=str)
@pytest.mark.parametrize(("field", "column"), FIELDS.items())
def test_anything_else_leaves_its_column_null_and_stays_where_it_was(field, column, value):
    payload = bounce(field, value)
    found = record(payload)
    del payload["type"]
    assert (found[column], found["properties"]) == (None, payload)


@pytest.mark.parametrize("channel", ["push", "sms", "in-app", 7])
def test_a_message_of_any_channel_is_an_event(channel):
    payload = documented("opened")
    payload["campaign"]["channel"] = channel
    found = record(payload)
    assert (found["campaign_channel"], found["context_channel"]) == (str(channel),) * 2


@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        ({"link_url": "https://a.example"}, None),
        ({"url": "https://a.example"}, None),
        ({"link": "https://a.example"}, None),
        ({"link": {"url": "https://a.example"}}, None),
        ({"link": {"url": "https://a.example", "text": "A"}}, {"link": {"text": "A"}}),
        ({"link_url": None, "url": "https://a.example"}, None),
        (
            {"link_url": "https://a.example", "url": "https://b.example"},
            {"url": "https://b.example"},
        ),
    ],
    ids=str,
)
def test_a_clicked_url_is_a_column_wherever_it_stands(fields, rest):
    found = record({"type": "clicked", **fields})
    assert (found["link_url"], found["properties"]) == ("https://a.example", rest)


def test_a_url_of_no_click_stays_a_property():
    assert record({"type": "opened", "url": "x"})["properties"] == {"url": "x"}


@pytest.mark.parametrize("vero_type", ["user_created", "user_updated"])
def test_a_users_fields_are_at_one_place_whichever_shape_came(vero_type):
    who, own = {"id": 123, "email": "a@b.example"}, {"plan": {"name": "pro"}, "first_name": "S"}
    shapes = [{"user": who | own}, {"user": who, **own}, who | own]
    records = [record({"type": vero_type, **shape}) for shape in shapes]
    for found in records:
        assert found | {"id": None} == records[0] | {"id": None}
        assert found["properties"] == own


def test_a_user_agent_is_a_column_where_it_is_text():
    assert record(sent(user_agent="Mozilla"))["context_user_agent"] == "Mozilla"
    found = record(sent(user_agent={"family": "Mozilla"}))
    assert found["context_user_agent"] is None
    assert found["properties"] == {"user_agent": {"family": "Mozilla"}}


@each_type
def test_unknown_fields_are_kept_where_they_were(vero_type):
    payload = documented(vero_type)
    plain = record(payload)
    payload["extra"] = {"deep": [1, {"er": None}]}
    payload["user"]["extra"] = 0
    payload.setdefault("campaign", {})["extra"] = ""
    found = record(payload)
    kept = copy.deepcopy(plain["properties"] or {})
    kept["extra"] = {"deep": [1, {"er": None}]}
    kept.setdefault("user", {})["extra"] = 0
    kept.setdefault("campaign", {})["extra"] = ""
    assert found == plain | {"properties": kept, "id": found["id"]}


@pytest.mark.parametrize("name", sorted(set(TRACKS_COLUMNS) - {"id"} | {"properties", "payload"}))
def test_a_field_that_bears_a_columns_name_does_not_fill_that_column(name):
    found = record({"type": "delivered", name: "x"})
    assert found["properties"] == {name: "x"}
    assert found == record({"type": "delivered"}) | {"id": found["id"], "properties": {name: "x"}}


@pytest.mark.parametrize(("field", "column"), [item for item in FIELDS.items() if "." in item[0]])
def test_a_field_that_bears_a_propertys_name_does_not_overwrite_that_property(field, column):
    payload = bounce(field, "inside") | {column: "outside", "bounce_code": 550}
    found = record(payload)
    assert (found[column], found["bounce_code"]) == ("inside", "550")
    assert found["properties"] == {"payload": {column: "outside"}}
    payload["payload"] = {column: "deeper"}
    nested = {"payload": {column: "outside", "payload": {column: "deeper"}}}
    assert record(payload)["properties"] == nested


def test_a_property_may_come_under_its_own_name():
    found = record(sent(campaign_id=987, campaign={"id": None}))
    assert (found["campaign_id"], found["properties"]) == ("987", None)


# When


SECONDS = {
    1435016238: "2015-06-22T23:37:18.000000Z",
    "1435016238": "2015-06-22T23:37:18.000000Z",
    0: "1970-01-01T00:00:00.000000Z",
    -1: "1969-12-31T23:59:59.000000Z",
    -62_135_596_800: "0001-01-01T00:00:00.000000Z",
    253_402_300_799: "9999-12-31T23:59:59.000000Z",
}
OTHER_SPELLINGS = {
    1435016238.25: "2015-06-22T23:37:18.250000Z",
    1435016238.0: "2015-06-22T23:37:18.000000Z",
    -0.5: "1969-12-31T23:59:59.500000Z",
    "2015-06-22T23:37:18Z": "2015-06-22T23:37:18.000000Z",
    "2015-06-22T23:37:18": "2015-06-22T23:37:18.000000Z",
    "2015-06-22T23:37:18.123456789+02:00": "2015-06-22T21:37:18.123456Z",
    "2015-06-22": "2015-06-22T00:00:00.000000Z",
}
NO_TIMES = [
    None,
    True,
    False,
    [],
    [1435016238],
    {},
    {"seconds": 1435016238},
    "",
    " ",
    "1435016238 ",
    "-1",
    "now",
    "yesterday",
    "P1D",
    "P1D/P1D",
    "23:37",
    "٢٠١٥",
    "\0",
    "\ud83d",
    "9" * 30,
    "9" * 5000,
    -62_135_596_801,
    253_402_300_800,
    1435016238000,
    2**63,
    -(2**63),
    10**400,
    1e15,
    1e308,
    -1e308,
    "10000-01-01",
    "0000-01-01T00:00:00Z",
]


@pytest.mark.parametrize("value", SECONDS, ids=repr)
@each_type
def test_epoch_seconds_are_the_time_of_the_event(vero_type, value):
    found = record({"type": vero_type, f"{vero_type}_at": value})
    assert (found["timestamp"], found["original_timestamp"]) == (SECONDS[value],) * 2
    assert (found["received_at"], found["sent_at"]) == (RECEIVED_AT, RECEIVED_AT)
    assert found["properties"] is None


@pytest.mark.parametrize(("value", "timestamp"), OTHER_SPELLINGS.items(), ids=repr)
def test_a_time_in_another_spelling_is_read_and_kept_as_it_came(value, timestamp):
    found = record(sent(sent_at=value))
    assert (found["timestamp"], found["original_timestamp"]) == (timestamp, timestamp)
    assert found["properties"] == {"sent_at": value}


@pytest.mark.parametrize("value", NO_TIMES, ids=lambda value: ascii(value)[:32])
def test_without_a_time_that_can_be_read_the_event_is_as_old_as_its_receipt(value):
    found = record(sent(sent_at=value))
    assert (found["timestamp"], found["original_timestamp"]) == (RECEIVED_AT, RECEIVED_AT)
    assert uuid.UUID(found["id"]).int >> 80 == SLOT_OF_RECEIPT
    assert_shape(found)
    kept = (found["properties"] or {}).get("sent_at")
    if value is not None:
        assert kept == ("\ufffd" if value in ("\0", "\ud83d") else value)


@each_type
def test_the_time_of_another_type_is_not_the_events(vero_type):
    other = "opened_at" if vero_type != "opened" else "clicked_at"
    found = record({"type": vero_type, other: 1435016238})
    assert found["timestamp"] == RECEIVED_AT
    assert found["properties"] == {other: 1435016238}


# Nothing raises, nothing is lost


@fuzz
@given(payloads)
def test_any_payload_of_a_known_type_has_a_record_and_nothing_is_lost(payload):
    found = record(payload)
    assert_shape(found)
    assert_nothing_lost(payload, found)


@each_type
def test_nothing_of_a_documented_payload_is_lost(vero_type):
    payload = documented(vero_type)
    assert_nothing_lost(payload, record(payload))


@fuzz
@given(st.fixed_dictionaries({}, optional={"type": values | known_types, "user": values}))
def test_a_payload_is_mapped_or_its_type_is_unknown(payload):
    if payload.get("type") in list(VERO_TYPES):
        record(payload)
    else:
        with pytest.raises(UnmappableError):
            record(payload)


def test_the_payload_is_left_as_it_was():
    payload = documented("bounced") | {"campaign_id": "x"}
    before = copy.deepcopy(payload)
    to_track(payload, RECEIVED)
    assert payload == before


# Ids


@fuzz
@given(st.data(), payloads, st.integers(0, 10**9))
def test_the_same_payload_has_the_same_id_however_it_comes(data, payload, later):
    again = data.draw(shuffled(payload))
    body = json.dumps(again, indent=data.draw(st.sampled_from([None, 0, 3]))).encode()
    one = record(payload)
    other = record_of(body, RECEIVED + later)
    same_slot = (RECEIVED + later) // ALIKE == RECEIVED // ALIKE
    # And whenever it comes, if it has a time of its own.
    assert (one["id"] == other["id"]) == (one["timestamp"] == other["timestamp"] or same_slot)
    if one["timestamp"] != RECEIVED_AT:
        ours = {"received_at": None, "sent_at": None}
        assert one | ours == other | ours


@fuzz
@given(pairs())
def test_two_payloads_have_one_id_if_and_only_if_they_are_the_same(pair):
    one, other = pair
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (id_of(one) == id_of(other)) == same


@pytest.mark.parametrize(
    "values_",
    [
        [1, 1.0, True, "1", "1.0", "true", [1], {"1": 1}],
        [0, 0.0, False, None, "", "0", [], {}, [[]], [{}], [None]],
        ["\ud83d", "\ud83e", "\udc5f", "\ufffd", "\0", "\\ud83d", "\ud83d\ud83d", "👟"],
        ["\u00e9", "e\u0301", "e"],
        [2**64, 2**64 + 1, float(2**64), str(2**64)],
        [[1, 2], [2, 1], [[1], 2], [1, [2]], {"a": 1, "b": 2}, {"a": 2, "b": 1}],
    ],
    ids=ascii,
)
def test_values_that_are_alike_are_not_the_same(values_):
    variants = [{"type": "sent", "x": value} for value in values_] + [{"type": "sent"}]
    assert len({id_of(variant) for variant in variants}) == len(variants)


@fuzz
@given(payloads)
def test_an_id_is_a_uuid_of_version_8(payload):
    found = id_of(payload)
    parsed = uuid.UUID(found)
    assert (str(parsed), parsed.version, parsed.variant) == (found, 8, uuid.RFC_4122)


@fuzz
@given(payloads)
def test_an_id_begins_with_the_milliseconds_of_the_event(payload):
    found = record(payload)
    millis = uuid.UUID(found["id"]).int >> 80
    if found["timestamp"] == RECEIVED_AT:
        assert millis == SLOT_OF_RECEIPT
    else:
        since = datetime.fromisoformat(found["timestamp"]) - EPOCH
        assert millis == max(since // timedelta(milliseconds=1), 0)


@fuzz
@given(st.lists(st.integers(0, 253_402_300_799), unique=True, min_size=2, max_size=20))
def test_ids_sort_as_the_times_of_their_events_do(seconds):
    by_time = [id_of(sent(sent_at=second)) for second in sorted(seconds)]
    assert by_time == sorted(by_time)


def test_ids_of_one_time_differ():
    ids = {id_of(sent(sent_at=1435016238, user={"id": number})) for number in range(1000)}
    assert len(ids) == 1000
