from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment.collector.endpoints import health as endpoint
from tap_vero_segment.stores.base import StoreBusyError, StoreError, StoreFullError
from tap_vero_segment.stores.sqlite import connection
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.asgi import ask, post, running
from tests.support.collector import READ_TOKEN, Collector
from tests.support.mounts import small_disk
from tests.support.payloads import documented
from tests.support.store import NobodyErased

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@contextmanager
def locked_by_another_process(path: Path) -> Iterator[None]:
    code = (
        "import apsw, sys; store = apsw.Connection(sys.argv[1]); store.execute('BEGIN IMMEDIATE');"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield
        process.communicate()


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_running_collector_is_healthy_and_ready(shared, path):
    response = requests.get(f"{shared.url}{path}", timeout=30)
    head = requests.head(f"{shared.url}{path}", timeout=30)

    assert response.status_code == head.status_code == 200
    assert response.json() == {"status": "ok"}
    assert head.content == b""
    assert head.headers["Content-Length"] == response.headers["Content-Length"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/vero", "/health/", "/v1/event", "/v1/events/", "//"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_elsewhere_is_nothing(shared, method, path):
    assert requests.request(method, f"{shared.url}{path}", timeout=30).status_code == 404


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/events"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_a_wrong_method_is_told_the_right_ones(shared, method, path):
    headers = {"Authorization": f"Bearer {READ_TOKEN}"}
    response = requests.request(method, f"{shared.url}{path}", headers=headers, timeout=30)

    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD"


def test_readiness_leaves_no_event(shared):
    requests.get(f"{shared.url}/ready", timeout=30)

    assert shared.get("/v1/events").content == b""


def test_a_locked_store_is_healthy_but_not_ready_until_it_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 50)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0)
    path = tmp_path / "vero-events.db"

    async def ask_all():
        async with running(lambda: SqliteWriter(f"sqlite:///{path}", "store")) as app:
            before = await ask(app, "GET", "/ready")
            with locked_by_another_process(path):
                health = await ask(app, "GET", "/health")
                during = await ask(app, "GET", "/ready")
                refused = await post(app, b'{"type": "sent"}')
            after = await ask(app, "GET", "/ready")
            return before, health, during, refused, after

    before, health, during, refused, after = asyncio.run(ask_all())

    assert (before.status, health.status, after.status) == (200, 200, 200)
    for answer in (during, refused):
        assert answer.status == 503
        assert answer.headers["retry-after"]


class Refusing(NobodyErased):
    """A store that takes no writes."""

    def __init__(self, error: StoreError) -> None:
        self._error = error

    def write(self, *_):
        raise self._error

    def check(self):
        return 0

    def probe(self):
        raise self._error

    def close(self):
        pass


@pytest.mark.parametrize("kind", [StoreError, StoreFullError, StoreBusyError])
def test_a_store_that_takes_no_writes_is_not_ready(kind):
    async def ask_all():
        async with running(
            lambda: Refusing(kind("an attempt to write a readonly database"))
        ) as app:
            return await ask(app, "GET", "/ready"), await ask(app, "GET", "/health")

    ready, health = asyncio.run(ask_all())

    assert ready.status == 503
    assert ready.headers["retry-after"]
    assert json.loads(ready.body) == {"status": "the store accepts no writes"}
    assert health.status == 200


def test_a_store_that_does_not_answer_is_not_ready(monkeypatch):
    monkeypatch.setattr(endpoint, "READY_SECONDS", 0.05)
    monkeypatch.setattr(endpoint, "PROBE_SECONDS", 0)
    answered = threading.Event()

    class Hanging(Refusing):
        def probe(self):
            assert answered.wait(30)

        def nearly_full(self):
            return False

    async def ask_all():
        async with running(lambda: Hanging(StoreError())) as app:
            ready = await ask(app, "GET", "/ready")
            answered.set()
            return ready, await ask(app, "GET", "/ready")

    during, after = asyncio.run(ask_all())

    assert during.status == 503
    assert json.loads(during.body) == {"status": "the store does not answer"}
    assert after.status == 200


def test_a_nearly_full_disk_takes_writes_but_is_not_ready(tmp_path):
    with small_disk(tmp_path / "disk") as disk, Collector(disk) as collector:
        assert collector.get("/ready").status_code == 200
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(b"x" * (free - 500_000))

        ready = ready_with(collector, 503)
        health = collector.get("/health")
        posted = collector.post(documented())
        (disk / "filler").unlink()
        ready_with(collector, 200)

    assert ready.json() == {"status": "the disk is nearly full"}
    assert ready.headers["Retry-After"]
    assert [answer.status_code for answer in (health, posted)] == [200, 200]


def ready_with(collector: Collector, status: int) -> requests.Response:
    """Ask until it is so: a collector tries its store once a second."""
    deadline = time.monotonic() + 30
    while (response := collector.get("/ready")).status_code != status:
        assert time.monotonic() < deadline
    return response


def test_many_who_ask_are_one_probe_and_take_no_place():
    """A full queue is told, and neither refuses the probe nor is filled by it."""
    probes = []

    class Counting(Refusing):
        def write(self, *_):
            assert released.wait(30)
            return 1

        def probe(self):
            probes.append(1)

        def nearly_full(self):
            return False

    released = threading.Event()

    async def ask_all():
        async with running(lambda: Counting(StoreError()), max_pending=2) as app:
            ready = await asyncio.gather(*(ask(app, "GET", "/ready") for _ in range(300)))
            waiting = [asyncio.create_task(post(app, b'{"type": "sent"}')) for _ in range(2)]
            await asyncio.sleep(0)
            full = await ask(app, "GET", "/ready")
            released.set()
            return ready, full, await asyncio.gather(*waiting)

    ready, full, posted = asyncio.run(ask_all())

    assert {answer.status for answer in ready} == {200}
    assert len(probes) == 1
    assert json.loads(full.body) == {"status": "overloaded"}
    assert [answer.status for answer in posted] == [200, 200]
