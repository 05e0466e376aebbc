"""Clocks and disks that do what they should not, under a real collector."""

from __future__ import annotations

import os
import sys
from itertools import count, pairwise

import pytest
import requests

from tests.support import collector as support
from tests.support.collector import SECRETS, Collector, run_collector
from tests.support.events import read_events, status
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented

HOUR = 3600


@pytest.fixture
def wrapped(monkeypatch):
    """Collectors are started with :mod:`tests.support.wrapped`."""
    monkeypatch.setattr(
        support,
        "collector_command",
        lambda *arguments: [sys.executable, "-m", "tests.support.wrapped", *arguments],
    )
    monkeypatch.setenv("PYTHONPATH", os.getcwd())  # noqa: PTH109


def test_a_clock_that_steps_back_does_not_take_loaded_at_back(tmp_path, wrapped):
    clock = tmp_path / "clock"
    clock.write_text("0", encoding="utf-8")
    fresh = (documented() | {"user": {"id": number}} for number in count())

    with Collector(tmp_path, SECRETS | {"TEST_CLOCK_OFFSET_FILE": str(clock)}) as collector:

        def post(number: int) -> list[dict]:
            for _ in range(number):
                assert collector.post(next(fresh)).status_code == 200
            return read_events(collector)

        post(10)
        clock.write_text(str(-HOUR), encoding="utf-8")
        events = post(10)
        collector.stop()
        collector.start()  # an hour back still
        events = post(10)
        clock.write_text(str(-2 * HOUR), encoding="utf-8")
        collector.kill()
        collector.start()
        post(10)
        clock.write_text("60", encoding="utf-8")
        events = post(10)

    assert [int(event["userId"]) for event in events] == list(range(50))
    assert all(one["loadedAt"] < other["loadedAt"] for one, other in pairwise(events))
    # The clock did step back: what was received later says so.
    assert events[10]["receivedAt"] < events[9]["receivedAt"]
    assert events[35]["receivedAt"] < events[25]["receivedAt"]
    assert events[45]["loadedAt"][:16] >= events[45]["receivedAt"][:16]


@pytest.mark.parametrize("body", [documented("opened"), b"nonsense"], ids=["event", "letter"])
@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        ("write EIO", True),
        ("sync EIO", True),
        ("write ENOSPC", False),
        ("write EROFS", False),
    ],
)
def test_a_disk_that_fails_acknowledges_nothing_and_recovers(tmp_path, wrapped, fault, ends, body):
    accepted = 400 if body == b"nonsense" else 200
    failing = tmp_path / "failing"
    with Collector(tmp_path, SECRETS | {"TEST_FAILING_DISK_FILE": str(failing)}) as collector:
        assert collector.post(documented("sent")).status_code == 200

        failing.write_text(fault, encoding="utf-8")
        answer = collector.post(body)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]

        if ends:
            assert collector.process.wait(timeout=30) == 1
            assert "the store can no longer be trusted" in collector.log()
            assert "Traceback" not in collector.log()
            # It does not start again while the disk is like that, and says so in a line.
            done = run_collector(
                "serve",
                "--port",
                "0",
                "--store",
                collector.store_url,
                cwd=tmp_path,
                env=SECRETS | {"TEST_FAILING_DISK_FILE": str(failing)},
            )
            assert done.returncode == 1
            assert "vero-collector: store: " in done.stderr
            assert "Traceback (most recent call last)" not in done.stderr
            failing.unlink()
            collector.start()
        else:
            assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200
            assert requests.get(f"{collector.url}/ready", timeout=30).status_code == 503
            failing.unlink()
        assert requests.get(f"{collector.url}/ready", timeout=30).status_code == 200
        assert collector.post(body).status_code == accepted
        figures = status(collector)
    assert figures["events"] + figures["quarantined"] == 2
    assert_tells_nothing(collector.log())
