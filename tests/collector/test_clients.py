"""Clients of Segment's Tracking API that nobody here wrote, against a collector that goes away."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import docs
from tests.support.collector import WRITE_KEY, Collector
from tests.support.tap import run_tap

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CLIENTS = Path(__file__).parent.parent / "clients"
EVENTS = 300


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Segment's client for Node, and the program that uses it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    install = [npm, "install", "--silent", "--no-audit", "--no-fund", "@segment/analytics-node"]
    subprocess.run(install, cwd=folder, check=True, timeout=240)
    shutil.copy(CLIENTS / "segment_node.mjs", folder)
    return folder


def program(name: str, request: pytest.FixtureRequest) -> list[str]:
    if name.endswith(".mjs"):
        folder: Path = request.getfixturevalue("node_modules")
        return ["node", str(folder / name)]
    return [sys.executable, str(CLIENTS / name)]


@pytest.fixture
def restarted(collector: Collector) -> Iterator[threading.Event]:
    """Stop and kill the collector in turn, and start it again, until the event is set."""
    enough = threading.Event()

    def restart() -> None:
        for end in (collector.stop, collector.kill, collector.stop, collector.kill):
            posted = stored(collector)
            deadline = time.monotonic() + 10
            while stored(collector) < posted + 20 and time.monotonic() < deadline:
                if enough.wait(0.02):
                    return
            end()
            collector.start()

    thread = threading.Thread(target=restart)
    thread.start()
    yield enough
    enough.set()
    thread.join()


def stored(collector: Collector) -> int:
    return len(collector.get("/v1/events?limit=10000").text.splitlines())


@pytest.mark.parametrize("name", ["segment_python.py", "rudder_python.py", "segment_node.mjs"])
def test_every_event_of_a_client_comes_out_of_the_tap_once(
    name: str, request: pytest.FixtureRequest, collector: Collector, tmp_path: Path
) -> None:
    command = program(name, request)
    enough = request.getfixturevalue("restarted")
    client = subprocess.run(
        [*command, collector.url, WRITE_KEY, str(EVENTS)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    enough.set()
    assert client.returncode == 0, client.stderr

    run = run_tap(tmp_path, {"source": collector.store_url})

    records = run.messages.records["email_opened"]
    assert run.messages.counts() == {"email_opened": EVENTS, "tracks": EVENTS}
    assert {record["id"] for record in records} == {f"message{n}" for n in range(EVENTS)}
    for record in records:
        number = record["id"].removeprefix("message")
        assert record["user_id"] == f"user{number}"
        assert record["context_traits_email"] == f"user{number}@example.com"
        assert record["email_id"] == f"mail{number}"
        assert record["campaign_id"] == "7"
        assert record["sent_at"] is not None
    assert WRITE_KEY not in run.stdout.decode()
    assert WRITE_KEY not in collector.log()


def test_what_the_documentation_says_points_the_client_at_a_collector(collector: Collector) -> None:
    (lines,) = docs.blocks("collector/segment-calls.md", "python")
    lines = lines.replace("https://collector.example", collector.url).replace("…", WRITE_KEY)
    lines += "analytics.track('user', 'Email Opened')\nanalytics.shutdown()\n"
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=60)
    assert stored(collector) == 1
