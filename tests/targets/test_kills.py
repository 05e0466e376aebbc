"""Killed at any moment of the first load: the next run completes it, whichever target loads."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from meltano.core.state_store.base import MeltanoState

from tests.support.collector import clean_environment
from tests.support.payloads import many
from tests.support.rounds import WEEKLY, rounds
from tests.support.store import fill
from tests.support.stored import ids_by_stream, stored, url_of
from tests.support.streams import DEFAULT_STREAMS
from tests.support.tap import tap_command
from tests.targets.matrix.destinations import Servers
from tests.targets.matrix.rows import BY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.targets.matrix.destinations import Destination
    from tests.targets.matrix.rows import Target

# The weekly rounds; the target of this project has quicker ones in duckdb/test_faults.py.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEEKLY, reason="each week: VERO_TESTS_ROUNDS is not 100"),
]

EVENTS = {
    "target-vero-duckdb": 100_000,
    "target-duckdb": 30_000,
    "pipelinewise-target-postgres": 30_000,
}
"""How many are loaded with each target: enough for several batches of a stream."""
ROUNDS = 30
BATCHES = ({}, {"batch_size_rows": 5_000})
"""Settings of the loaders: what they do by default, and many batches in one load."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


class Pipeline:
    """The tap and a loader joined by a pipe, each in a process group of its own."""

    def __init__(
        self, folder: Path, store: Path, target: Target, config: dict[str, Any], state: Any
    ) -> None:
        (folder / "target.json").write_text(json.dumps(config))
        self._tap = subprocess.Popen(
            tap_command(folder, {"source": url_of(store)}, state=state),
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with (folder / "loader.log").open("wb") as log, (folder / "states").open("wb") as states:
            self._loader = subprocess.Popen(
                [*target.install(), "--config", str(folder / "target.json")],
                cwd=folder,
                env=clean_environment(),
                stdin=self._tap.stdout,
                stdout=states,
                stderr=log,
                start_new_session=True,
            )
        assert self._tap.stdout is not None
        self._tap.stdout.close()  # or the tap would not notice that the loader is gone
        self._folder = folder

    def kill(self, *whom: str) -> None:
        """End processes with SIGKILL, together with those that they have started."""
        for each in whom:
            os.killpg({"tap": self._tap, "loader": self._loader}[each].pid, signal.SIGKILL)

    def wait(self) -> tuple[int, int]:
        """Wait for the end of both; return their exit statuses."""
        return self._tap.wait(timeout=240), self._loader.wait(timeout=240)

    def log(self) -> str:
        return (self._folder / "loader.log").read_text()

    def states(self) -> list[Any]:
        """Return the states that the loader wrote, of whole lines."""
        *lines, _ = (self._folder / "states").read_bytes().split(b"\n")
        return [json.loads(line) for line in lines if line]


def kept_by_meltano(states: list[Any]) -> dict[str, Any] | None:
    """Return what Meltano gives the next run after one that was interrupted."""
    kept = MeltanoState("kills", partial_state={}, completed_state={})
    for state in states:
        kept.merge_partial(MeltanoState("kills", partial_state={"singer_state": state}))
    return json.loads(kept.json_merged()).get("singer_state")


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("name", EVENTS)
def test_killed_in_the_first_load_the_next_run_completes_it(
    tmp_path: Path, servers: Servers, name: str
) -> None:
    target = BY_NAME[name]
    store = tmp_path / "store.db"
    fill(store, many(EVENTS[name]), group=1_000)
    chance = random.Random(20261128)
    expected = ids_by_stream(stored(store))
    assert expected.keys() == DEFAULT_STREAMS
    target.install()
    number, kills, seconds = 0, 0, 0.0
    while kills < rounds(ROUNDS):
        number += 1
        folder = tmp_path / f"round{number}"
        folder.mkdir()
        destination = target.destination(folder, servers)
        config = destination.config | chance.choice(BATCHES)
        started = time.monotonic()
        pipeline = Pipeline(folder, store, target, config, None)
        state = None
        if seconds:
            time.sleep(chance.uniform(0, seconds))  # the moment is what chance decides
            pipeline.kill(*chance.choice([("tap",), ("loader",), ("tap", "loader")]))
            # Where nothing was killed, the load was over sooner than the last one.
            kills += -signal.SIGKILL in pipeline.wait()
            state = kept_by_meltano(pipeline.states())
            started = time.monotonic()
            pipeline = Pipeline(folder, store, target, config, state)
        assert pipeline.wait() == (0, 0), pipeline.log()
        if state is None:
            seconds = time.monotonic() - started
        assert not differences(destination, expected)
        destination.remove()
        print(number, kills, f"{seconds:.1f}", bool((state or {}).get("bookmarks")))  # noqa: T201


def differences(destination: Destination, expected: dict[str, list[str]]) -> dict[str, str]:
    found = {}
    for stream, ids in expected.items():
        loaded = Counter(row["id"] for row in destination.rows(stream))
        lost, doubled = len(set(ids) - loaded.keys()), loaded.total() - len(loaded)
        others = len(loaded.keys() - set(ids))
        if lost or doubled or others:
            found[stream] = f"{lost} lost, {doubled} doubled, {others} others"
    return found
