"""Collectors and PostgreSQL that are killed: what was acknowledged is there, once, in order."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from itertools import pairwise

from tests.support.collectors import (
    Payloads,
    acknowledge_more,
    running_collectors,
    statuses,
    under_load,
    users,
)
from tests.support.following import Follower, by_store, everything
from tests.support.forked_tap import ForkedTap, TapForks
from tests.support.leaks import assert_tells_nothing
from tests.support.postgres import running_postgres
from tests.support.rounds import by_rounds, rounds

ROUNDS = rounds(30)
CONNECTIONS = 4


def holds(database, acknowledged, seen):
    """What was acknowledged was read, once, in an order that rises."""
    assert seen == everything(database)
    assert acknowledged <= {event.user for event in seen}
    assert len({event.id for event in seen}) == len(seen)
    assert len({event.user for event in seen}) == len(seen)
    assert all(one.loaded_at < other.loaded_at for one, other in pairwise(seen))


def test_killed_collectors_lose_nothing(tmp_path, database):
    """Each is killed under load and started again, while the other ones go on."""
    chance = random.Random(30)
    loads = []

    async def crash(collectors, victim, payloads):
        async with under_load(collectors, payloads, CONNECTIONS) as posting:
            loads.extend(posting)
            await acknowledge_more(posting, chance.randint(20, 100))
            victim.kill()
            await acknowledge_more(posting, 20)

    with running_collectors(2, tmp_path, database) as collectors:
        with by_store(database, chance) as read, Follower(read, chance) as follower:
            numbers = itertools.count()
            for _ in range(ROUNDS):
                victim = chance.choice(collectors)
                asyncio.run(crash(collectors, victim, Payloads(chance, 0.1, numbers)))
                victim.start()
        for collector in collectors:
            assert_tells_nothing(collector.log())
    assert statuses(loads) == []
    # Some were on their way: without that, nothing was tried.
    assert sum(len(load.unanswered) for load in loads) > ROUNDS
    holds(database, users(loads), follower.seen)


class TapRuns(threading.Thread):
    """Runs the tap again and again, each run from the last one's bookmark."""

    def __init__(self, tap, source):
        super().__init__()
        self._tap = tap
        self._config = {"source": source}
        self._ending = threading.Event()
        self._state = None
        self.ids = []
        self.failures = []

    def run(self):
        while not self._ending.wait(0.2):
            self._sync()

    def _sync(self):
        run = self._tap.run(self._config, state=self._state)
        if run.status:
            self.failures.append(run.stderr.splitlines()[-1])
        else:
            self.ids += run.messages.ids()
            self._state = run.messages.state

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._ending.set()
        self.join(timeout=60)
        self._sync()


@by_rounds
def test_a_killed_server_loses_nothing(tmp_path):
    """Collectors and readers live on, and find it again."""
    chance = random.Random(30)
    payloads = Payloads(chance, repeated=0.1)

    async def load(server, collectors):
        async with under_load(collectors, payloads, CONNECTIONS) as loads:
            for _ in range(ROUNDS):
                await acknowledge_more(loads, chance.randint(20, 200))
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            await acknowledge_more(loads, 100)
        return loads

    with running_postgres() as server, TapForks() as forks:
        database = server.create("crash")
        with running_collectors(2, tmp_path, database) as collectors:
            with (
                by_store(database, chance) as read,
                Follower(read, chance) as follower,
                TapRuns(ForkedTap(forks, tmp_path), database) as tap,
            ):
                loads = asyncio.run(load(server, collectors))
            for collector in collectors:
                assert collector.process.poll() is None
                assert_tells_nothing(collector.log())
        assert all(load.unanswered == [] for load in loads)
        assert set(statuses(loads)) <= {503}
        holds(database, users(loads), follower.seen)
        assert tap.ids == [event.id for event in follower.seen]
        # A run that begins while there is no server ends at once.
        assert all("source: " in failure for failure in tap.failures)
