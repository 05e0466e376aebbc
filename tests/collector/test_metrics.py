from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tap_vero_segment.collector.endpoints import health as endpoint
from tap_vero_segment.collector.responses import ErrorReason
from tap_vero_segment.errors import SettingError
from tap_vero_segment.limits import MAX_BODY
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.asgi import ask, post, running
from tests.support.collector import (
    READ_TOKEN,
    SEGMENT_SECRET,
    WEBHOOK_TOKEN,
    WRITE_KEY,
    Collector,
)
from tests.support.exposition import figures, scrape
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.payloads import documented, many
from tests.support.store import NobodyErased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_vero_segment.collector.app import App

SECONDS = 30
CALL = {"type": "track", "event": "Email Opened", "userId": "1", "messageId": "m1"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{WRITE_KEY}:".encode()).decode()}


def nested(levels: int) -> dict:
    """A call that is JSON, but nested too deeply for the store."""
    call = CALL | {"messageId": "nested"}
    inner = call
    for _ in range(levels):
        inner["deep"] = {}
        inner = inner["deep"]
    return call


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


def grown(collector: Collector, action: Callable[[], object]) -> dict[str, float]:
    """Return which of the counters an action has changed, and by how much."""
    before = scrape(collector)
    action()
    after = scrape(collector)
    return {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if not name.startswith(("process_", "python_", "store_", "queue_", "commit_"))
        and value != before.get(name, 0)
    }


def batch(collector: Collector, *calls: dict) -> int:
    url = f"{collector.url}/v1/batch"
    return requests.post(url, json={"batch": calls}, headers=BASIC, timeout=30).status_code


def signed(collector: Collector, body: bytes, secret: str = SEGMENT_SECRET) -> int:
    signature = hmac.new(secret.encode(), body, "sha1").hexdigest()
    headers = {"X-Signature": signature}
    return requests.post(f"{collector.url}/segment", body, headers=headers, timeout=30).status_code


def test_events_are_counted_as_new_once(shared):
    payloads = many(3, seed=1)

    def deliver():
        for payload in (*payloads, payloads[0]):
            assert shared.post(payload).status_code == 200

    assert grown(shared, deliver) == {"events_accepted_total": 3, "events_duplicate_total": 1}


def test_a_batch_is_counted_call_by_call(shared):
    other = {"type": "identify", "userId": "1"}
    calls = [CALL, CALL, other, other | {"userId": "2"}]

    assert grown(shared, lambda: batch(shared, *calls)) == {
        "events_accepted_total": 1,
        "events_duplicate_total": 1,
        "calls_ignored_total": 2,
    }


def test_dead_letters_are_counted_where_they_came_in(shared):
    def deliver():
        assert shared.post({"type": "of tomorrow"}).status_code == 200
        assert shared.post(b"no JSON").status_code == 400
        assert signed(shared, json.dumps(nested(101)).encode()) == 200
        url = f"{shared.url}/v1/track"
        assert requests.post(url, json=nested(101), headers=BASIC, timeout=30).status_code == 200

    assert grown(shared, deliver) == {
        'dead_letters_kept_total{input="vero"}': 2,
        'dead_letters_kept_total{input="segment"}': 1,
        'dead_letters_kept_total{input="tracking"}': 1,
        'requests_refused_total{reason="not_json"}': 1,
    }


@pytest.mark.parametrize(
    ("refused", "status", "reason"),
    [
        (lambda c: c.post(documented(), token="wrong").status_code, 404, "wrong_secret"),
        (lambda c: signed(c, b"{}", "wrong"), 401, "wrong_secret"),
        (lambda c: c.get("/v1/events", headers={}).status_code, 401, "wrong_secret"),
        (lambda c: c.get("/nothing").status_code, 404, "not_found"),
        (lambda c: c.get(f"/vero/{WEBHOOK_TOKEN}").status_code, 405, "method"),
        (lambda c: c.get("/v1/events?limit=0").status_code, 400, "bad_request"),
        (lambda c: batch(c, *[{}] * 2_501), 400, "too_large"),
        (lambda c: c.post(b" " * (MAX_BODY + 1)).status_code, 413, "too_large"),
        (
            lambda c: (
                requests.post(
                    f"{c.url}/v1/track", b"", headers=BASIC | {"Content-Encoding": "br"}, timeout=30
                ).status_code
            ),
            415,
            "unsupported_encoding",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_is_counted_by_its_reason(shared, refused, status, reason):
    answers = []

    changes = grown(shared, lambda: answers.append(refused(shared)))

    assert answers == [status]
    assert changes == {f'requests_refused_total{{reason="{reason}"}}': 1}


def test_what_the_store_holds_is_told(collector):
    empty = scrape(collector)
    assert "store_newest_event_age_seconds" not in empty
    assert empty['store_events{collection="email_opened"}'] == 0

    began = time.time()
    collector.post(documented("sent"))
    collector.post(documented("opened"))
    collector.post(documented("opened") | {"opened_at": 1435016299})
    collector.post(b"no JSON")
    told = scrape(collector)

    assert told["store_readable"] == 1
    assert told['store_events{collection="email_sent"}'] == 1
    assert told['store_events{collection="email_opened"}'] == 2
    assert told["store_dead_letters"] == 1
    assert told["store_size_bytes"] >= collector.store.stat().st_size > 0
    assert 0 <= told["store_newest_event_age_seconds"] <= time.time() - began
    assert (told["commit_duration_seconds_count"], told["commit_submissions_sum"]) == (4, 4)
    assert 0 < told["commit_duration_seconds_sum"] < time.time() - began
    assert told["process_resident_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", text_string_to_metric_families),
        (
            "application/openmetrics-text; version=1.0.0, text/plain; version=0.0.4; q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            openmetrics.text_string_to_metric_families,
        ),
    ],
)
def test_the_format_is_the_one_asked_for(shared, accept, content_type, parse):
    response = requests.get(f"{shared.url}/metrics", headers={"Accept": accept}, timeout=30)

    assert response.headers["Content-Type"].startswith(content_type)
    families = {family.name: family for family in parse(response.text)}
    ours = [name for name in families if name.startswith("vero_collector_")]
    assert len(ours) > 10
    assert all(families[name].documentation for name in ours)


def test_nothing_of_a_request_gets_into_the_metrics(shared):
    for path in (f"/vero/{FRAGMENT}", f"/{FRAGMENT}", f"/v1/events?limit={FRAGMENT}"):
        shared.post({"type": FRAGMENT, "user": {"email": f"{FRAGMENT}@example.com"}})
        requests.request(FRAGMENT.upper(), f"{shared.url}{path}", timeout=30)

    text = requests.get(f"{shared.url}/metrics", timeout=30).text

    assert_tells_nothing(text)
    assert FRAGMENT not in text.lower()
    assert not {WRITE_KEY, SEGMENT_SECRET, READ_TOKEN} & set(text.split('"'))


class HeldWriter(SqliteWriter):
    """Waits before each commit until the test lets it go on."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}", "store")
        self.arrived = threading.Semaphore(0)
        self.released = threading.Semaphore(0)

    def write(self, *group):
        self.arrived.release()
        assert self.released.acquire(timeout=SECONDS)
        return super().write(*group)


async def told_by(app: App) -> dict[str, float]:
    answer = await ask(app, "GET", "/metrics")
    assert answer.status == 200
    return figures(answer.body.decode())


def test_the_queue_and_the_groups_that_it_makes_are_told(tmp_path):
    bodies = [json.dumps(payload).encode() for payload in many(4)]
    path = tmp_path / "store.db"
    writers = []

    def open_writer():
        writers.append(HeldWriter(path))
        return writers[0]

    async def scenario():
        async with running(
            open_writer, lambda: SqliteReader(f"sqlite:///{path}", "store"), max_pending=4
        ) as app:
            tasks = [asyncio.create_task(post(app, bodies[0]))]
            await asyncio.to_thread(writers[0].arrived.acquire)
            tasks += [asyncio.create_task(post(app, body)) for body in bodies[1:]]
            await asyncio.sleep(0)
            assert (await post(app, bodies[0])).status == 503
            waiting = await told_by(app)
            writers[0].released.release(2)
            assert [(await task).status for task in tasks] == [200] * 4
            return waiting, await told_by(app)

    waiting, after = asyncio.run(asyncio.wait_for(scenario(), SECONDS))

    assert waiting["queue_submissions"] == 4
    assert waiting["queue_bytes"] > sum(map(len, bodies))
    assert waiting['requests_refused_total{reason="overloaded"}'] == 1
    assert (after["queue_submissions"], after["queue_bytes"]) == (0, 0)
    assert after["events_accepted_total"] == 4
    # The first in a commit of its own, and those that came meanwhile in one.
    assert after['commit_submissions_bucket{le="1.0"}'] == 1
    assert (after["commit_submissions_count"], after["commit_submissions_sum"]) == (2, 4)


class Refusing(NobodyErased):
    def write(self, *_):
        _raise(StoreError("no room"))

    def close(self):
        pass


def _raise(error: Exception):
    raise error


class Slow(SqliteReader):
    """A store that does not answer before the test has its metrics."""

    over = threading.Event()

    def summary(self):
        assert self.over.wait(SECONDS)
        return super().summary()


@pytest.mark.parametrize("trouble", ["cannot be opened", "cannot be read", "takes too long"])
def test_without_the_store_the_other_figures_are_told(tmp_path, monkeypatch, caplog, trouble):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    SqliteWriter(url, "store").close()
    slow = trouble == "takes too long"
    if slow:
        monkeypatch.setattr(endpoint, "STORE_SECONDS", 0.05)
        Slow.over.clear()
    if trouble == "cannot be read":
        monkeypatch.setattr(SqliteReader, "summary", lambda _: _raise(StoreError("torn")))
    readers = {
        "cannot be opened": lambda: _raise(SettingError("store", "not there")),
        "cannot be read": lambda: SqliteReader(url, "store"),
        "takes too long": lambda: Slow(url, "store"),
    }

    async def scenario():
        async with running(Refusing, readers[trouble]) as app:
            assert (await post(app, b'{"type": "sent", "user": {"id": 1}}')).status == 503
            try:
                return await told_by(app)
            finally:
                Slow.over.set()

    told = asyncio.run(asyncio.wait_for(scenario(), SECONDS))

    assert told["store_readable"] == 0
    assert [name for name in told if name.startswith("store_")] == ["store_readable"]
    assert told['requests_refused_total{reason="store_failed"}'] == 1
    assert told["commits_failed_total"] == 1
    assert told["events_accepted_total"] == 0
    assert "the store cannot be read" in caplog.text


def test_every_reason_has_a_figure_from_the_start(shared):
    told = scrape(shared)

    assert all(f'requests_refused_total{{reason="{reason}"}}' in told for reason in ErrorReason)
