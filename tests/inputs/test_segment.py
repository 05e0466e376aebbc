from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment import times
from tap_vero_segment.inputs.body import UnmappableError, read_json
from tap_vero_segment.inputs.ids import ids_alike
from tap_vero_segment.inputs.segment import from_client, from_fields, from_webhook, read_call
from tests.support.archive import FIRST_DAY, WRITE_KEY, track
from tests.support.contract import VERO_TYPES
from tests.support.fuzz import fuzz, shuffled
from tests.support.records import assert_shape
from tests.support.segment import (
    DROPPED,
    assert_no_field_lost,
    calls,
    line_of,
    record_of,
    usual,
)

RECORDS = sorted((Path(__file__).parent / "segment_records").glob("*.json"))
"""Calls, each with its record written out by hand."""

EVENTS = [event for _, event in VERO_TYPES.values()]


def record(call: dict[str, Any]) -> dict[str, Any]:
    found = read_call(line_of(call))
    assert found is not None
    return record_of(found)


def sent(**fields: Any) -> dict[str, Any]:
    """A call with what no call can do without."""
    return {
        "type": "track",
        "event": "Email Sent",
        "messageId": "message-1",
        "receivedAt": "2026-11-23T09:24:00Z",
        **fields,
    }


# Calls and their records


@pytest.mark.parametrize("path", RECORDS, ids=[path.stem for path in RECORDS])
def test_a_call_becomes_the_record_that_was_written_by_hand(path):
    case = json.loads(path.read_text(encoding="utf-8"))
    assert_shape(case["record"])
    assert record(case["call"]) == case["record"]


def test_a_call_needs_an_event_an_id_and_a_time_of_receipt_only():
    found = record(sent())
    assert {name: value for name, value in found.items() if value is not None} == {
        "id": "message-1",
        "event": "email_sent",
        "event_text": "Email Sent",
        "received_at": "2026-11-23T09:24:00.000000Z",
        "timestamp": "2026-11-23T09:24:00.000000Z",
        "loaded_at": found["loaded_at"],
    }


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_of_the_table_is_one_of_ours(event):
    stream = next(stream for stream, name in VERO_TYPES.values() if name == event)
    found = record(sent(event=event))
    assert (found["event"], found["event_text"]) == (stream, event)


@pytest.mark.parametrize(
    ("fields", "timestamp"),
    [
        ({"timestamp": "2026-11-23T01:00:00Z"}, "2026-11-23T01:00:00.000000Z"),
        ({"originalTimestamp": "2026-11-23T02:00:00Z"}, "2026-11-23T02:00:00.000000Z"),
        (
            {"timestamp": "2026-11-23T01:00:00Z", "originalTimestamp": "2026-11-23T02:00:00Z"},
            "2026-11-23T01:00:00.000000Z",
        ),
        ({"timestamp": None}, "2026-11-23T09:24:00.000000Z"),
        ({"timestamp": "not a time"}, "2026-11-23T09:24:00.000000Z"),
        ({"timestamp": "2026-11-23T03:00:00.123456789+05:30"}, "2026-11-22T21:30:00.123456Z"),
    ],
)
def test_the_event_happened_at_its_timestamp_or_the_next_best_time(fields, timestamp):
    assert record(sent(**fields))["timestamp"] == timestamp


@pytest.mark.parametrize(
    ("context", "column", "rest"),
    [
        ({"userAgent": "a"}, "a", None),
        ({"user_agent": "b"}, "b", None),
        ({"userAgent": "a", "user_agent": "b"}, "a", {"user_agent": "b"}),
        ({"userAgent": None, "user_agent": "b"}, "b", None),
        ({"userAgent": {"name": "a"}, "user_agent": "b"}, "b", {"userAgent": {"name": "a"}}),
        ({"userAgent": ["a"]}, None, {"userAgent": ["a"]}),
    ],
)
def test_the_user_agent_is_read_under_both_of_its_names(context, column, rest):
    found = record(sent(context=context))
    assert (found["context_user_agent"], found["context"]) == (column, rest)


@pytest.mark.parametrize(
    ("ip", "column", "rest"),
    [
        ("198.51.100.7", "198.51.100.7", None),
        ({"v4": "198.51.100.7"}, None, {"ip": {"v4": "198.51.100.7"}}),
        (None, None, None),
    ],
)
def test_an_ip_address_may_be_text_or_an_object(ip, column, rest):
    found = record(sent(context={"ip": ip}))
    assert (found["context_ip"], found["context"]) == (column, rest)


@pytest.mark.parametrize("field", ["context", "properties"])
@pytest.mark.parametrize("value", ["text", 5, ["a", "b"], False])
def test_a_context_or_properties_that_are_no_object_are_kept_in_the_context(field, value):
    found = record(sent(**{field: value}))
    assert found["context"] == {field: value}
    assert found["properties"] is None


def test_a_field_s_name_that_no_warehouse_can_hold_is_cleaned():
    context = record(sent(**{"a\0b": 1, "half \ud83d": 2}))["context"]
    assert context == {"a\ufffdb": 1, "half \ufffd": 2}


def test_of_a_call_that_has_segments_own_fields_none_is_in_its_record():
    found = record(sent(**{name: f"dropped {name}" for name in DROPPED - {"type"}}))
    assert "dropped" not in json.dumps(found)
    assert WRITE_KEY not in json.dumps(record(track(1, "Email Sent", FIRST_DAY)))


def test_empty_ids_of_a_user_are_none():
    found = record(sent(userId="", anonymousId=""))
    assert (found["user_id"], found["anonymous_id"], found["context"]) == (None, None, None)


# What is not ours, and what cannot be read


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "identify"},
        {"type": "page", "messageId": None},
        {"type": "screen", "receivedAt": "never"},
        {"type": "Track"},
        {"type": None},
        {"type": ["track"]},
        {"event": "Order Completed"},
        {"event": "email sent"},
        {"event": "email_sent"},
        {"event": ""},
        {"event": None},
        {"event": {"name": "Email Sent"}},
        {"event": "Order Completed", "messageId": None, "receivedAt": None},
    ],
)
def test_a_call_of_another_type_or_event_is_ignored_whatever_else_it_has(fields):
    assert read_call(line_of(sent(**fields))) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"nonsense", "not JSON"),
        (b'{"type": "track", "event": "Email Sent"} trailing', "not JSON"),
        (b'\xff{"type": "track"}', "not JSON"),
        (line_of(sent()).replace(b"message-1", b"\xff"), "not JSON"),
        (b"[1]", "not an object"),
        (b"[" + line_of(sent()) + b"]", "not an object"),
        (b'"text"', "not an object"),
        (b"null", "not an object"),
        (b"5", "not an object"),
        (line_of(sent(messageId=None)), "messageId"),
        (line_of(sent(messageId="")), "messageId"),
        (line_of(sent(messageId={"id": 1})), "messageId"),
        (line_of(sent(receivedAt=None)), "receivedAt"),
        (line_of(sent(receivedAt="")), "receivedAt"),
        (line_of(sent(receivedAt="yesterday")), "receivedAt"),
        (line_of(sent(receivedAt=1763889840)), "receivedAt"),
        (line_of(sent(properties="x")).replace(b'"x"', b"[" * 200 + b"]" * 200), "nested"),
        (
            line_of(sent(context=1)).replace(b": 1", b": " + b'{"a":' * 200 + b"1" + b"}" * 200),
            "nested",
        ),
        (line_of(sent(properties="x")).replace(b'"x"', b"[" * 99_999 + b"]" * 99_999), "nested"),
    ],
)
def test_a_line_that_is_no_call_is_refused_with_its_reason_and_nothing_of_its_content(line, reason):
    with pytest.raises(UnmappableError, match=reason) as refused:
        read_call(line)
    assert "message-1" not in str(refused.value)


def test_a_missing_id_or_time_is_told_by_its_name():
    for name in ("messageId", "receivedAt"):
        call = sent()
        del call[name]
        with pytest.raises(UnmappableError, match=name):
            read_call(line_of(call))


@fuzz
@given(calls, st.data())
def test_a_damaged_line_is_a_call_or_none_or_refused(call, data):
    line = bytearray(line_of(call))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(line)))
        stretch = data.draw(st.integers(0, 3))
        line[place : place + stretch] = data.draw(st.binary(max_size=3))
    try:
        found = read_call(bytes(line))
    except UnmappableError:
        return
    if found is not None:
        assert_shape(record_of(found))


# The quick way and the careful way


def careful(call: dict[str, Any]) -> Any:
    """What the fields of a call come to, or why they do not."""
    before = copy.deepcopy(call)
    try:
        return from_fields(call)
    except UnmappableError as error:
        return str(error)
    finally:
        assert call == before, "the fields were changed"


def quick(line: bytes) -> Any:
    try:
        return read_call(line)
    except UnmappableError as error:
        return str(error)


@fuzz
@given(calls)
def test_reading_a_line_and_reading_its_fields_come_to_the_same(call):
    line = line_of(call)
    assert quick(line) == careful(read_json(line))


@fuzz
@given(usual(), st.data())
def test_neither_the_order_of_keys_nor_the_way_of_writing_changes_a_call(call, data):
    other = data.draw(shuffled(call))
    written = quick(json.dumps(other, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    if written != "not JSON":  # half of a surrogate pair can only be escaped
        assert written == quick(line_of(call))
    assert quick(json.dumps(other, indent=2).encode()) == quick(line_of(call))


@fuzz
@given(calls)
def test_every_field_of_a_call_is_kept_somewhere_but_those_that_are_dropped(call):
    found = quick(line_of(call))
    if found is None or isinstance(found, str):
        return
    fields = copy.deepcopy(call)
    made = record_of(found)
    assert_shape(made)
    assert_no_field_lost(fields, made)


def test_a_byte_order_mark_before_a_line_is_no_part_of_it():
    line = msgspec.json.encode(track(1, "Email Sent", FIRST_DAY))
    assert read_call(b"\xef\xbb\xbf" + line) == read_call(line)


@pytest.mark.parametrize(
    "name", ["write_key", "WriteKey", "WRITE-KEY", "_writekey_", "write\u212aey"], ids=ascii
)
def test_a_write_key_is_dropped_however_it_is_spelt(name):
    call = msgspec.json.decode(msgspec.json.encode(track(1, "Email Sent", FIRST_DAY)))
    assert from_fields(call | {name: "secret"}) == from_fields(call)
    assert from_fields(call | {"writeKeys": "kept"}).context["writeKeys"] == "kept"


def test_names_that_are_taken_cost_little():
    """Each further underscore was tried, of which a name can have thousands."""
    taken = {"_" * number + "a": number for number in range(900)}
    call = msgspec.json.decode(msgspec.json.encode(track(1, "Email Sent", FIRST_DAY)))
    started = time.thread_time()
    found = from_fields(call | taken | {"context": taken})

    assert time.thread_time() - started < 0.15
    assert sorted(found.context.values()) == sorted([*range(900)] * 2)
    assert len(msgspec.json.encode(found.context)) < 1.1 * 2 * len(msgspec.json.encode(taken))


def test_most_calls_take_the_quick_way(monkeypatch):
    """Else the tests above would compare the careful way with itself."""
    monkeypatch.setattr("tap_vero_segment.inputs.segment.from_fields", None)
    for event in EVENTS:
        call = track(1, event, FIRST_DAY)
        assert read_call(msgspec.json.encode(call)) is not None
    assert read_call(msgspec.json.encode(track(1, "Order Completed", FIRST_DAY))) is None
    assert read_call(line_of({"type": "identify", "traits": {"a": [1]}, "userId": 5})) is None


@pytest.mark.parametrize(
    ("fields", "batch", "stays"),
    [
        ({}, {}, False),
        ({"timestamp": "soon"}, {}, False),
        ({"timestamp": "2026-11-23T09:21:00Z"}, {}, True),
        ({"timestamp": "2026-11-23T09:21:00Z"}, {"sentAt": "2026-11-23T09:21:01Z"}, True),
        ({"originalTimestamp": "2026-11-23T09:21:00Z"}, {}, True),
        ({"sentAt": "2026-11-23T09:21:00Z"}, {}, True),
        ({}, {"sentAt": "2026-11-23T09:21:00Z"}, True),
    ],
)
def test_a_call_without_an_id_has_one_by_its_own_time_or_by_that_of_its_receipt(
    fields, batch, stays
):
    call = {"type": "track", "event": "Email Opened", "userId": "1", **fields}
    at = times.from_text("2026-11-23T09:24:00Z")
    one, soon, later = (
        from_client(call, at + minutes * 60 * times.SECOND, batch) for minutes in (0, 3, 40)
    )

    assert one.message_id == soon.message_id
    assert (one.message_id == later.message_id) is stays
    assert bool(ids_alike(one.message_id, at)) is not stays


def test_what_segment_delivers_again_hours_later_is_the_same_by_when_segment_received_it():
    call = {"type": "track", "event": "Email Opened", "receivedAt": "2026-11-23T09:24:00Z"}
    at = times.from_text("2026-11-23T09:24:01Z")

    one, later = (from_webhook(call, at + hours * 3600 * times.SECOND) for hours in (0, 4))

    assert one.message_id == later.message_id
