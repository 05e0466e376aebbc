"""What systemd hears, on a socket such as it gives."""

from __future__ import annotations

import select
import signal
import socket
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment.collector.notify import Notifier
from tests.support.collector import SECRETS, Collector
from tests.support.locked import locked

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 30
WATCHED = SECRETS | {"NOTIFY_SOCKET": "notify", "WATCHDOG_USEC": "1000000"}


@contextmanager
def manager(address: str = "notify") -> Iterator[socket.socket]:
    """The manager's socket, at an address as the manager writes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS)
        try:
            listening.bind(address.replace("@", "\0"))
        except OSError:
            pytest.skip("no abstract sockets here")
        yield listening


def heard(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().splitlines()


def hears_the_start(listening: socket.socket) -> None:
    """A start may take long: the manager is asked for time before the store is opened."""
    assert heard(listening) == ["EXTEND_TIMEOUT_USEC=60000000"]
    assert heard(listening) == ["READY=1"]


@pytest.fixture(autouse=True)
def short_paths(tmp_path, monkeypatch):
    """The path of a socket must be short: the collector and the manager share their folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("address", ["notify", f"@vero-{uuid.uuid4().hex}"], ids=["path", "name"])
def test_the_life_of_a_collector_is_told(tmp_path, address):
    settings = SECRETS | {"NOTIFY_SOCKET": address}
    with manager(address) as listening, Collector(tmp_path, env=settings) as collector:
        hears_the_start(listening)
        assert collector.get("/health").status_code == 200

        before = time.monotonic_ns() // 1000
        collector.process.send_signal(signal.SIGHUP)
        reloading, since = heard(listening)
        assert reloading == "RELOADING=1"
        assert before <= int(since.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert heard(listening) == ["READY=1"]

        assert collector.stop() == 0
        assert heard(listening) == ["STOPPING=1"]


def test_signs_of_life_come_twice_as_often_as_they_must(tmp_path):
    started = time.monotonic()
    with manager() as listening, Collector(tmp_path, env=WATCHED):
        hears_the_start(listening)
        for _ in range(3):
            assert heard(listening) == ["WATCHDOG=1"]

        # The first comes at once, and each of the others half a second after the one before.
        assert 1.0 <= time.monotonic() - started < SECONDS


def test_a_writer_that_hangs_gives_no_sign_of_life(tmp_path):
    with manager() as listening, Collector(tmp_path, env=WATCHED) as collector:
        with locked(collector.store) as release:
            with pytest.raises(requests.Timeout):
                collector.get("/ready", timeout=1.5)
            while select.select([listening], [], [], 0)[0]:
                heard(listening)
            assert not select.select([listening], [], [], 1.5)[0]
            release()
        assert heard(listening) == ["WATCHDOG=1"]


def test_without_a_manager_nobody_is_told():
    notifier = Notifier({})
    notifier.ready()
    notifier.alive(100.0)

    assert notifier.watchdog_seconds == 0


def test_a_manager_that_is_gone_stops_nothing(tmp_path, caplog):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()

    assert "systemd cannot be told READY" in caplog.text


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
    ],
)
def test_the_watch_of_another_process_is_not_ours(environment, seconds):
    assert Notifier(environment).watchdog_seconds == seconds
