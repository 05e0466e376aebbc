"""A store that is deleted, moved or replaced under a running collector."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tests.support.collector import Collector
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import many

if TYPE_CHECKING:
    from pathlib import Path


def post_all(collector: Collector, number: int) -> list[int]:
    """Post webhooks, as long as anybody takes them; return the statuses."""
    statuses = []
    for payload in many(number):
        try:
            statuses.append(collector.post(payload).status_code)
        except requests.ConnectionError:  # it has ended
            break
    return statuses


def delete(folder: Path) -> None:
    for file in folder.glob("vero-events.db*"):
        file.unlink()


def delete_the_log(folder: Path) -> None:
    (folder / "vero-events.db-wal").unlink()


def ended(collector: Collector, since: float) -> str:
    """Return the log of a collector that has ended by itself, soon and as it should."""
    assert collector.process is not None
    assert collector.process.wait(timeout=30) == 1
    assert time.monotonic() - since < 15  # a second, and its end, on a machine that has more to do
    log = collector.log()
    assert "was deleted, moved or replaced while it was in use" in log
    assert "exit status 1" in log
    assert "all that had come in was written" not in log
    assert "Traceback" not in log
    assert_tells_nothing(log)
    return log


@pytest.mark.parametrize("harm", [delete, delete_the_log], ids=lambda harm: harm.__name__)
def test_nothing_is_acknowledged_into_a_store_that_is_gone(tmp_path, harm):
    with Collector(tmp_path) as collector:
        assert post_all(collector, 5) == [200] * 5
        harm(tmp_path)
        began = time.monotonic()
        statuses = post_all(collector, 50)
        ended(collector, began)

    assert set(statuses) <= {503}


def test_an_idle_collector_notices_too(tmp_path):
    with Collector(tmp_path) as collector:
        assert post_all(collector, 5) == [200] * 5
        (tmp_path / "vero-events.db").rename(tmp_path / "elsewhere.db")
        ended(collector, time.monotonic())


def test_a_collector_that_is_stopped_at_once_does_not_claim_that_all_was_written(tmp_path):
    with Collector(tmp_path) as collector:
        assert post_all(collector, 5) == [200] * 5
        assert collector.process is not None
        collector.process.send_signal(signal.SIGSTOP)
        delete(tmp_path)
        collector.process.send_signal(signal.SIGTERM)
        collector.process.send_signal(signal.SIGCONT)
        ended(collector, time.monotonic())
