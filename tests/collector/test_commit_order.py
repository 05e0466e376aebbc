"""``loaded_at`` rises in commit order over all collectors: who follows it misses nothing."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import psycopg
import pytest

from tests.support.collectors import Payloads, running_collectors, statuses, under_load, users
from tests.support.following import Follower, by_http, by_store, everything
from tests.support.rounds import by_rounds, rounds

COLLECTORS = 4
CONNECTIONS = 16
SECONDS = rounds(30)

READ_THE_CLOCK = "SELECT last INTO STRICT newest FROM vero_collector.clock FOR UPDATE;"
CHOSEN = "PERFORM vero_collector.make_partition(starts_at);"


def follow(tmp_path, database, seconds, seed):
    """Follow the store while collectors write it; return what was acknowledged and followed."""
    chance = random.Random(seed)
    payloads = Payloads(chance, repeated=0.2)

    async def load(collectors):
        async with under_load(collectors, payloads, CONNECTIONS) as loads:
            await asyncio.sleep(seconds)
        return loads

    with (
        running_collectors(COLLECTORS, tmp_path, database) as collectors,
        by_store(database, chance) as from_store,
        by_http(collectors, chance) as from_api,
        Follower(from_store, chance) as one,
        Follower(from_api, chance) as other,
    ):
        loads = asyncio.run(load(collectors))
    return loads, (one.seen, other.seen)


def missed(database, followed):
    """Return how many events each reader was not given, as they came up behind its cursor."""
    held = everything(database)
    return [len(set(held) - set(seen)) for seen in followed]


@by_rounds
def test_readers_miss_nothing_while_collectors_write(tmp_path, database):
    loads, followed = follow(tmp_path, database, SECONDS, seed=5)

    assert statuses(loads) == []
    assert all(len(load.acknowledged) > 20 * SECONDS for load in loads)
    acknowledged = users(loads)
    assert len(acknowledged) < sum(len(load.acknowledged) for load in loads)
    assert missed(database, followed) == [0, 0]
    for seen in followed:
        assert len(seen) == len(acknowledged)
        assert {event.user for event in seen} == acknowledged
        assert all(one.loaded_at < other.loaded_at for one, other in pairwise(seen))


@pytest.mark.slow
def test_without_the_lock_that_test_would_fail(tmp_path, database):
    with running_collectors(1, tmp_path, database):
        pass
    take_the_lock_away(database)

    for seed in range(5):
        _, followed = follow(tmp_path, database, seconds=1.5, seed=seed)
        by_reader = missed(database, followed)
        if all(by_reader):
            break
    assert all(by_reader)


def take_the_lock_away(database):
    """Let the choice of ``loaded_at`` and the commit be in another order.

    The random wait stands for a slow disk or network: it widens a gap that is there without it.
    """
    with psycopg.connect(database, autocommit=True) as connection:
        [[source]] = connection.execute(
            "SELECT pg_get_functiondef('vero_collector.append'::regproc)"
        ).fetchall()
        for part, instead in (
            (READ_THE_CLOCK, READ_THE_CLOCK.replace(" FOR UPDATE", "")),
            (CHOSEN, f"{CHOSEN} PERFORM pg_sleep(random() * 0.02);"),
            # A collector that sees the newest loaded_at go back takes the database for restored.
            ("SET last = last_at;", "SET last = greatest(last, last_at);"),
        ):
            assert source.count(part) == 1
            source = source.replace(part, instead)
        connection.execute(source.encode())
