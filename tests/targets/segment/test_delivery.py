"""Whatever the server and the machine do: each event arrives, and no state is ahead of it."""

from __future__ import annotations

import json
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.targets.segment import calls, client
from tap_vero_segment.targets.segment import target as target_module
from tap_vero_segment.targets.segment.target import EventSink
from tests.support import tracking_server as api
from tests.support.forked_target import IMPATIENT, Ended
from tests.support.inline_target import send_inline
from tests.support.rounds import by_rounds, rounds
from tests.support.singer_events import (
    position_of,
    record_line,
    records,
    run_lines,
    schema_line,
    state_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_vero_segment.record import Record
    from tests.support.forked_target import ForkedTarget, Running
    from tests.support.tracking_server import TrackingServer

SEEDS = range(rounds(30))
EVENTS = 2_000

SMALL = {"target.DRAIN_AT": 250, "calls.MAX_CALLS": 40}
"""Constants with which a few thousand events make many requests and many states."""


def faulty(chance: random.Random) -> Callable[[], Any]:
    """Return what chooses a fault for one request in four."""
    quick = [
        api.status(429, Retry_After="0"),
        api.status(429, Retry_After="soon"),
        api.status(500),
        api.status(503, Retry_After="0"),
        api.reset,
        api.stored_then_reset,
        api.stored_then_error,
    ]
    slow = [api.hang, api.stored_then_hang]

    def choose() -> Any:
        dice = chance.random()
        if dice < 0.25:
            return chance.choice(slow if dice < 0.002 else quick)
        return None

    return choose


def assert_held(server: TrackingServer, events: Sequence[Record], state: dict[str, Any]) -> None:
    """The server has every event that a state takes for delivered."""
    before = {record["id"] for record in events[: position_of(state)]}
    assert before <= server.accepted.keys() | server.poison


def interrupt_amid_a_request(
    server: TrackingServer, chance: random.Random, running: Running
) -> list[signal.Signals]:
    """Have a signal come while the server has one of the next requests; return those that did."""
    number = chance.choice([signal.SIGKILL, signal.SIGTERM])
    keep_it = chance.random() < 0.5
    countdown = chance.randrange(2, 50)
    fault_of = faulty(chance)
    sent: list[signal.Signals] = []

    def interrupt(handler: Any) -> None:
        if keep_it:
            handler.store()
        running.send_signal(number)
        sent.append(number)
        handler.reset()

    def choose() -> Any:
        nonlocal countdown
        countdown -= 1
        return interrupt if countdown == 0 else fault_of()

    server.fault_of = choose
    return sent


def run_until_done(
    target: ForkedTarget,
    server: TrackingServer,
    events: Sequence[Record],
    chance: random.Random,
    config: dict[str, Any],
    constants: dict[str, Any],
) -> list[signal.Signals]:
    """Run a pipeline from state to state, interrupted once or twice; return the signals."""
    position = 0
    signals: list[signal.Signals] = []
    for interruptions in reversed(range(chance.randrange(2, 4))):
        messages = target.folder / f"messages-from-{position}-{interruptions}"
        messages.write_bytes(b"".join(run_lines(events, position)))
        server.fault_of = faulty(chance)
        with target.start(config, messages, constants=constants) as running:
            sent = interrupt_amid_a_request(server, chance, running) if interruptions else []
            states = []
            for line in running.stdout:
                if line.endswith(b"\n"):  # else a kill has cut it off
                    states.append(json.loads(line))
                    assert_held(server, events, states[-1])
            run = Ended(running.wait(), states, running.stderr())
        assert run.status == (-signal.SIGKILL if signal.SIGKILL in sent else 0), run.stderr
        position = max(position, position_of(run.state))
        signals += sent
    assert position == len(events)
    return signals


@by_rounds
@pytest.mark.parametrize("seed", SEEDS)
def test_a_pipeline_interrupted_at_any_time_delivers_each_event_and_is_never_ahead(
    target: ForkedTarget, server: TrackingServer, seed: int
) -> None:
    chance = random.Random(seed)
    events = records(EVENTS)
    server.poison = {chance.choice(events)["id"]}
    letters = target.folder / "dead-letters"
    config = server.config(dead_letter=str(letters))
    assert run_until_done(target, server, events, chance, config, IMPATIENT | SMALL)
    assert server.accepted.keys() == {record["id"] for record in events} - server.poison
    dead = [json.loads(line)["id"] for line in letters.read_text().splitlines()]
    assert set(dead) == server.poison


@pytest.mark.slow
def test_twenty_thousand_events_arrive_through_faults_and_interruptions(
    target: ForkedTarget, server: TrackingServer
) -> None:
    events = records(20_000)
    chance = random.Random(20_000)
    assert run_until_done(target, server, events, chance, server.config(), IMPATIENT)
    assert server.accepted.keys() == {record["id"] for record in events}


def limit(monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]) -> None:
    modules = {"target": target_module, "calls": calls, "client": client}
    for name, value in limits.items():
        module, _, constant = name.partition(".")
        monkeypatch.setattr(modules[module], constant, value)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, SMALL)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, IMPATIENT)


@pytest.mark.usefixtures("small", "impatient")
@pytest.mark.parametrize("seed", range(10))
def test_each_state_is_written_when_the_server_has_all_before_it(
    server: TrackingServer, seed: int
) -> None:
    """Looked at in the moment of writing: what the server takes a moment later does not count."""
    events = records(EVENTS)[:700]
    server.fault_of = faulty(random.Random(seed))
    states = send_inline(
        server.config(), run_lines(events), lambda state: assert_held(server, events, state)
    )
    assert sorted({position_of(state) for state in states}) == [300, 600, 700]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("every", [10, 350])
def test_a_state_follows_so_many_events_of_however_few_streams(
    monkeypatch: pytest.MonkeyPatch, server: TrackingServer, streams: int, every: int
) -> None:
    """A sink that is full is sent by itself, so that so many of one stream never wait together."""
    drain_at = target_module.DRAIN_AT
    monkeypatch.setattr(EventSink, "MAX_SIZE_DEFAULT", drain_at)
    names = ["email_sent", "email_opened"][:streams]
    lines = [schema_line(name) for name in names]
    for position, record in enumerate(records(EVENTS)[:1_100], start=1):
        lines.append(record_line(record, names[position % streams]))
        if position % every == 0:
            lines.append(state_line(position))
    states = send_inline(server.config(), lines)
    step = max(every, drain_at)
    assert {position_of(state) for state in states} >= {*range(step, 1_101, step)}


@pytest.mark.parametrize(
    "dying",
    [
        pytest.param(api.going_away, id="gone"),
        pytest.param(api.status(500), id="failing"),
        pytest.param(api.status(429, Retry_After="0"), id="overloaded"),
        pytest.param(api.reset, id="resetting"),
    ],
)
def test_a_server_that_dies_ends_the_run_with_an_error_and_a_state_that_holds(
    target: ForkedTarget, server: TrackingServer, dying: Any
) -> None:
    events = records(EVENTS)
    after = 40
    server.fault_of = lambda: dying if len(server.asked) >= after else None
    run = target.run(server.config(), run_lines(events), constants=IMPATIENT | SMALL)
    assert run.status == 1
    assert len(run.errors()) == 1
    assert "endpoint: " in run.errors()[0]
    assert "Traceback" not in run.stderr
    assert 0 < position_of(run.state) < EVENTS
    assert_held(server, events, run.state or {})
