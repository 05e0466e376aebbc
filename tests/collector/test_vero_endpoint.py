from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import apsw
import pytest
import requests

from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tests.support.collector import WEBHOOK_TOKEN, Collector
from tests.support.events import quarantined, read_events, status
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.load import Load
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, STREAM_OF, documented, many

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 512 * 1024
_numbers = count(1_000_000)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """One collector for the module: each test posts payloads of its own."""
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running
        assert_tells_nothing(running.log())


def fresh() -> dict[str, Any]:
    """Return a payload that no other test posts."""
    return documented() | {"user": {"id": next(_numbers), "email": "someone@example.com"}}


def users(collector: Collector) -> list[str]:
    return [event.get("userId") for event in read_events(collector)]


def send(
    collector: Collector,
    body: Any,
    method: str = "POST",
    token: str = WEBHOOK_TOKEN,
    **headers: str,
) -> http.client.HTTPResponse:
    """Send all of a body before reading anything, with no header that was not asked for."""
    address = urlsplit(collector.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    with closing(connection):
        connection.request(method, f"/vero/{token}", body, headers)
        response = connection.getresponse()
        response.read()
    return response


@pytest.mark.parametrize("vero_type", [*EMAIL_TYPES, *OTHER_TYPES])
def test_every_documented_payload_is_acknowledged_and_readable(shared, vero_type):
    payload = documented(vero_type) | {"user": {"id": next(_numbers)}}
    before = len(read_events(shared))

    response = shared.post(payload)

    assert response.status_code == 200
    assert response.json() == {"success": True}
    events = read_events(shared)[before:]
    assert [event["userId"] for event in events] == [str(payload["user"]["id"])]
    assert events[0]["event"].lower().replace(" ", "_") == STREAM_OF[vero_type]


def test_a_webhook_delivered_twice_is_stored_once(shared):
    payload = fresh()
    reordered = dict(reversed([(key, payload[key]) for key in payload]))
    spaced = json.dumps(reordered, indent=4).encode()

    answers = [shared.post(body) for body in (payload, payload, reordered, spaced)]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert users(shared).count(str(payload["user"]["id"])) == 1


def test_a_webhook_delivered_by_many_at_once_is_stored_once(shared):
    payload = fresh()
    load = Load(shared.url, iter([payload] * 320))

    asyncio.run(load.run(connections=32))

    assert len(load.acknowledged) == 320
    assert users(shared).count(str(payload["user"]["id"])) == 1


def test_a_webhook_delivered_again_after_a_restart_is_stored_once(tmp_path):
    payload = fresh()
    for _ in range(2):
        with Collector(tmp_path) as collector:
            assert collector.post(payload).status_code == 200
            assert users(collector) == [str(payload["user"]["id"])]


def test_the_body_is_kept_verbatim_beside_the_track_call(shared):
    body = json.dumps(fresh(), indent=3).encode()

    shared.post(body)

    with apsw.Connection(str(shared.store), flags=apsw.SQLITE_OPEN_READONLY) as store:
        kept = store.execute("SELECT body FROM events ORDER BY loaded_at DESC LIMIT 1").get
    assert kept == body


DEEP = 100_000
# What it is: (body, status, whether it is quarantined)
MALFORMED: dict[str, tuple[bytes, int, bool]] = {
    "nothing": (b"", 400, True),
    "not JSON": (f"hello {FRAGMENT}".encode(), 400, True),
    "JSON that breaks off": (json.dumps({"type": "sent", "a": FRAGMENT})[:-3].encode(), 400, True),
    "an array": (json.dumps([FRAGMENT]).encode(), 400, True),
    "a number": (b"17", 400, True),
    "text": (json.dumps(FRAGMENT).encode(), 400, True),
    "null": (b"null", 400, True),
    "bad UTF-8": (b'{"type": "sent", "a": "\xff\xfe"}', 400, True),
    "600 KB": (b'{"type": "sent", "a": "%b"}' % (b"x" * 600_000), 413, False),
    "50 MB": (b'{"type": "sent", "a": "%b"}' % (b"x" * 50_000_000), 413, False),
    "a deep array": (b"[" * DEEP + b"]" * DEEP, 400, True),
    "a deep object": (b'{"":' * DEEP + b"0" + b"}" * DEEP, 200, True),
    "an unknown type": (json.dumps({"type": FRAGMENT}).encode(), 200, True),
    "no type": (json.dumps({"sent_at": 1, "a": FRAGMENT}).encode(), 200, True),
    "a type that is no text": (json.dumps({"type": [FRAGMENT]}).encode(), 200, True),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_body_has_its_documented_status_and_harms_nothing(shared, what):
    body, expected, kept = MALFORMED[what]
    before, after, dead_letters = fresh(), fresh(), quarantined(shared)
    shared.post(before)

    assert send(shared, body).status == expected

    assert shared.post(after).status_code == 200
    assert users(shared)[-2:] == [str(before["user"]["id"]), str(after["user"]["id"])]
    assert quarantined(shared) - dead_letters == kept


def test_too_long_a_body_in_chunks_of_unknown_number_is_refused(shared):
    chunks = (b"x" * 65_536 for _ in range(10))

    assert send(shared, chunks).status == 413
    assert shared.post(fresh()).status_code == 200


@pytest.mark.parametrize(("size", "expected"), [(LIMIT, 200), (LIMIT + 1, 413)])
def test_the_limit_of_a_body_is_exact(shared, size, expected):
    body = json.dumps(fresh()).encode()

    assert send(shared, body + b" " * (size - len(body))).status == expected


def test_a_connection_goes_on_after_too_long_a_body(shared):
    with requests.Session() as session:
        url = f"{shared.url}/vero/{WEBHOOK_TOKEN}"
        assert session.post(url, data=b"x" * (LIMIT + 1), timeout=30).status_code == 413
        assert session.post(url, json=fresh(), timeout=30).status_code == 200


def test_what_is_quarantined_is_kept_verbatim_and_once_and_counted(tmp_path):
    bodies = [b"not JSON at all", b'{"type":  "telegram"}', b"[1]"]
    with Collector(tmp_path) as collector:
        for body in bodies * 2:
            collector.post(body)
        collector.post(fresh())
        figures = status(collector)

    assert figures["quarantined"] == 3
    assert figures["events"] == 1
    with apsw.Connection(str(collector.store), flags=apsw.SQLITE_OPEN_READONLY) as store:
        assert store.execute("SELECT body FROM dead_letters ORDER BY id").fetchall() == [
            (body,) for body in bodies
        ]


@pytest.mark.parametrize(
    "token", ["wrong", "", WEBHOOK_TOKEN[:-1], f"{WEBHOOK_TOKEN}/", "%C3%A4%00"]
)
def test_a_wrong_token_finds_nothing_and_stores_nothing(shared, token):
    payload, dead_letters = fresh(), quarantined(shared)

    assert send(shared, json.dumps(payload), token=token).status == 404
    assert send(shared, b"not JSON", token=token).status == 404

    assert str(payload["user"]["id"]) not in users(shared)
    assert quarantined(shared) == dead_letters


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_told_the_right_one(shared, method):
    response = send(shared, None, method)

    assert response.status == 405
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("length", ["content-length: 1000", "transfer-encoding: chunked"])
def test_a_sender_that_goes_away_in_the_middle_stores_nothing_and_harms_nothing(shared, length):
    before, dead_letters = len(read_events(shared)), quarantined(shared)
    address = urlsplit(shared.url)
    head = f"POST /vero/{WEBHOOK_TOKEN} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n"

    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + b"2\r\n{}\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000) == b""

    assert shared.post(fresh()).status_code == 200
    assert len(read_events(shared)) == before + 1
    assert quarantined(shared) == dead_letters


WEIRD: list[Any] = [None, True, 0, -1.5, 1e308, 2**70, "", "text", "\0", [], [[1]], {}, {"id": {}}]
PATHS = [
    *((key,) for key in documented() if key != "type"),
    *(("user", key) for key in documented()["user"]),
    *(("campaign", key) for key in documented()["campaign"]),
]


def test_fields_of_unexpected_types_are_never_a_reason_to_refuse(shared):
    before, dead_letters = len(read_events(shared)), quarantined(shared)
    refused = []
    with requests.Session() as session:
        for path in PATHS:
            for value in WEIRD:
                payload = documented() | {"marker": next(_numbers)}
                holder = payload
                for key in path[:-1]:
                    holder = holder[key]
                holder[path[-1]] = value
                url = f"{shared.url}/vero/{WEBHOOK_TOKEN}"
                answer = session.post(url, data=json.dumps(payload), timeout=30)
                if answer.status_code != 200:
                    refused.append((path, value, answer.status_code))

    assert refused == []
    assert len(read_events(shared)) == before + len(PATHS) * len(WEIRD)
    assert quarantined(shared) == dead_letters


@pytest.mark.parametrize(
    "encode",
    [
        quote,
        quote_plus,
        lambda text: urlencode({"payload": text}),
        lambda text: urlencode({"a": "1", "data": text}),
        lambda text: urlencode({text: ""}),
        lambda text: "\ufeff" + text,
    ],
    ids=["percent", "plus", "form field", "second field", "form key", "byte order mark"],
)
def test_an_encoded_body_is_the_same_event_as_the_plain_one(shared, encode):
    payload = fresh() | {"note": "50% off & more = 1+1 ü"}
    dead_letters = quarantined(shared)

    answer = send(shared, encode(json.dumps(payload)).encode())

    assert answer.status == 200
    assert users(shared)[-1] == str(payload["user"]["id"])
    assert shared.post(payload).status_code == 200
    assert users(shared).count(str(payload["user"]["id"])) == 1
    assert quarantined(shared) == dead_letters


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "disguise",
    [
        lambda body: BOM + body,
        gzip.compress,
        lambda body: gzip.compress(BOM + body),
        lambda body: gzip.compress(urlencode({"payload": BOM + body}).encode()),
    ],
    ids=["mark", "gzip", "gzip of a mark", "gzip of a form"],
)
def test_a_zipped_body_and_one_after_a_byte_order_mark_are_the_plain_event(shared, disguise):
    payload = fresh()
    body = json.dumps(payload).encode()

    assert send(shared, disguise(body)).status == 200
    assert shared.post(payload).status_code == 200
    assert users(shared).count(str(payload["user"]["id"])) == 1


def test_a_zipped_body_is_bounded_and_kept_where_it_is_damaged(tmp_path):
    whole = gzip.compress(json.dumps(fresh()).encode())
    damaged = [whole[:-9], whole + whole]
    with Collector(tmp_path) as collector:
        assert send(collector, gzip.compress(b" " * 50_000_000)).status == 413
        assert [send(collector, body).status for body in damaged] == [400, 400]
        with SqliteReader(collector.store_url, "store") as reader:
            assert [kept.letter.body for kept in reader.dead_letters(0, 9)] == damaged


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-16",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        ";;;",
    ],
)
def test_any_content_type_will_do(shared, content_type):
    payload = fresh()
    headers = {} if content_type is None else {"Content-Type": content_type}

    assert send(shared, json.dumps(payload), **headers).status == 200
    assert users(shared)[-1] == str(payload["user"]["id"])


def test_an_acknowledged_event_is_readable_at_once(shared):
    for payload in many(50, seed=3):
        marked = payload | {"user": {"id": next(_numbers)}}
        assert shared.post(marked).status_code == 200
        newest = shared.get("/v1/events", params={"limit": "10000"}).content.splitlines()[-1]
        assert json.loads(newest)["userId"] == str(marked["user"]["id"])
