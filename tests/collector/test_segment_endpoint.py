"""``POST /segment``: Segment's Webhooks destinations."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.collector.test_tracking_endpoint import events, status
from tests.support import docs
from tests.support.collector import (
    SECRETS,
    SEGMENT_SECRET,
    Collector,
    clean_environment,
    run_collector,
)

if TYPE_CHECKING:
    from pathlib import Path

# The fields of a call as the classic destination was seen to deliver it.
CALL = {
    "channel": "server",
    "context": {"traits": {"email": "a@example.com"}, "library": {"name": "vero"}},
    "event": "Email Delivered",
    "integrations": {},
    "messageId": "message-1",
    "projectId": "project",
    "properties": {"email_id": "m1", "campaign_id": 987},
    "receivedAt": "2026-11-23T09:24:01.234Z",
    "timestamp": "2026-11-23T09:24:00.000Z",
    "type": "track",
    "userId": "user-1",
    "version": 2,
}


def sign(content: bytes, secret: str = SEGMENT_SECRET) -> str:
    return hmac.new(secret.encode(), content, hashlib.sha1).hexdigest()


def compact(value: Any) -> bytes:
    """JSON as ``JSON.stringify`` writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def post(
    collector: Collector, body: bytes, signature: str | None, header: str = "X-Signature"
) -> requests.Response:
    headers = {"Content-Type": "application/json"}
    if signature is not None:
        headers[header] = signature
    return requests.post(f"{collector.url}/segment", data=body, headers=headers, timeout=30)


def test_a_signed_call_keeps_segments_times(collector: Collector) -> None:
    body = compact(CALL)

    for _ in range(2):  # delivered twice
        response = post(collector, body, sign(body))
        assert (response.status_code, response.json()) == (200, {"success": True})

    (event,) = events(collector)
    del event["loadedAt"]
    assert event == {
        "type": "track",
        "messageId": "message-1",
        "event": "Email Delivered",
        "userId": "user-1",
        "timestamp": "2026-11-23T09:24:00.000000Z",
        "receivedAt": "2026-11-23T09:24:01.234000Z",
        "context": {"traits": {"email": "a@example.com"}, "library": {"name": "vero"}},
        "properties": {"email_id": "m1", "campaign_id": 987},
    }


@pytest.mark.parametrize(
    "signature", [None, "", "0" * 40, sign(compact(CALL), "another secret"), "Zoë".encode().hex()]
)
def test_a_call_that_is_not_signed_is_refused(collector: Collector, signature: str | None) -> None:
    assert post(collector, compact(CALL), signature).status_code == 401
    assert events(collector) == []


def test_the_signature_is_of_the_bytes_as_they_came(collector: Collector) -> None:
    body = compact(CALL)
    spaced = json.dumps(CALL, indent=1).encode()
    assert post(collector, spaced, sign(body)).status_code == 401
    assert post(collector, spaced, sign(spaced)).status_code == 200


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("content", [CALL, [CALL]], ids=["call", "array"])
@pytest.mark.parametrize("mark", [b"", BOM], ids=["", "mark"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_body_may_be_zipped_and_begin_with_a_byte_order_mark(
    collector: Collector, content: Any, mark: bytes, *, zipped: bool
) -> None:
    body = mark + compact(content)
    body = gzip.compress(body) if zipped else body

    # The signature is of the bytes as they are sent.
    assert post(collector, body, sign(compact(content) + b" ")).status_code == 401
    assert post(collector, body, sign(body)).status_code == 200
    assert len(events(collector)) == 1


def test_a_zipped_body_is_bounded_and_kept_where_it_is_damaged(collector: Collector) -> None:
    bomb, cut = gzip.compress(b" " * 50_000_000), gzip.compress(compact(CALL))[:-9]

    assert post(collector, bomb, sign(bomb)).status_code == 413
    assert status(collector)["quarantined"] == 0
    assert post(collector, cut, sign(cut)).status_code == 400
    assert status(collector)["quarantined"] == 1


def test_an_array_is_taken_when_the_signature_covers_it(collector: Collector) -> None:
    calls = [CALL, CALL | {"messageId": "message-2"}, {"type": "identify", "userId": "u"}]
    body = compact(calls)

    assert post(collector, body, sign(body), "X-Segment-Signature").status_code == 200
    # Cut differently when it is tried again.
    body = compact(calls[1:])
    assert post(collector, body, sign(body)).status_code == 200

    assert [event["messageId"] for event in events(collector)] == ["message-1", "message-2"]


def test_an_array_that_is_signed_in_part_is_refused(collector: Collector) -> None:
    body = compact([CALL, CALL | {"messageId": "message-2"}])
    assert post(collector, body, sign(compact(CALL))).status_code == 401
    assert events(collector) == []


def test_an_array_that_is_signed_in_part_is_taken_if_told_so(tmp_path: Path) -> None:
    secrets = SECRETS | {"VERO_COLLECTOR_SEGMENT_LEGACY_BATCHES": "true"}
    with Collector(tmp_path, secrets) as collector:
        first = CALL | {"properties": {"email_subject": "Zoë \N{MAPLE LEAF}"}}
        body = compact([first, CALL | {"messageId": "message-2"}])
        assert post(collector, body, sign(compact(first))).status_code == 200
        assert len(events(collector)) == 2

        assert post(collector, body, sign(compact(CALL))).status_code == 401
        assert post(collector, b"[]", sign(b"")).status_code == 401


@pytest.mark.parametrize("body", [b"", b"{", b"17", b"null"])
def test_what_is_no_call_is_quarantined(collector: Collector, body: bytes) -> None:
    assert post(collector, body, sign(body)).status_code == 400
    assert status(collector)["quarantined"] == 1


def test_what_is_replaced_is_kept(collector: Collector) -> None:
    body = compact(CALL | {"receivedAt": "then", "messageId": {"a": 1}})

    assert post(collector, body, sign(body)).status_code == 200

    (event,) = events(collector)
    added = {"receivedAt": "then", "messageId": {"a": 1}}
    assert event["context"] == CALL["context"] | added  # type: ignore[operator]


@pytest.mark.parametrize("odd", [5, None, [CALL | {"messageId": "within"}]])
def test_what_is_no_call_costs_those_beside_it_nothing(collector: Collector, odd: Any) -> None:
    body = compact([odd, CALL, 5])

    assert post(collector, body, sign(body)).status_code == 200

    replay = ["dead-letters", "replay", "--store", collector.store_url]
    assert "1 stay" in run_collector(*replay, cwd=collector.folder).stdout
    assert [event["messageId"] for event in events(collector)] == ["message-1"]
    with SqliteReader(collector.store_url, "store") as reader:
        [kept] = reader.dead_letters(0, 2)
    assert (kept.letter.reason, json.loads(kept.letter.body)) == (
        "calls that are no objects",
        [odd, 5],
    )


def test_an_array_that_was_quarantined_for_what_is_no_call_yields_the_others(
    collector: Collector,
) -> None:
    writer = SqliteWriter(collector.store_url, "store")
    writer.write([], [DeadLetter(0, "segment", "no array of them", compact([CALL, 5]))])
    writer.close()

    run_collector("dead-letters", "replay", "--store", collector.store_url, cwd=collector.folder)

    assert [event["messageId"] for event in events(collector)] == ["message-1"]
    assert status(collector)["quarantined"] == 1


def test_other_notices_are_acknowledged(collector: Collector) -> None:
    body = compact({"type": "delete", "userId": "user-1", "channel": "server"})
    assert post(collector, body, sign(body)).status_code == 200
    assert events(collector) == []
    assert status(collector)["ignored"] == 1


def test_without_a_secret_the_input_is_not_there(tmp_path: Path) -> None:
    secrets = {name: value for name, value in SECRETS.items() if "SEGMENT" not in name}
    with Collector(tmp_path, secrets) as collector:
        assert post(collector, compact(CALL), sign(compact(CALL))).status_code == 404


def test_what_the_documentation_says_to_try_by_hand_works(collector: Collector) -> None:
    (commands,) = docs.blocks("collector/segment-calls.md", "sh")
    for secret, said in ((SEGMENT_SECRET, '{"success":true}'), ("another", "signature")):
        done = subprocess.run(
            [
                "bash",
                "-euo",
                "pipefail",
                "-c",
                commands.replace("https://collector.example", collector.url),
            ],
            env=clean_environment() | {"VERO_COLLECTOR_SEGMENT_SECRET": secret},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert said in done.stdout
    assert events(collector) == []
    assert status(collector)["ignored"] == 1
