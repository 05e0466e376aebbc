"""The end, whatever is under way: in ten seconds, and nothing is acknowledged that is not kept."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import READ_TOKEN, Collector
from tests.support.events import read_events
from tests.support.leaks import assert_tells_nothing
from tests.support.locked import locked
from tests.support.payloads import documented
from tests.support.raw import connect, is_closed, read_answers, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 10
BODY = json.dumps(documented()).encode()


def end(collector: Collector) -> int:
    """End it; return its exit status, which must come in time."""
    collector.process.send_signal(signal.SIGTERM)
    return collector.process.wait(timeout=SECONDS)


def events_of(folder: Path) -> int:
    with Collector(folder) as again:
        return len(read_events(again))


def a_request_that_is_half_sent_is_told_to_come_back(folder):
    with Collector(folder) as collector, connect(collector) as client:
        client.sendall(request(BODY)[:-1])
        assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200

        assert end(collector) == 0

        [answer] = read_answers(client, 1)
        assert answer.status == 503
        assert answer.headers["Retry-After"]
    assert_tells_nothing(collector.log())
    assert events_of(folder) == 0


def a_request_that_is_sent_to_its_end_meanwhile_is_taken(folder):
    with Collector(folder) as collector, connect(collector) as client:
        with connect(collector) as idle:
            client.sendall(request(BODY)[:-1])
            assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200
            collector.process.send_signal(signal.SIGTERM)
            assert is_closed(idle)
        client.sendall(BODY[-1:])

        [answer] = read_answers(client, 1)
        assert answer.status == 200
        assert collector.process.wait(timeout=SECONDS) == 0
    assert events_of(folder) == 1


def a_client_that_does_not_read_holds_nothing_up(folder):
    asked = request(b"", f"Authorization: Bearer {READ_TOKEN}", method="GET", path="/v1/events")
    with Collector(folder) as collector, connect(collector) as client:
        for number in range(20):
            long = documented() | {"user": {"id": number}, "filler": "x" * 400_000}
            assert collector.post(long).status_code == 200
        client.sendall(asked)
        assert client.recv(1)

        assert end(collector) == 0
    assert_tells_nothing(collector.log())
    assert events_of(folder) == 20


def a_store_that_stays_locked_holds_nothing_up(folder):
    """The writer waits for it; what has come in is not acknowledged, and the status says so."""
    with (
        Collector(folder) as collector,
        connect(collector) as client,
        locked(collector.store),
    ):
        client.sendall(request(BODY) + request(BODY))
        assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200

        assert end(collector) == 1

        answers = read_answers(client, 2)
    assert {answer.status for answer in answers} == {503}
    assert "did not take in time" in collector.log()
    assert_tells_nothing(collector.log())
    assert events_of(folder) == 0


def it_is_not_ready_any_more_while_it_ends(folder):
    with Collector(folder) as collector, connect(collector) as client:
        with locked(collector.store) as release, connect(collector) as idle:
            client.sendall(request(BODY) + request(method="GET", path="/ready"))
            assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200
            collector.process.send_signal(signal.SIGTERM)
            assert is_closed(idle)
            release()
            posted, ready = read_answers(client, 2)

        assert collector.process.wait(timeout=SECONDS) == 0
    assert posted.status == 200
    assert (ready.status, json.loads(ready.body)) == (503, {"status": "shutting down"})
    assert events_of(folder) == 1


HANGING = """
import sys, time
from tap_vero_segment.stores import open as stores
from tap_vero_segment.stores.erasures import ErasedPeople

class Hanging:
    # As a server that takes connections and answers nothing.
    def __init__(self, url, setting): pass
    def hang(self, *_): time.sleep(3600)
    write = probe = high_water = lines = hang
    def nearly_full(self): return False
    def erased_people(self): return ErasedPeople(b"")
    def close(self): pass

kind = stores._Kind(Hanging, Hanging, None, lambda url, setting: url)
stores.KINDS["hanging"] = lambda setting: kind
from tap_vero_segment.collector.cli import main
main(prog_name="vero-collector")
"""


class Hung(Collector):
    """A collector whose store takes connections and answers nothing."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", HANGING, *words]


def a_store_that_does_not_answer_writes_holds_nothing_up(folder):
    with Hung(folder, store_url="hanging://store") as collector, connect(collector) as client:
        client.sendall(request(BODY))
        assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200

        assert end(collector) == 1

        [answer] = read_answers(client, 1)
    assert answer.status == 503
    assert_tells_nothing(collector.log())


def a_store_that_does_not_answer_reads_holds_nothing_up(folder):
    asked = request(b"", f"Authorization: Bearer {READ_TOKEN}", method="GET", path="/v1/events")
    with Hung(folder, store_url="hanging://store") as collector, connect(collector) as client:
        client.sendall(asked)
        assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200

        assert end(collector) == 0

        [answer] = read_answers(client, 1)
    assert answer.status == 503
    assert_tells_nothing(collector.log())


CASES = [
    a_request_that_is_half_sent_is_told_to_come_back,
    a_request_that_is_sent_to_its_end_meanwhile_is_taken,
    a_client_that_does_not_read_holds_nothing_up,
    a_store_that_stays_locked_holds_nothing_up,
    a_store_that_does_not_answer_writes_holds_nothing_up,
    a_store_that_does_not_answer_reads_holds_nothing_up,
    it_is_not_ready_any_more_while_it_ends,
]


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[dict[Callable, Future]]:
    """All cases at once, as most of their time is waiting."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        yield {case: pool.submit(case, tmp_path_factory.mktemp("case")) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_end(running, case):
    running[case].result()
