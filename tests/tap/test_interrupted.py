"""Runs that end at a random point: nothing is skipped, and little is sent twice."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from tap_vero_segment.tap.streams import PAGE_SIZE
from tests.support.collector import READ_TOKEN, clean_environment
from tests.support.event_server import EventServer
from tests.support.rounds import by_rounds, rounds
from tests.support.stored import ids_by_stream, lines_of, stored, url_of
from tests.support.streams import bookmark_of, states_never_run_ahead
from tests.support.tap import read_messages, tap_command

if TYPE_CHECKING:
    from tests.support.forked_tap import ForkedTap, RunningTap
    from tests.support.stored import Stored

ROUNDS = rounds(10, least=4)
"""Interruptions of each seed."""
SEEDS = rounds(5, least=1)
SEEDS_OVER_HTTP = 1

PAGE_BYTES = 1_750_000
"""About what a page comes to: each event in its collection, and again in ``tracks``."""

STATUS = "/proc/{}/status"

WAYS = ("SIGTERM", "SIGINT", "SIGKILL", "closed pipe")


@dataclass
class Target:
    """What a target has got over several runs: whole lines only."""

    events: list[Stored]
    ids: dict[str, set[str]] = field(default_factory=dict)
    state: dict[str, Any] | None = None

    def take(self, output: bytes) -> int:
        """Take over a run's whole lines; return how many of its events were known before."""
        *lines, _ = output.split(b"\n")
        messages = read_messages(lines)
        states_never_run_ahead(messages, self.events, self.ids)
        known: set[str] = set()
        for stream, records in messages.records.items():
            of_run = [record["id"] for record in records]
            assert len(of_run) == len(set(of_run))
            known |= self.ids.setdefault(stream, set()).intersection(of_run)
            self.ids[stream].update(of_run)
        self.state = messages.state or self.state
        return len(known)


def interrupt(running: RunningTap, way: str) -> bytes:
    """Interrupt a run; return what was still to be read."""
    if way == "closed pipe":
        running.stdout.close()
        # Zero: all that it had to say was in the pipe already.
        assert running.wait() in {0, 1}
        if running.wait() == 1:
            told_that_the_pipe_is_closed(running.stderr())
        return b""
    running.send_signal(signal.Signals[way])
    rest = running.stdout.read()
    if way == "SIGKILL":
        assert running.wait() in {-signal.SIGKILL, 0}
    else:
        assert running.wait() == 0
        assert "ERROR" not in running.stderr()
    return rest


def told_that_the_pipe_is_closed(stderr: str) -> None:
    (error,) = (line for line in stderr.splitlines() if "INFO" not in line)
    assert "ERROR" in error
    assert "closed the pipe" in error


def up_to_a_record(stdout: IO[bytes]) -> bytes:
    """Read until the tap is in the middle of its first page."""
    output = b""
    while b'"RECORD"' not in output:
        output += stdout.readline()
    return output


def ends_well(output: bytes) -> bool:
    """Whole lines only, and no record after the last state."""
    last = output[output.rindex(b'{"type":"STATE"') :]
    return output.endswith(b"\n") and b'{"type":"RECORD"' not in last


@by_rounds
@pytest.mark.parametrize("seed", range(SEEDS))
def test_interrupted_runs_together_give_what_was_stored(
    tap: ForkedTap, large: Path, seed: int
) -> None:
    interrupt_again_and_again(tap, {"source": url_of(large)}, stored(large), seed)


@by_rounds
@pytest.mark.parametrize("seed", range(SEEDS_OVER_HTTP))
def test_interrupted_runs_over_http_together_give_what_was_stored(
    tap: ForkedTap, large: Path, seed: int
) -> None:
    with EventServer(lines_of(large)) as server:
        config = {"source": server.url, "token": READ_TOKEN}
        interrupt_again_and_again(tap, config, stored(large), seed)


def interrupt_again_and_again(
    tap: ForkedTap, config: dict[str, Any], events: list[Stored], seed: int
) -> None:
    chance = random.Random(seed)
    expected = {stream: set(ids) for stream, ids in ids_by_stream(events).items()}
    interruptions = 0
    while interruptions < ROUNDS:
        target = Target(events)
        graceful = True
        complete = False
        while not complete:
            size = chance.randrange(1, 5 * PAGE_BYTES) if interruptions < ROUNDS else 1 << 30
            way = chance.choice(WAYS)
            with tap.start(config, state=target.state) as running:
                output = running.stdout.read(size)
                complete = len(output) < size
                if complete:
                    assert running.wait() == 0, running.stderr()
                else:
                    output += interrupt(running, way)
                    interruptions += 1
            known = target.take(output)
            assert known <= (0 if graceful else PAGE_SIZE)
            graceful = complete or way in {"SIGTERM", "SIGINT"}
            assert not graceful or ends_well(output)
        assert target.ids == expected
    assert interruptions == ROUNDS


# Buffered and not, as Python's way out differs; interrupted runs are unbuffered ones elsewhere.
@pytest.mark.parametrize(("way", "unbuffered"), [("SIGTERM", ""), ("SIGINT", "1")])
def test_a_signal_ends_the_run_after_the_page_with_status_0(
    tmp_path: Path, large: Path, way: str, unbuffered: str
) -> None:
    events = stored(large)
    with subprocess.Popen(
        tap_command(tmp_path, {"source": url_of(large)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment() | {"PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        opening = up_to_a_record(process.stdout)
        process.send_signal(signal.Signals[way])
        output = opening + process.stdout.read()
    assert process.returncode == 0
    target = Target(events)
    target.take(output)
    assert ends_well(output)
    bookmark = bookmark_of(target.state, "tracks") or ""
    assert target.ids["tracks"] == {event.id for event in events if event.loaded_at <= bookmark}
    assert 0 < len(target.ids["tracks"]) < len(events)


@pytest.mark.parametrize(
    ("amid", "unbuffered"), [(False, "1"), (True, "")], ids=["at-the-start", "amid-a-page"]
)
def test_a_closed_pipe_is_told_in_one_line_with_status_1(
    tmp_path: Path, large: Path, unbuffered: str, *, amid: bool
) -> None:
    with subprocess.Popen(
        tap_command(tmp_path, {"source": url_of(large)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment() | {"PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if amid:
            up_to_a_record(process.stdout)
        process.stdout.close()
        told_that_the_pipe_is_closed(process.stderr.read().decode())
    assert process.returncode == 1


@pytest.mark.skipif(not Path(STATUS.format("self")).exists(), reason="asks Linux's /proc")
@pytest.mark.parametrize(
    ("first", "second"),
    [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM"), ("SIGTERM", "SIGINT")],
)
def test_a_second_signal_ends_a_run_whose_target_reads_no_more(
    tap: ForkedTap, large: Path, first: str, second: str
) -> None:
    with tap.start({"source": url_of(large)}) as running:
        # The pipe is full long before the first page is through.
        up_to_a_record(running.stdout)
        assert caught(running)
        running.send_signal(signal.Signals[first])
        deadline = time.monotonic() + 60
        while caught(running):
            assert time.monotonic() < deadline, "the first signal was not handled"
            time.sleep(0.01)
        running.send_signal(signal.Signals[second])
        assert running.wait() == -signal.Signals[second]


def caught(running: RunningTap) -> bool:
    """Whether the tap has a handler for either signal."""
    status = Path(STATUS.format(running.pid)).read_text(encoding="ascii")
    (mask,) = (line for line in status.splitlines() if line.startswith("SigCgt"))
    handled = int(mask.split()[1], 16)
    return any(handled >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
