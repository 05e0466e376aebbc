"""Clocks and disks that do what they should not, under a real collector."""

from __future__ import annotations

import time
from itertools import count, pairwise

import pytest
import requests

from tests.support.collector import READ_TOKEN, SECRETS, Collector, run_collector, wait_until
from tests.support.events import read_events, status
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented

HOUR = 3600


def test_a_clock_that_steps_back_does_not_take_loaded_at_back(tmp_path):
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
def test_a_disk_that_fails_acknowledges_nothing_and_recovers(tmp_path, fault, ends, body):
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
        wait_until(lambda: requests.get(f"{collector.url}/ready", timeout=30).status_code == 200)
        assert collector.post(body).status_code == accepted
        figures = status(collector)
    assert figures["events"] + figures["quarantined"] == 2
    assert_tells_nothing(collector.log())


def test_a_clock_that_was_ahead_once_is_said_and_repaired(tmp_path):
    clock = tmp_path / "clock"
    clock.write_text(str(73 * 365 * 24 * HOUR), encoding="utf-8")
    environment = SECRETS | {"TEST_CLOCK_OFFSET_FILE": str(clock)}
    with Collector(tmp_path, environment) as collector:

        def command(*arguments: str) -> str:
            store = ("--store", collector.store_url)
            done = run_collector(*arguments, *store, cwd=tmp_path, env=environment)
            assert done.returncode == (1 if "open in another process" in done.stderr else 0)
            return done.stdout + done.stderr

        assert collector.post(documented("sent")).status_code == 200
        clock.write_text("0", encoding="utf-8")
        assert collector.post(documented("opened")).status_code == 200
        deadline = time.monotonic() + 30
        while "warning" not in (ready := collector.get("/ready")).json():
            assert time.monotonic() < deadline
        assert ready.status_code == 200
        assert "behind the newest loaded_at" in ready.json()["warning"]
        assert "run `vero-collector repair-clock`" in collector.log()
        figures = collector.get("/metrics").text
        assert "vero_collector_store_newest_event_age_seconds 0.0" in figures
        assert "vero_collector_clock_behind_seconds 2.3" in figures
        assert status(collector)["clock_behind_seconds"] > 70 * 365 * 24 * HOUR
        assert "repair-clock" in command("status")
        login = {"token": READ_TOKEN}
        with requests.Session() as session:
            session.post(f"{collector.url}/login", login, timeout=30)
            page = session.get(f"{collector.url}/", timeout=30).text
        assert 'role="alert">Warning: the clock is' in page
        assert "2 events were loaded later" in command("repair-clock", "--dry-run")
        assert "stop the collector" in command("repair-clock", "--yes")
        before = read_events(collector)

        assert collector.stop() == 0
        assert "2 events loaded in the future" in command("repair-clock", "--yes")
        assert "nothing to repair" in command("repair-clock")
        collector.start()
        assert collector.post(documented("clicked")).status_code == 200
        events = read_events(collector)

    assert [event["messageId"] for event in events[:2]] == [one["messageId"] for one in before]
    assert [event["receivedAt"][:2] for event in events] == ["20", "20", "20"]
    assert all(one["loadedAt"] < other["loadedAt"] for one, other in pairwise(events))
    assert status(collector)["clock_behind_seconds"] == 0
