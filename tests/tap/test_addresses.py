"""The recipient's address or number: kept, hashed or left out, wherever it stands."""

from __future__ import annotations

import copy
import hmac
import json
from typing import Any

import pytest

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.inputs.body import read_object
from tap_vero_segment.inputs.vero import to_track
from tap_vero_segment.record import to_row
from tap_vero_segment.tap.addresses import Addresses
from tests.support.contract import VERO_TYPES
from tests.support.payloads import documented
from tests.support.records import RECEIVED

KEY = "a secret"
ADDRESS = "Steve+news@GetVero.com"
NUMBER = "61400000000"


def digest(text: str) -> str:
    return hmac.digest(KEY.encode(), text.lower().encode(), "sha256").hex()


HASH, HASH_OF_NUMBER = digest(ADDRESS), digest(NUMBER)


def record(payload: dict[str, Any], key: str | None = KEY) -> dict[str, Any]:
    call = to_track(read_object(json.dumps(payload).encode()), RECEIVED)
    Addresses(key).hide(call)
    return to_row(call, BY_EVENT[call.event]).record()


def plain(payload: dict[str, Any]) -> dict[str, Any]:
    call = to_track(read_object(json.dumps(payload).encode()), RECEIVED)
    return to_row(call, BY_EVENT[call.event]).record()


def payload_with(address: str, **fields: Any) -> dict[str, Any]:
    payload = documented("bounced") | fields
    payload["user"] = {"id": 123, "email": address}
    payload["campaign"]["sent_to"] = address
    return payload


def test_it_is_hashed_in_its_columns():
    found = record(payload_with(ADDRESS))
    assert (found["context_traits_email"], found["campaign_sent_to"]) == (HASH, HASH)
    assert found["user_id"] == "123"
    assert found | {"context_traits_email": ADDRESS, "campaign_sent_to": ADDRESS} == plain(
        payload_with(ADDRESS)
    )


def test_it_is_left_out_of_its_columns():
    found = record(payload_with(ADDRESS), None)
    assert found == plain(payload_with(ADDRESS)) | {
        "context_traits_email": None,
        "campaign_sent_to": None,
        "context": None,
    }


@pytest.mark.parametrize("user", [{"id": None, "email": ADDRESS}, {"id": ADDRESS, "email": None}])
def test_an_identity_that_is_an_address_is_hidden(user):
    payload = {"type": "sent", "user": user}
    identity = "anonymous_id" if user["id"] is None else "user_id"
    assert record(payload)[identity] == HASH
    assert record(payload, None)[identity] is None


PLACES = [
    ({"bounce_message": f"550 <{ADDRESS}> is unknown"}, f"550 <{HASH}> is unknown"),
    ({"bounce_message": ADDRESS.upper()}, HASH),
    ({"bounce_message": "to=steve%2Bnews%40getvero.com."}, f"to={HASH}."),
    ({"bounce_message": f"{ADDRESS} {ADDRESS.lower()}"}, f"{HASH} {HASH}"),
]


@pytest.mark.parametrize(("fields", "expected"), PLACES, ids=str)
def test_it_is_hidden_in_longer_text(fields, expected):
    payload = payload_with(ADDRESS, **fields)
    assert record(payload)["bounce_message"] == expected
    left = record(payload, None)["bounce_message"]
    assert left == (expected.replace(HASH, "") if " " in expected or "=" in expected else None)


def test_it_is_hidden_at_any_depth_and_in_names():
    extra = {"deep": [1, {"who": [ADDRESS, "x"], f"of {ADDRESS}": None}, ADDRESS.lower()]}
    found = record(payload_with(ADDRESS, extra=copy.deepcopy(extra)))
    assert found["properties"]["extra"] == {
        "deep": [1, {"who": [HASH, "x"], f"of {HASH}": None}, HASH]
    }
    found = record(payload_with(ADDRESS, extra=extra), None)
    assert found["properties"]["extra"] == {"deep": [1, {"who": ["x"], "of ": None}]}


def test_a_number_is_hidden_as_text_and_as_a_number_but_not_within_another_number():
    extra = {"n": int(NUMBER), "text": f"tel:+{NUMBER}", "order": f"9{NUMBER}1"}
    payload = payload_with("a@b.example", extra=extra)
    payload["campaign"] |= {"sent_to": NUMBER, "channel": "sms"}
    found = record(payload)
    assert found["campaign_sent_to"] == HASH_OF_NUMBER
    assert found["properties"]["extra"] == {
        "n": HASH_OF_NUMBER,
        "text": f"tel:+{HASH_OF_NUMBER}",
        "order": f"9{NUMBER}1",
    }


@pytest.mark.parametrize("name", ["email", "phone", "phone_number", "Mobile", "email_address"])
def test_a_field_of_such_a_name_is_hidden_and_what_it_holds_everywhere(name):
    payload = {
        "type": "user_created",
        "user": {"id": 1, "x": {name: "z@z.example"}, "y": "z@z.example"},
    }
    found = record(payload)["properties"]
    assert found == {"x": {name: digest("z@z.example")}, "y": digest("z@z.example")}
    assert record(payload, None)["properties"] == {"x": {}}


def test_changes_of_an_address_are_hidden():
    changes = {"email": {"from": "old@b.example", "to": "new@b.example", "at": 1795425840}}
    payload = {"type": "user_updated", "user": {"id": 1}, "changes": changes}
    assert record(payload)["properties"] == {
        "changes": {
            "email": {
                "from": digest("old@b.example"),
                "to": digest("new@b.example"),
                "at": 1795425840,
            }
        }
    }


@pytest.mark.parametrize("vero_type", VERO_TYPES)
@pytest.mark.parametrize("key", [KEY, None])
def test_no_documented_payload_shows_its_address(vero_type, key):
    payload = documented(vero_type)
    addresses = {payload["user"]["email"], (payload.get("campaign") or {}).get("sent_to")} - {None}
    text = json.dumps(record(payload, key))
    assert addresses
    assert not [address for address in addresses if address in text]


def test_another_key_is_another_hash():
    one, other = (record(payload_with(ADDRESS), key) for key in ("one", "other"))
    assert one["context_traits_email"] != other["context_traits_email"]


def test_what_is_too_short_to_be_told_from_other_text_is_hidden_where_it_stands_alone():
    payload = payload_with("a@b.example", bounce_message="7 of 7")
    payload["campaign"]["sent_to"] = 7
    found = record(payload)
    assert (found["campaign_sent_to"], found["bounce_message"]) == (digest("7"), "7 of 7")


@pytest.mark.parametrize("key", [KEY, None])
def test_a_value_that_is_the_name_of_a_field_ends_nothing(key):
    payload = payload_with(ADDRESS)
    payload["campaign"]["sent_to"] = "traits"
    call = to_track(read_object(json.dumps(payload).encode()), RECEIVED)
    assert call.context is not None
    call.context["traits"]["plan"] = "pro"
    Addresses(key).hide(call)
    found = to_row(call, BY_EVENT[call.event]).record()
    assert found["context_traits_email"] == (key and HASH)
    assert found["campaign_sent_to"] == (key and digest("traits"))


def test_a_blank_address_makes_no_address_of_other_blank_text():
    found = record(payload_with("  ", bounce_message="", extra=" "))
    assert (found["bounce_message"], found["properties"]["extra"]) == ("", " ")


WORDS = ["traits", "email", "campaign_name", "987", 987, "yes", "550", "campaign_trigger_event"]


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_a_word_or_short_number_hides_no_other_value_and_no_name(word, key):
    payload = payload_with(ADDRESS, extra={str(word): word, "list": [word], "deep": {"x": word}})
    payload["user"]["id"] = str(word)
    payload["campaign"]["sent_to"] = word
    expected = plain(payload) | {"campaign_sent_to": key and digest(str(word))}
    expected["context_traits_email"] = key and HASH
    if word == "email":  # a field of that name holds an address
        expected["properties"] = plain(payload)["properties"]
        if key:
            expected["properties"]["extra"]["email"] = digest("email")
        else:
            del expected["properties"]["extra"]["email"]
    assert record(payload, key) == expected | ({} if key else {"context": None})


def test_a_field_of_such_a_name_is_hidden_where_it_holds_a_word():
    payload = {
        "type": "user_created",
        "user": {"id": 1, "mobile": 1, "seats": 1, "phones": 1, "Phone": "no", "news": "no"},
    }
    assert record(payload)["properties"] == {
        "mobile": digest("1"),
        "seats": 1,
        "phones": 1,
        "Phone": digest("no"),
        "news": "no",
    }
    assert record(payload, None)["properties"] == {"seats": 1, "phones": 1, "news": "no"}


@pytest.mark.parametrize("written", ["+61400000000", "+61 400 000 000", "(61) 400-000-000"])
def test_a_number_is_found_however_it_was_written(written):
    payload = payload_with("a@b.example", bounce_message=f"to 61400000000, {written}")
    payload["campaign"]["sent_to"] = written
    found = record(payload)
    assert found["campaign_sent_to"] == digest(written)
    assert found["bounce_message"] == f"to {digest(written)}, {digest(written)}"


def test_an_address_with_a_name_is_found_without_it():
    payload = payload_with(f"Steve <{ADDRESS}>", bounce_message=f"550 {ADDRESS.lower()}: no")
    assert record(payload)["bounce_message"] == f"550 {HASH}: no"


def test_a_device_token_is_hidden_everywhere():
    token = "740F4707BEBCF74F9B7C25D48E3358945F6AA01DA5DDB387462C7EAF61BB78AD"
    payload = payload_with("a@b.example", extra={"token": token, token: [f"<{token.lower()}>"]})
    payload["campaign"] |= {"sent_to": token, "channel": "push"}
    assert token.lower() not in json.dumps(record(payload)).lower()
    assert token.lower() not in json.dumps(record(payload, None)).lower()


def test_names_that_become_one_keep_both_values():
    payload = payload_with(ADDRESS, extra={ADDRESS: 1, ADDRESS.lower(): 2})
    assert sorted(record(payload)["properties"]["extra"].values()) == [1, 2]
    assert sorted(record(payload, None)["properties"]["extra"].values()) == [1, 2]


def test_whom_a_message_was_sent_to_can_be_several():
    payload = payload_with("a@b.example", bounce_message=ADDRESS)
    payload["campaign"]["sent_to"] = [ADDRESS, {"n": 5}, "x"]
    found = record(payload)
    assert found["campaign_sent_to"] is None
    assert found["properties"]["campaign"]["sent_to"] == [HASH, {"n": 5}, digest("x")]
    assert found["bounce_message"] == HASH
