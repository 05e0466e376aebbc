"""``POST /v1/track``, ``/v1/batch``, ``/v1/import``: Segment's HTTP Tracking API."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_vero_segment.inputs.intake import read_tracked_again
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tests.support.collector import SECRETS, WRITE_KEY, Collector, run_collector
from tests.support.raw import connect, read_answer, request

if TYPE_CHECKING:
    from pathlib import Path

BASIC = (WRITE_KEY, "")
BOM = b"\xef\xbb\xbf"
CALL = {
    "type": "track",
    "event": "Email Opened",
    "messageId": "message-1",
    "userId": "user-1",
    "timestamp": "2026-11-23T09:24:00.000Z",
}
ZIPPED = gzip.compress(json.dumps({"batch": [CALL]}).encode())


def post(
    collector: Collector, path: str, body: Any, auth: tuple[str, str] | None = BASIC, **more: Any
) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(f"{collector.url}{path}", data=data, auth=auth, timeout=30, **more)


def events(collector: Collector) -> list[dict[str, Any]]:
    lines = collector.get("/v1/events?limit=10000").text.splitlines()
    return [json.loads(line) for line in lines]


def status(collector: Collector) -> dict[str, Any]:
    done = run_collector("status", "--json", "--store", collector.store_url, cwd=collector.folder)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def letters(collector: Collector) -> list[tuple[str, Any]]:
    """The dead letters: each one's reason and body."""
    with SqliteReader(collector.store_url, "store") as reader:
        kept = [each.letter for each in reader.dead_letters(0, 100)]
    return [(letter.reason, json.loads(letter.body)) for letter in kept]


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_call_is_stored_as_it_came(collector: Collector) -> None:
    call = CALL | {
        "context": {"ip": "203.0.113.9", "traits": {"email": "a@example.com"}},
        "properties": {"email_id": "m1", "odd": [1, None]},
        "integrations": {"All": True},
        "unknown": {"kept": 1},
        "writeKey": WRITE_KEY,
    }

    response = post(collector, "/v1/track", call)

    assert (response.status_code, response.json()) == (200, {"success": True})
    (event,) = events(collector)
    assert event["messageId"] == "message-1"
    assert event["event"] == "Email Opened"
    assert event["userId"] == "user-1"
    assert event["timestamp"] == event["originalTimestamp"] == "2026-11-23T09:24:00.000000Z"
    assert event["properties"] == {"email_id": "m1", "odd": [1, None]}
    assert event["context"] == {
        "ip": "203.0.113.9",
        "traits": {"email": "a@example.com"},
        "unknown": {"kept": 1},
    }
    assert WRITE_KEY not in json.dumps(event)


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import"])
def test_a_batch_is_stored_and_the_rest_of_it_counted(collector: Collector, path: str) -> None:
    batch = {
        "batch": [
            CALL,
            CALL | {"messageId": "message-2", "event": "Unsubscribed"},
            CALL | {"messageId": "message-3", "event": "Order Completed"},
            {"type": "identify", "userId": "user-1", "messageId": "message-4"},
        ]
    }

    assert post(collector, path, batch).status_code == 200
    assert post(collector, path, batch).status_code == 200  # delivered twice

    assert [(event["messageId"], event["event"]) for event in events(collector)] == [
        ("message-1", "Email Opened"),
        ("message-2", "Email Unsubscribed"),
    ]
    assert status(collector)["ignored"] == 4


@pytest.mark.parametrize("kind", ["identify", "page", "screen", "group", "alias"])
def test_other_calls_are_accepted_and_not_kept(collector: Collector, kind: str) -> None:
    # An event's name in it makes it no track call.
    assert post(collector, f"/v1/{kind}", CALL).status_code == 200
    assert events(collector) == []


@pytest.mark.parametrize(
    ("auth", "key_in_body", "expected"),
    [
        (BASIC, None, 200),
        (None, WRITE_KEY, 200),
        (BASIC, WRITE_KEY, 200),
        (None, None, 401),
        (("wrong", ""), None, 401),
        (("wrong", ""), WRITE_KEY, 401),
        (BASIC, "wrong", 401),
        (None, "wrong", 401),
        (None, 17, 401),
        (("", ""), None, 401),
    ],
)
def test_the_write_key_is_the_basic_user_or_in_the_body(
    collector: Collector, auth: tuple[str, str] | None, key_in_body: Any, expected: int
) -> None:
    call = CALL if key_in_body is None else CALL | {"writeKey": key_in_body}

    for body, path in ((call, "/v1/track"), ({**call, "batch": [CALL]}, "/v1/batch")):
        assert post(collector, path, body, auth=auth).status_code == expected

    assert len(events(collector)) == (1 if expected == 200 else 0)


def test_basic_authentication_that_is_no_base64_is_refused(collector: Collector) -> None:
    headers = {"Authorization": "Basic %%%"}
    assert post(collector, "/v1/track", CALL, auth=None, headers=headers).status_code == 401


def test_without_a_write_key_the_api_is_not_there(tmp_path: Path) -> None:
    secrets = {name: value for name, value in SECRETS.items() if "WRITE_KEY" not in name}
    with Collector(tmp_path, secrets) as collector:
        assert post(collector, "/v1/track", CALL).status_code == 404
        assert requests.options(f"{collector.url}/v1/batch", timeout=30).status_code == 404


def test_a_zipped_body_is_unzipped(collector: Collector) -> None:
    body = gzip.compress(json.dumps({"batch": [CALL]}).encode())
    headers = {"Content-Encoding": "gzip"}

    assert post(collector, "/v1/batch", body, headers=headers).status_code == 200
    assert len(events(collector)) == 1

    assert post(collector, "/v1/batch", body[:-9], headers=headers).status_code == 400
    assert post(collector, "/v1/batch", b"{}", headers=headers).status_code == 400
    bomb = gzip.compress(b" " * 50_000_000)
    assert post(collector, "/v1/batch", bomb, headers=headers).status_code == 413
    other = {"Content-Encoding": "br"}
    assert post(collector, "/v1/batch", body, headers=other).status_code == 415


@pytest.mark.parametrize("body", [ZIPPED[:-9], ZIPPED + ZIPPED, b"{}"], ids=["cut", "two", "none"])
def test_what_is_no_gzip_is_quarantined_as_it_came_if_the_sender_is_known(
    collector: Collector, body: bytes
) -> None:
    headers = {"Content-Encoding": "gzip"}

    assert post(collector, "/v1/batch", body, None, headers=headers).status_code == 400
    assert (
        post(collector, "/v1/batch", body, headers=headers | {"Content-Encoding": "br"}).status_code
        == 415
    )
    assert status(collector)["quarantined"] == 0
    assert post(collector, "/v1/batch", body, headers=headers).status_code == 400
    with SqliteReader(collector.store_url, "store") as reader:
        [kept] = reader.dead_letters(0, 2)
    assert kept.letter.body == body


@pytest.mark.parametrize("behind", ["another batch", "junk"])
def test_a_body_that_goes_on_behind_its_gzip_member_is_refused(
    collector: Collector, behind: str
) -> None:
    first, second = (
        gzip.compress(json.dumps({"batch": [CALL | {"messageId": each}]}).encode()) for each in "ab"
    )
    body = first + (second if behind == "another batch" else b"junk")

    response = post(collector, "/v1/batch", body, headers={"Content-Encoding": "gzip"})

    assert response.status_code == 400
    assert events(collector) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"17",
        b'"text"',
        b"\xff\xfe",
        b'{"batch": 1}',
        b'{"batch": {}}',
        b"{}",
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
)
def test_a_body_that_is_no_batch_is_refused_whole(collector: Collector, body: bytes) -> None:
    assert post(collector, "/v1/batch", body).status_code == 400
    assert post(collector, "/v1/batch", {"batch": [CALL]}).status_code == 200
    assert len(events(collector)) == 1


def test_what_is_no_json_is_quarantined_if_the_sender_is_known(collector: Collector) -> None:
    post(collector, "/v1/batch", b"{no json", auth=None)
    assert status(collector)["quarantined"] == 0
    post(collector, "/v1/batch", b"{no json")
    assert status(collector)["quarantined"] == 1


def test_segments_limits_hold(collector: Collector) -> None:
    large = CALL | {"properties": {"text": "x" * 33_000}}
    assert post(collector, "/v1/track", large).status_code == 400
    batch = {"batch": [CALL | {"messageId": "small"}, large]}
    assert post(collector, "/v1/batch", batch).status_code == 400
    many = {"batch": [{"type": "page"}] * 2_501}
    assert post(collector, "/v1/batch", many).status_code == 400
    assert post(collector, "/v1/batch", b" " * 600_000).status_code == 413
    assert events(collector) == []
    assert post(collector, "/v1/batch", {"batch": [CALL] * 2_500}).status_code == 200
    assert len(events(collector)) == 1


@pytest.mark.parametrize(
    "values",
    [",".join(["1e9"] * 5_000), '"\\ud83d","' + "\u4e2d" * 7_000 + '"'],
    ids=["1e9", "half"],
)
def test_a_call_is_as_long_as_it_came(collector: Collector, values: str) -> None:
    call = json.dumps(CALL | {"properties": {"x": []}}).replace("[]", f"[{values}]")
    long = call.replace(values, f'{values},"{"x" * 15_000}"')

    assert post(collector, "/v1/batch", f'{{"batch": [{long}]}}'.encode()).status_code == 400
    assert events(collector) == []
    assert post(collector, "/v1/batch", f'{{"batch": [{call}]}}'.encode()).status_code == 200
    assert len(events(collector)) == 1


def test_a_clock_that_is_wrong_is_corrected_by_when_the_call_was_sent(
    collector: Collector,
) -> None:
    # The client's clock is a year behind; the event happened ten seconds before it was sent.
    sent = datetime.now(UTC) - timedelta(days=365)
    happened = sent - timedelta(seconds=10)
    batch = {
        "batch": [CALL | {"timestamp": happened.isoformat()}],
        "sentAt": sent.isoformat(),
    }

    assert post(collector, "/v1/batch", batch).status_code == 200

    (event,) = events(collector)
    assert moment(event["originalTimestamp"]) == happened
    assert moment(event["sentAt"]) == sent
    expected = moment(event["receivedAt"]) - timedelta(seconds=10)
    assert moment(event["timestamp"]) == expected


def test_a_call_that_says_nothing_of_time_happened_when_it_came(collector: Collector) -> None:
    call = {"event": "Email Opened", "userId": "user-1"}

    for each in (call, call, call | {"userId": "user-2"}):  # the first ones: sent again
        assert post(collector, "/v1/track", each).status_code == 200

    first, second = events(collector)
    assert (first["userId"], second["userId"]) == ("user-1", "user-2")
    assert first["timestamp"] == first["receivedAt"]
    assert "sentAt" not in first


def test_a_call_without_an_id_but_with_a_time_is_stored_once(collector: Collector) -> None:
    call = {key: value for key, value in CALL.items() if key != "messageId"}

    for body in (call, dict(reversed(call.items()))):
        assert post(collector, "/v1/track", body).status_code == 200

    assert len(events(collector)) == 1


def test_a_batchs_context_is_that_of_its_calls(collector: Collector) -> None:
    shared = {"ip": "203.0.113.9", "locale": "en"}
    calls = [CALL, CALL | {"messageId": "message-2", "context": {"ip": "203.0.113.10"}}]

    assert post(collector, "/v1/batch", {"batch": calls, "context": shared}).status_code == 200

    first, second = events(collector)
    assert first["context"] == shared
    assert second["context"] == {"ip": "203.0.113.10", "locale": "en"}


def test_whatever_else_a_batch_says_is_in_its_calls_context(collector: Collector) -> None:
    said = {"sequence": 7, "messageId": "of the batch", "event": "x", "receivedAt": "then"}
    dropped = {"writeKey": WRITE_KEY, "integrations": {"All": True}, "type": "batch", "version": 2}
    deep = CALL | {"messageId": "deep", "properties": {"x": nested(101)}}
    calls = [CALL | {"sequence": 8, "receivedAt": "2026-11-23T09:24:01Z"}, deep]

    batch = {"batch": calls, "context": "text", **said, **dropped}
    assert post(collector, "/v1/batch", batch).status_code == 200

    (event,) = events(collector)
    assert event["context"] == {
        "context": "text",
        "sequence": 8,
        "receivedAt": "2026-11-23T09:24:01Z",
        "_sequence": 7,
        "_receivedAt": "then",
        "messageId": "of the batch",
        "event": "x",
    }
    # As it would be in the other call's, once that can be mapped.
    ((_, kept),) = letters(collector)
    assert kept == {"batch": [deep], "context": "text", **said}
    kept["batch"][0]["properties"] = {}
    (again,) = read_tracked_again(json.dumps(kept).encode(), 0).events
    context = json.loads(again.call)["context"]
    assert context == said | {"context": "text"}


def test_what_the_collector_puts_in_the_place_of_a_field_does_not_cost_it(
    collector: Collector,
) -> None:
    odd = {"messageId": [1], "receivedAt": "2026-11-23T09:24:01Z", "context": "text"}
    batch = {"batch": [CALL | odd], "context": {"locale": "en"}}

    assert post(collector, "/v1/batch", batch).status_code == 200

    (event,) = events(collector)
    assert event["receivedAt"] > "2026-11-24"
    assert event["context"] == odd | {"locale": "en"}


def test_what_a_batch_says_for_all_its_calls_has_a_limit(collector: Collector) -> None:
    for said in ({"context": {"text": "x" * 33_000}}, {"text": "x" * 33_000}):
        assert post(collector, "/v1/batch", {"batch": [CALL], **said}).status_code == 400
    assert events(collector) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"userId": 17},
        {"userId": {"a": 1}},
        {"userId": None, "anonymousId": None},
        {"context": "text"},
        {"properties": [1, 2]},
        {"timestamp": "yesterday"},
        {"timestamp": 1435016238},
        {"sentAt": {}},
        {"messageId": 5},
        {"properties": {"email_subject": "cut \ud83d", "nul": "\0"}},
    ],
)
def test_fields_of_unexpected_types_are_never_refused(
    collector: Collector, odd: dict[str, Any]
) -> None:
    assert post(collector, "/v1/batch", {"batch": [CALL | odd]}).status_code == 200
    assert len(events(collector)) == 1


def test_a_browser_may_post_from_another_origin(collector: Collector) -> None:
    headers = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    asked = requests.options(f"{collector.url}/v1/track", headers=headers, timeout=30)
    assert asked.status_code == 200
    assert asked.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    allowed = asked.headers["Access-Control-Allow-Headers"]
    assert {"authorization", "content-type"} <= {name.strip() for name in allowed.split(",")}

    posted = post(collector, "/v1/track", CALL, headers={"Origin": "https://shop.example"})
    assert posted.headers["Access-Control-Allow-Origin"] == "*"


CLIENTS = ["/v1/import/", "/v1/b", "//v1/batch", "/v1/t", "/v1/track/", "//v1/b/"]
"""What Segment's clients post to: for Java, C#, older Node, Analytics.js, and mixtures."""


@pytest.mark.parametrize("path", CLIENTS)
def test_the_paths_of_segments_own_clients_are_there(collector: Collector, path: str) -> None:
    body = CALL if "/v1/t" in path else {"batch": [CALL]}

    assert post(collector, path, body).status_code == 200
    assert [event["messageId"] for event in events(collector)] == ["message-1"]


def test_other_calls_are_counted_under_all_their_paths(collector: Collector) -> None:
    kinds = ["identify", "page", "screen", "group", "alias"]
    paths = [f"/v1/{name}{end}" for kind in kinds for name in (kind, kind[0]) for end in ("", "/")]

    for path in paths:
        assert post(collector, path, CALL).status_code == 200

    assert (events(collector), status(collector)["ignored"]) == ([], len(paths))


def test_what_is_no_path_of_a_client_is_not_there(collector: Collector) -> None:
    for path in ("/v1/x", "/v1/", "/v1", "/v1/batch/x", "/v1//batch", "/b", "/v1/events/"):
        assert post(collector, path, {"batch": [CALL]}).status_code == 404
    assert events(collector) == []


def test_a_browser_may_see_every_status(tmp_path: Path) -> None:
    """Without the header it sees none, and sends again what was refused."""
    patient = SECRETS | {"VERO_COLLECTOR_CLIENT_TIMEOUT": "0.6"}
    with Collector(tmp_path, patient) as collector:
        for path in ("/v1/track", "/v1/t/", "//v1/b"):
            url = collector.url + path
            brotli = {"Content-Encoding": "br"}
            responses = [
                post(collector, path, b"{"),
                post(collector, path, CALL, ("wrong", "")),
                post(collector, path, b" " * 600_000),
                post(collector, path, CALL, headers=brotli),
                requests.put(url, timeout=30),
                requests.options(url, timeout=30),
            ]
            found = [response.status_code for response in responses]
            assert found == [400, 401, 413, 415, 405, 200]
            for response in responses:
                assert response.headers["Access-Control-Allow-Origin"] == "*"
        with connect(collector) as client:
            client.sendall(request(b"{}", path="/v1/b?x=1")[:-1])
            late = read_answer(client)
        assert (late.status, late.headers["Access-Control-Allow-Origin"]) == (408, "*")
        assert "Access-Control-Allow-Origin" not in collector.get("/v1/events").headers


def test_a_page_that_is_left_can_still_send(collector: Collector) -> None:
    """A beacon has no headers of its own, and its body is text."""
    body = json.dumps({"batch": [CALL | {"writeKey": WRITE_KEY}], "writeKey": WRITE_KEY})
    headers = {"Content-Type": "text/plain;charset=UTF-8", "Origin": "https://shop.example"}

    assert post(collector, "/v1/b", body.encode(), None, headers=headers).status_code == 200
    assert len(events(collector)) == 1


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZip", None])
def test_a_zipped_body_may_be_called_so_or_not(collector: Collector, coding: str | None) -> None:
    headers = {"Content-Encoding": coding} if coding else {}
    body = gzip.compress(BOM + json.dumps({"batch": [CALL]}).encode())

    assert post(collector, "/v1/batch", body, headers=headers).status_code == 200
    assert len(events(collector)) == 1


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_a_byte_order_mark_is_no_part_of_a_body(collector: Collector, path: str) -> None:
    body = json.dumps(CALL if "track" in path else {"batch": [CALL], "context": {"a": 1}})
    assert post(collector, path, BOM + body.encode()).status_code == 200
    assert len(events(collector)) == 1


FIELDS = {f"{number:04}": 0 for number in range(2_700)}
FILLED = {"x": "x" * 32_000}


@pytest.mark.parametrize("said", [{"context": FILLED}, FILLED, {"context": FIELDS}, FIELDS])
def test_what_is_said_for_all_calls_counts_for_each(collector: Collector, said: Any) -> None:
    small = {"type": "track", "event": "Email Sent"}
    body = gzip.compress(json.dumps({"batch": [small] * 2_500, **said}).encode())

    refused = post(collector, "/v1/batch", body)

    assert refused.status_code == 400
    assert "fewer calls" in refused.json()["error"]
    assert events(collector) == []
    assert 'requests_refused_total{reason="too_large"} 1.0' in collector.get("/metrics").text
    few = [small | {"messageId": str(number)} for number in range(100)]
    assert post(collector, "/v1/batch", {"batch": few, **said}).status_code == 200
    assert len(events(collector)) == 100


def test_a_full_batch_of_a_usual_client_is_taken(collector: Collector) -> None:
    context = {"library": {"name": "analytics", "version": "1.0"}, "userAgent": "M" * 700}
    calls = [CALL | {"messageId": str(number)} for number in range(2_500)]

    assert post(collector, "/v1/batch", {"batch": calls, "context": context}).status_code == 200
    assert len(events(collector)) == 2_500


@pytest.mark.parametrize("half", ["", "\ud83d"], ids=["", "half"])
@pytest.mark.parametrize("key", [WRITE_KEY, "wrong"])
def test_a_long_body_can_show_its_own_key(collector: Collector, half: str, key: str) -> None:
    calls = [
        CALL | {"messageId": str(number), "properties": {"text": half + "x" * 9_000}}
        for number in range(20)
    ]
    body = {"batch": calls, "writeKey": key}

    refused = post(collector, "/v1/batch", body, None)

    assert refused.status_code == (200 if key == WRITE_KEY else 401)
    assert len(events(collector)) == (20 if key == WRITE_KEY else 0)


@pytest.mark.parametrize("name", ["write_key", "WriteKey", "WRITE-KEY"])
def test_a_write_key_is_kept_under_no_name(collector: Collector, name: str) -> None:
    batch = {"batch": [CALL | {name: WRITE_KEY}], name: WRITE_KEY}

    assert post(collector, "/v1/batch", batch).status_code == 200
    assert WRITE_KEY not in json.dumps(events(collector))


def test_only_post_is_answered(collector: Collector) -> None:
    response = requests.get(f"{collector.url}/v1/track", auth=BASIC, timeout=30)
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


def test_nothing_secret_is_logged(collector: Collector) -> None:
    address = {"properties": {"text": "secret@example.com"}}
    post(collector, "/v1/track", CALL | address, auth=("wrong-key", ""))
    post(collector, "/v1/track", b"{secret@example.com")
    post(collector, "/v1/track", CALL | address)
    encoded = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
    for secret in (WRITE_KEY, encoded, "wrong-key", "secret@example.com"):
        assert secret not in collector.log()


def test_what_vero_may_nest_a_batch_may_too(collector: Collector) -> None:
    payload: dict[str, Any] = {"type": "sent", "user": {"id": 1}}
    inner = payload
    for _ in range(99):
        inner["deep"] = {}
        inner = inner["deep"]
    assert collector.post(payload).status_code == 200
    (event,) = events(collector)

    again = {"batch": [event | {"messageId": "sent on"}]}
    assert post(collector, "/v1/batch", again).status_code == 200

    assert len(events(collector)) == 2
    assert status(collector)["quarantined"] == 0


@pytest.mark.parametrize("levels", [101, 350])
@pytest.mark.parametrize("auth", [BASIC, None])
def test_a_call_that_is_nested_too_deeply_costs_the_others_nothing(
    collector: Collector, levels: int, auth: tuple[str, str] | None
) -> None:
    deep = CALL | {"messageId": "deep", "properties": {"x": nested(levels)}}
    other = deep | {"type": "identify"}

    batch = {"batch": [deep, CALL, other], "writeKey": WRITE_KEY}
    assert post(collector, "/v1/batch", batch, auth).status_code == 200
    alone = deep | {"messageId": "alone"}
    assert post(collector, "/v1/track", alone).status_code == 200

    assert [event["messageId"] for event in events(collector)] == ["message-1"]
    assert letters(collector) == [("nested deeper than 100 levels", each) for each in (deep, alone)]
    assert status(collector)["ignored"] == 1


def test_a_call_that_is_no_object_costs_the_others_nothing(collector: Collector) -> None:
    odd = [5, None, "text", [CALL | {"messageId": "within"}]]
    for sent_at in ({}, {"sentAt": "2026-11-23T09:24:00.000Z"}):
        batch = {"batch": [*odd, CALL], "context": {"locale": "en"}, **sent_at}
        assert post(collector, "/v1/batch", batch).status_code == 200

    assert [event["messageId"] for event in events(collector)] == ["message-1"]
    assert letters(collector) == [
        ("calls that are no objects", {"batch": odd, **sent_at})
        for sent_at in ({}, {"sentAt": "2026-11-23T09:24:00.000Z"})
    ]
    replay = ["dead-letters", "replay", "--store", collector.store_url]
    assert "2 stay" in run_collector(*replay, cwd=collector.folder).stdout
    assert len(events(collector)) == 1
