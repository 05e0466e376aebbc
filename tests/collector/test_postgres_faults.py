"""What can go wrong around a shared store, short of a crash: nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from tap_vero_segment.stores.postgres.connection import open_to_write
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tests.support.collectors import (
    Payloads,
    acknowledge_more,
    running_collectors,
    statuses,
    under_load,
    users,
)
from tests.support.following import everything
from tests.support.leaks import assert_tells_nothing
from tests.support.load import Load
from tests.support.mounts import small_disk
from tests.support.payloads import documented, many
from tests.support.postgres import running_postgres

LOCK_THE_CLOCK = "SELECT last FROM vero_collector.clock FOR UPDATE"
SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'vero-collector'
"""
WAITING = f"{SESSIONS} AND wait_event_type = 'Lock'"


@pytest.fixture
def administrator(database):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def pids(administrator, query):
    return {pid for (pid,) in administrator.execute(query.encode())}


@contextmanager
def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def user(number):
    return documented() | {"user": {"id": number}}


def test_collectors_that_start_together_make_one_store(tmp_path, database, administrator):
    with running_collectors(6, tmp_path, database) as collectors:
        for number, collector in enumerate(collectors):
            assert collector.post(user(number)).status_code == 200
    assert {event.user for event in everything(database)} == set("012345")
    for table in ("pg_namespace WHERE nspname = 'vero_collector'",
                  "pg_roles WHERE rolname = 'vero_collector_reader'",
                  "vero_collector.schema_version"):  # fmt: skip
        [[count]] = administrator.execute(f"SELECT count(*) FROM {table}".encode()).fetchall()
        assert count == 1


def test_first_collectors_of_several_databases_start_together():
    """Roles belong to the server, and not to a database, as everything else does."""
    with running_postgres() as server:
        databases = [server.create(f"database-{number}") for number in range(6)]
        with ThreadPoolExecutor(len(databases)) as pool:
            for writer in pool.map(lambda url: PostgresWriter(url, "store"), databases):
                writer.close()


def test_a_storm_of_duplicates_is_stored_once(tmp_path, database):
    payloads = many(300)
    storm = payloads * 20
    random.Random(3).shuffle(storm)

    async def post(collectors):
        payloads = iter(storm)
        loads = [Load(collector.url, payloads) for collector in collectors]
        await asyncio.gather(*(load.run(16) for load in loads))
        return loads

    with running_collectors(2, tmp_path, database) as collectors:
        loads = asyncio.run(post(collectors))
    assert statuses(loads) == []
    assert sum(len(load.acknowledged) for load in loads) == len(storm)
    assert min(len(load.acknowledged) for load in loads) > 100
    seen = everything(database)
    assert len(seen) == len({event.id for event in seen}) == 300
    assert {event.user for event in seen} == {str(payload["user"]["id"]) for payload in payloads}


def test_a_restart_of_the_server_costs_no_answer(tmp_path):
    payloads = Payloads(random.Random(4))

    async def load(server, collectors):
        async with under_load(collectors, payloads) as loads:
            for _ in range(5):
                await acknowledge_more(loads, 100)
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            await acknowledge_more(loads, 100)
        return loads

    with running_postgres() as server:
        database = server.create("restarted")
        with running_collectors(2, tmp_path, database) as collectors:
            loads = asyncio.run(load(server, collectors))
        assert statuses(loads) == []
        assert {event.user for event in everything(database)} == users(loads)


def test_sessions_that_are_ended_are_made_again(tmp_path, database, administrator):
    payloads = Payloads(random.Random(5))

    async def load(collectors):
        async with under_load(collectors, payloads) as loads:
            for _ in range(20):
                await acknowledge_more(loads, 50)
                end = f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS}) AS sessions"
                administrator.execute(end.encode())
        return loads

    with running_collectors(2, tmp_path, database) as collectors:
        loads = asyncio.run(load(collectors))
    assert statuses(loads) == []
    assert {event.user for event in everything(database)} == users(loads)


def test_a_frozen_collector_holds_nobody_up(tmp_path, database):
    """Wherever it is frozen: also where it proves that the store accepts writes."""
    chance = random.Random(6)
    payloads = Payloads(chance)

    async def ask_whether_ready(collector):
        with ThreadPoolExecutor(1) as pool:
            while not payloads.stopped:
                await asyncio.get_running_loop().run_in_executor(pool, collector.get, "/ready")

    async def load(collectors):
        slowest = 0.0
        async with under_load(collectors, payloads) as loads, asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask_whether_ready(one)) for one in collectors]
            for _ in range(30):
                await asyncio.sleep(chance.uniform(0, 0.03))
                with frozen(collectors[0].process.pid):
                    before = time.monotonic()
                    await acknowledge_more(loads[1:], 50)
                    slowest = max(slowest, time.monotonic() - before)
            payloads.stop()
            await asyncio.gather(*asking)
        assert slowest < 2
        return loads

    with running_collectors(2, tmp_path, database) as collectors:
        loads = asyncio.run(load(collectors))
    assert statuses(loads) == []
    assert {event.user for event in everything(database)} == users(loads)


def test_a_process_that_freezes_with_the_lock_loses_it(tmp_path, database):
    """As one that prunes may, its machine asleep: it is cut off, and the others go on."""
    tries = []

    def freeze_once(connection):
        connection.execute(LOCK_THE_CLOCK.encode())
        tries.append(time.monotonic())
        while len(tries) == 1 and collector.post(user(1)).status_code == 503:
            assert time.monotonic() < tries[0] + 20
        connection.execute(b"SELECT 17")

    with (
        running_collectors(1, tmp_path, database) as [collector],
        closing(open_to_write(database, "store")) as session,
    ):
        session.commit(freeze_once)
    assert [event.user for event in everything(database)] == ["1"]
    cut_off, again = tries
    assert again - cut_off < 10


HANG_ON_THE_WAY = """
CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END';
CREATE TRIGGER wait BEFORE INSERT ON vero_collector.ids EXECUTE FUNCTION public.wait();
"""


def test_a_session_that_hangs_with_the_lock_is_answered_503(tmp_path, database, administrator):
    """As where the disk does not come back: the others say so before long, and so does it."""
    with (
        running_collectors(2, tmp_path, database) as (one, other),
        ThreadPoolExecutor(1) as pool,
    ):
        administrator.execute(HANG_ON_THE_WAY.encode())
        administrator.execute("SELECT pg_advisory_lock(42)")
        hanging = pool.submit(one.post, user(1))
        while not (waiting := pids(administrator, WAITING)):
            time.sleep(0.001)
        with frozen(waiting.pop()):
            administrator.execute("SELECT pg_advisory_unlock(42)")
            begun = time.monotonic()
            blocked = other.post(user(2))
            assert (blocked.status_code, time.monotonic() - begun < 5) == (503, True)
            assert int(blocked.headers["Retry-After"]) > 0
            assert hanging.result().status_code == 503
            assert time.monotonic() - begun < 14
            assert "the server does not answer" in one.log()
        for number, collector in enumerate((one, other), start=3):
            assert collector.post(user(number)).status_code == 200
        log = one.log() + other.log()
    assert_tells_nothing(log)
    # What was answered 503 may have been stored: whoever posted it, posts it again.
    assert {"3", "4"} <= {event.user for event in everything(database)} <= set("1234")


def test_a_full_disk_of_the_server_is_told_and_mended(tmp_path):
    payloads = ({**user(number), "padding": "x" * 20_000} for number in range(100_000))
    acknowledged = set()

    def post(collector):
        payload = next(payloads)
        answer = collector.post(payload)
        if answer.status_code == 200:
            acknowledged.add(str(payload["user"]["id"]))
        return answer

    with TemporaryDirectory() as reachable, small_disk(Path(reachable) / "disk", 96) as disk:
        Path(reachable).chmod(0o755)
        with running_postgres(disk) as server:
            database = server.create("full")
            with running_collectors(2, tmp_path, database) as collectors:
                assert all(post(collector).status_code == 200 for collector in collectors)
                ballast = disk / "ballast"
                room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
                ballast.write_bytes(b"\0" * (room - 3 * 1024 * 1024))
                for collector in chain.from_iterable([collectors] * 500):
                    if (answer := post(collector)).status_code != 200:
                        break
                assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
                ballast.unlink()
                # It ends where it finds no room for its log; whoever looks after it, starts it.
                if server.process.poll() is not None:
                    server.start()
                deadline = time.monotonic() + 20
                for collector in collectors:
                    while post(collector).status_code != 200:
                        assert time.monotonic() < deadline
                        assert collector.process.poll() is None
                log = "".join(collector.log() for collector in collectors)
            assert_tells_nothing(log)
            seen = everything(database)
            assert acknowledged <= {event.user for event in seen}
            assert len({event.id for event in seen}) == len(seen)
