"""SIGTERM and SIGINT: what has been read is sent first, and the state tells no more than that."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import termios
import threading
import time
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.support import tracking_server as api
from tests.support.forked_target import IMPATIENT, ended
from tests.support.singer_events import position_of, records, run_lines, schema_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_vero_segment.record import Record
    from tests.support.forked_target import ForkedTarget, Running
    from tests.support.tracking_server import TrackingServer

SMALL = IMPATIENT | {"target.DRAIN_AT": 250, "client.TIMEOUT": (5.0, 30.0)}
BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@pytest.fixture(scope="module")
def events() -> list[Record]:
    """Events of one stream: while they are being sent, no other stream's are waiting."""
    return [record for record in records(8_000) if record["event"] == "email_sent"]


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to this"
        time.sleep(0.005)


def all_is_read(pipe: IO[bytes]) -> bool:
    unread = array.array("i", [1])
    fcntl.ioctl(pipe, termios.FIONREAD, unread)
    return unread[0] == 0


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def messages(tmp_path: Path, events: list[Record]) -> Path:
    """All events in a file: the target never has to wait for the next one."""
    path = tmp_path / "messages-of-all"
    path.write_bytes(b"".join(run_lines(events)))
    return path


class Gate:
    """Has the server's first request wait until the gate is opened."""

    def __init__(self, server: TrackingServer, then: Any = None) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._then = then
        server.fault_of = self._fault_of

    def _fault_of(self) -> Any:
        return None if self.opened.is_set() and self._then is None else self._wait

    def _wait(self, handler: Any) -> None:
        self.reached.set()
        assert self.opened.wait(30)
        if self._then is None:
            handler.answer(handler.store())
        else:
            self._then(handler)


@pytest.fixture
def running(target: ForkedTarget, server: TrackingServer, messages: Path) -> Iterator[Running]:
    with target.start(server.config(), messages, constants=SMALL) as running:
        yield running


def accepted_ids(server: TrackingServer) -> set[str]:
    return set(server.accepted)


@BOTH
def test_while_the_tap_is_silent_all_that_it_said_is_sent(
    target: ForkedTarget,
    server: TrackingServer,
    events: list[Record],
    pipe: Path,
    number: signal.Signals,
) -> None:
    few = events[:50]
    with (
        target.start(server.config(), pipe, constants=SMALL) as running,
        pipe.open("wb", buffering=0) as tap,
    ):
        tap.write(b"".join(run_lines(few)))
        wait_until(lambda: all_is_read(tap))
        running.send_signal(number)
        run = ended(running)
    assert run.status == 0, run.stderr
    sent = accepted_ids(server)
    position = position_of(run.state)
    assert {record["id"] for record in few[:position]} <= sent
    assert sent <= {record["id"] for record in few}
    assert f"{len(sent)} events sent" in run.stderr


@BOTH
def test_amid_a_request_it_is_heard_when_the_server_has_answered(
    server: TrackingServer, events: list[Record], running: Running, number: signal.Signals
) -> None:
    gate = Gate(server)
    assert gate.reached.wait(30)
    running.send_signal(number)
    wait_until(lambda: f"signal {number}: " in running.stderr())
    gate.opened.set()
    run = ended(running)
    assert run.status == 0, run.stderr
    position = position_of(run.state)
    assert 0 < position < len(events)
    assert accepted_ids(server) == {record["id"] for record in events[:position]}


def test_a_second_signal_ends_the_run_at_once_and_without_a_state(
    server: TrackingServer, running: Running
) -> None:
    gate = Gate(server)
    assert gate.reached.wait(30)
    running.send_signal(signal.SIGTERM)
    wait_until(lambda: "signal 15: " in running.stderr())
    running.send_signal(signal.SIGTERM)
    run = ended(running)
    gate.opened.set()
    assert run.status == -signal.SIGTERM
    assert run.states == []


def test_a_server_that_then_fails_is_an_error_and_no_good_end(
    server: TrackingServer, running: Running
) -> None:
    gate = Gate(server, then=api.status(500))
    assert gate.reached.wait(30)
    running.send_signal(signal.SIGTERM)
    wait_until(lambda: "signal 15: " in running.stderr())
    gate.opened.set()
    run = ended(running)
    assert run.status == 1
    assert run.states == []
    assert len(run.errors()) == 1
    assert "endpoint: " in run.errors()[0]


def test_a_server_that_fails_what_was_read_is_an_error_too(
    target: ForkedTarget, server: TrackingServer, events: list[Record], pipe: Path
) -> None:
    server.fault_of = lambda: api.status(500)
    with (
        target.start(server.config(), pipe, constants=SMALL) as running,
        pipe.open("wb", buffering=0) as tap,
    ):
        tap.write(b"".join(run_lines(events[:50])))
        wait_until(lambda: all_is_read(tap))
        running.send_signal(signal.SIGTERM)
        run = ended(running)
    assert run.status == 1
    assert run.states == []
    assert "endpoint: " in run.errors()[0]


def test_before_the_first_event_there_is_nothing_to_send(
    target: ForkedTarget, server: TrackingServer, pipe: Path
) -> None:
    with (
        target.start(server.config(), pipe, constants=SMALL) as running,
        pipe.open("wb", buffering=0) as tap,
    ):
        tap.write(schema_line("email_sent"))
        wait_until(lambda: all_is_read(tap))
        running.send_signal(signal.SIGTERM)
        run = ended(running)
    assert (run.status, run.states, server.asked) == (0, [], [])
