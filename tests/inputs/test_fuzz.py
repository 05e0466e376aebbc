"""Damaged and hostile inputs, 200,000 of them with all rounds, the same in every run.

A failure names the input's number; ``mutated(number, corpus)`` makes it again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest
from jsonschema import Draft7Validator

from tap_vero_segment import times, track
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.collector.settings import Secrets
from tap_vero_segment.inputs.body import UnmappableError
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.inputs.segment import EVENTS, read_call
from tap_vero_segment.record import to_record
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tap_vero_segment.tap.streams import collection_schema
from tests.support.asgi import ask, running
from tests.support.collector import WEBHOOK_TOKEN, WRITE_KEY
from tests.support.mutation import BATCHES, LINES, VERO, mutated, zipped
from tests.support.records import assert_shape
from tests.support.rounds import by_rounds, rounds
from tests.support.stored import url_of
from tests.support.validation import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_vero_segment.collection import Collection
    from tests.support.asgi import Answer

pytestmark = by_rounds

WEBHOOKS = rounds(30_000)
CALLS = rounds(20_000)
ARCHIVED = rounds(150_000)
TOGETHER = 500
SECRETS = Secrets(webhook_token=(WEBHOOK_TOKEN,), write_key=(WRITE_KEY,))
BASIC = b"Basic " + base64.b64encode(f"{WRITE_KEY}:".encode())


@pytest.fixture
def store() -> Iterator[Path]:
    """A store in memory where there is such a thing: this is not about the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "vero-events.db"


@cache
def validator(collection: Collection) -> Draft7Validator:
    return Draft7Validator(collection_schema(collection), format_checker=FORMATS)


def assert_is_a_record(call: track.TrackCall, number: int) -> None:
    collection = BY_EVENT[call.event]
    record = to_record(call, collection)
    assert_shape(record)
    if number % 200 == 0:  # the whole schema, which takes ten times as long
        assert not list(validator(collection).iter_errors(record))


def post_all(store: Path, count: int, request: Callable) -> Iterator[tuple[int, Answer]]:
    """Post so many requests, many at once, to the collector's application on a real store."""

    async def scenario() -> list[Answer]:
        answers: list[Answer] = []
        async with running(
            lambda: SqliteWriter(url_of(store), "store"),
            max_pending=10 * TOGETHER,
            max_pending_bytes=2**30,
            secrets=SECRETS,
        ) as app:
            for start in range(0, count, TOGETHER):
                numbers = range(start, min(start + TOGETHER, count))
                answers += await asyncio.gather(*(ask(app, "POST", *request(n)) for n in numbers))
        return answers

    return enumerate(asyncio.run(scenario()))


def kept(store: Path) -> tuple[set[str], set[bytes], set[bytes]]:
    """Return the ids and the hashes of the bodies of a store's events, and those of its letters."""
    ids, bodies, letters = set(), set(), set()
    connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    for event_id, body in connection.execute("SELECT id, body FROM events"):
        ids.add(event_id)
        bodies.add(hashlib.sha256(body or b"").digest())
    for body, reason in connection.execute("SELECT body, reason FROM dead_letters"):
        letters.add(hashlib.sha256(body).digest())
        assert "fault" not in reason, (reason, body[:2_000])
    connection.close()
    with SqliteReader(url_of(store), "store") as reader:
        after = 0
        while page := reader.lines(after, None, 5_000):
            for number, line in enumerate(page):
                call = track.decode(line)
                assert_is_a_record(call, number)
            after = times.from_text(call.loaded_at)
    return ids, bodies, letters


def tell(what: str, count: int, outcomes: Counter) -> None:
    sys.stdout.write(f"{count} {what}: {dict(sorted(outcomes.items()))}\n")


def test_webhooks(store, caplog):
    caplog.set_level("CRITICAL")
    outcomes: Counter[int] = Counter()
    path = f"/vero/{WEBHOOK_TOKEN}"

    answers = post_all(store, WEBHOOKS, lambda number: (path, mutated(number, VERO)))

    ids, bodies, letters = kept(store)
    for number, answer in answers:
        outcomes[answer.status] += 1
        assert answer.status in {200, 400}, number
        body = mutated(number, VERO)
        digest = hashlib.sha256(body).digest()
        if answer.status == 400:
            assert digest in letters, number
        elif digest not in bodies and digest not in letters:
            # Its like was there before, maybe in the ten minutes before these: it has no time.
            event = read_vero(body, times.now())
            assert not ids.isdisjoint({event.id, *event.alike}), number
    tell("webhooks", WEBHOOKS, outcomes)
    assert min(outcomes[200], outcomes[400]) > WEBHOOKS / 10


def test_calls_of_the_tracking_api(store, caplog):
    caplog.set_level("CRITICAL")
    outcomes: Counter[int] = Counter()

    def request(number: int) -> tuple[str, bytes, list[tuple[bytes, bytes]]]:
        body = mutated(number, BATCHES)
        headers = [(b"authorization", BASIC)] if number % 3 else []
        if number % 16 == 0:
            body = zipped(number // 16, body)
            headers.append((b"content-encoding", b"gzip"))
        return ("/v1/track" if number % len(BATCHES) < len(LINES) else "/v1/batch", body, headers)

    answers = post_all(store, CALLS, request)

    ids, _, letters = kept(store)
    for number, answer in answers:
        outcomes[answer.status] += 1
        assert answer.status in {200, 400, 401, 413}, number
        if answer.status == 200 and number % 16:
            for call in ours(mutated(number, BATCHES)):
                known = call.get("messageId") in ids or not letters.isdisjoint(digests(call))
                assert known, number
    tell("calls", CALLS, outcomes)
    assert min(outcomes[200], outcomes[400], outcomes[413]) > CALLS / 100


def ours(body: bytes) -> Iterator[dict]:
    """The calls of a body that are of the collections and have an id that needs no cleaning."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):  # read with patience: its calls are counted nowhere else
        return
    for call in content["batch"] if isinstance(content.get("batch"), list) else [content]:
        kind = call.get("type") if call is not content else "track"
        identified = isinstance(call.get("messageId"), str) and call["messageId"].isprintable()
        of_ours = isinstance(call.get("event"), str) and call["event"] in EVENTS
        if kind == "track" and of_ours and identified and call["messageId"]:
            yield call


def digests(call: dict) -> set[bytes]:
    text = json.dumps(call, sort_keys=True, separators=(",", ":"))
    compact = json.dumps(call, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {hashlib.sha256(form.encode(errors="replace")).digest() for form in (text, compact)}


def test_lines_of_an_archive():
    outcomes: Counter[str] = Counter()
    for number in range(ARCHIVED):
        try:
            call = read_call(mutated(number, LINES))
        except UnmappableError:
            outcomes["refused"] += 1
            continue
        except Exception as error:  # noqa: BLE001  # whatever it is, its number matters
            pytest.fail(f"line {number}: {type(error).__name__}")
        if call is None:
            outcomes["ignored"] += 1
            continue
        outcomes["read"] += 1
        call.loaded_at = call.received_at
        assert_is_a_record(track.decode(track.encode(call)), number)
    tell("lines", ARCHIVED, outcomes)
    assert min(outcomes.values()) > ARCHIVED / 100
