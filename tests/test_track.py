from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment.inputs.body import clean
from tap_vero_segment.track import TrackCall, decode, encode, with_loaded_at
from tests.support.fuzz import fuzz, values
from tests.support.records import LOADED_AT, RECEIVED_AT

CALL = TrackCall(
    message_id="one",
    event="Email Sent",
    user_id="123",
    timestamp="2015-06-22T23:37:18.000000Z",
    received_at=RECEIVED_AT,
    context={"traits": {"email": "steve@getvero.com"}},
    properties={"campaign_id": "987"},
)


def test_a_track_call_is_written_as_segment_writes_it():
    assert json.loads(encode(CALL)) == {
        "type": "track",
        "messageId": "one",
        "event": "Email Sent",
        "userId": "123",
        "timestamp": "2015-06-22T23:37:18.000000Z",
        "receivedAt": "2026-11-23T09:24:00.000000Z",
        "context": {"traits": {"email": "steve@getvero.com"}},
        "properties": {"campaign_id": "987"},
    }


def test_a_track_call_is_one_line_whatever_it_holds():
    call = msgspec.structs.replace(CALL, properties={"a\nb": "c\r\nd\u2028"})
    assert len(encode(call).splitlines()) == 1


def test_loaded_at_is_added_without_reading_the_call():
    line = with_loaded_at(encode(CALL), LOADED_AT)
    assert json.loads(line) == json.loads(encode(CALL)) | {"loadedAt": LOADED_AT}
    assert decode(line) == msgspec.structs.replace(CALL, loaded_at=LOADED_AT)


def test_fields_that_the_project_does_not_keep_are_dropped_when_read():
    foreign = json.loads(encode(CALL)) | {
        "writeKey": "a-live-secret",
        "_metadata": {"bundled": ["x"]},
        "__segment_internal": {},
        "integrations": {"All": True},
        "projectId": "p",
        "channel": "server",
        "version": 2,
    }
    assert decode(json.dumps(foreign).encode()) == CALL


@pytest.mark.parametrize(
    "change",
    [
        {"type": "identify"},
        {"type": None},
        {"messageId": None},
        {"messageId": 7},
        {"receivedAt": 1435016238},
        {"properties": []},
        {"context": "x"},
    ],
    ids=str,
)
def test_what_has_not_the_shape_of_a_track_call_is_refused(change):
    with pytest.raises(msgspec.DecodeError):
        decode(json.dumps(json.loads(encode(CALL)) | change).encode())


@pytest.mark.parametrize("missing", ["messageId", "event", "timestamp", "receivedAt"])
def test_what_every_track_call_has_cannot_be_missing(missing):
    call = json.loads(encode(CALL))
    del call[missing]
    with pytest.raises(msgspec.DecodeError):
        decode(json.dumps(call).encode())


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b'{"type":"track"', b"\x1f\x8b"])
def test_what_is_no_json_object_is_refused(line):
    with pytest.raises(msgspec.DecodeError):
        decode(line)


def test_what_is_not_utf_8_is_refused():
    with pytest.raises(UnicodeDecodeError):
        decode(encode(CALL).replace(b"one", b"\xff"))


@fuzz
@given(st.dictionaries(st.text(), values, max_size=4).map(clean))
def test_properties_come_back_as_they_went(properties):
    call = msgspec.structs.replace(CALL, properties=properties)
    again = decode(encode(call))
    assert repr(again.properties) == repr(properties)  # 1, 1.0 and True are equal, yet not the same
    assert decode(with_loaded_at(encode(call), LOADED_AT)).loaded_at == LOADED_AT
