"""The shared store as the tap's source."""

from __future__ import annotations

import json
import random
import signal
import time
from threading import Event, Thread

import psycopg
import pytest

from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.postgres.connection import READER_ROLE
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tests.support.payloads import many
from tests.support.postgres_problems import PROBLEMS, SECRET, problem_url
from tests.support.streams import bookmark_of
from tests.support.tap import read_messages

PASSWORD = "secret-password-of-a-reader"


def fill(url, payloads, group=500):
    """Store payloads as a collector would; return the ids, in order."""
    writer = PostgresWriter(url, "store")
    events = [
        read_vero(json.dumps(payload).encode(), 1_700_000_000_000_000) for payload in payloads
    ]
    for start in range(0, len(events), group):
        writer.write(events[start : start + group], [])
    writer.close()
    return [event.id for event in events]


def test_a_run_gives_everything_and_the_next_one_what_is_new(tap, database):
    payloads = many(2_600)
    first = fill(database, payloads[:2_500])
    config = {"source": database}
    full = tap.good(config)
    assert full.ids() == first
    assert sum(full.counts().values()) == 2 * len(first)
    loaded = [record["loaded_at"] for record in full.records["tracks"]]
    assert loaded == sorted(set(loaded))
    assert bookmark_of(full.state, "tracks") == loaded[-1]

    nothing = tap.good(config, state=full.state)
    assert nothing.counts() == {}
    assert nothing.state == full.state

    new = fill(database, payloads[2_400:])[100:]
    assert tap.good(config, state=nothing.state).ids() == new


def test_interrupted_runs_together_give_what_was_stored(tap, database):
    expected = fill(database, many(6_000))
    position = {loaded_at: number for number, loaded_at in enumerate(stored(database), start=1)}
    chance = random.Random(9)
    interruptions = 0
    while interruptions < 10:
        found, state, complete = set(), None, False
        while not complete:
            size = chance.randrange(1, 4_000_000) if interruptions < 10 else 1 << 30
            with tap.start({"source": database}, state=state) as running:
                output = running.stdout.read(size)
                complete = len(output) < size
                if not complete:
                    running.send_signal(signal.SIGKILL)
                    output += running.stdout.read()
                    interruptions += 1
                assert running.wait() in ({0} if complete else {0, -signal.SIGKILL})
            messages = read_messages(output.split(b"\n")[:-1])
            found.update(messages.ids())
            state = messages.state or state
            bookmark = bookmark_of(state, "tracks") if state else None
            # What the bookmark leaves behind was read.
            assert set(expected[: position[bookmark] if bookmark else 0]) <= found
        assert found == set(expected)


def stored(url):
    query = (
        "SELECT to_char(to_timestamp(loaded_at / 1000000) AT TIME ZONE 'UTC',"
        " 'YYYY-MM-DD\"T\"HH24:MI:SS.') || lpad((loaded_at % 1000000)::text, 6, '0') || 'Z'"
        " FROM vero_collector.events ORDER BY loaded_at"
    )
    with psycopg.connect(url) as connection:
        return [loaded_at for (loaded_at,) in connection.execute(query)]


def test_runs_beside_collectors_that_write_miss_nothing(tap, database):
    fill(database, [])
    ended = [Event(), Event()]
    halves = many(3_000)[:1_500], many(3_000)[1_500:]
    ids = []

    def write(payloads, end):
        try:
            ids.extend(fill(database, payloads, group=7))
        finally:
            end.set()

    writers = [Thread(target=write, args=pair) for pair in zip(halves, ended, strict=True)]
    for writer in writers:
        writer.start()
    found, state, runs, complete = [], None, 0, False
    while not complete:
        complete = all(end.is_set() for end in ended)
        messages = tap.good({"source": database}, state=state)
        found += messages.ids()
        state = messages.state
        runs += 1
    for writer in writers:
        writer.join()
    assert runs > 1
    assert len(found) == len(set(found))
    assert set(found) == set(ids)
    assert len(ids) == 3_000


@pytest.fixture(scope="session")  # as the server: a worker may come to this module twice
def reader(postgres):
    """A user that may read, and says a password."""
    url = postgres.create("of-a-reader")
    ids = fill(url, many(30))
    writer = PostgresWriter(url, "store")
    writer.write([], [DeadLetter(1, "vero", "no JSON", b"secret body")])
    writer.close()
    postgres.make_user("reader", PASSWORD, READER_ROLE)
    postgres.make_user("stranger", PASSWORD, "pg_monitor")
    given = postgres.url("of-a-reader", f"reader:{PASSWORD}")
    deadline = time.monotonic() + 30
    while not asks_for_a_password(postgres.url("of-a-reader", "reader")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return given, ids


def asks_for_a_password(url):
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def test_a_reader_of_the_role_is_enough_for_the_tap(tap, reader):
    url, ids = reader
    assert tap.good({"source": url}).ids() == ids
    assert tap.run({"source": url}, "--test").status == 0


@pytest.mark.parametrize(
    "forbidden",
    [
        "SELECT body FROM vero_collector.events",
        "SELECT * FROM vero_collector.events",
        "SELECT body FROM vero_collector.dead_letters",
        "SELECT count(*) FROM vero_collector.dead_letters",
        "INSERT INTO vero_collector.events (loaded_at) VALUES (1)",
        "DELETE FROM vero_collector.events",
        "UPDATE vero_collector.clock SET last = 0",
        "SELECT last FROM vero_collector.clock FOR UPDATE",
        "SELECT vero_collector.beat()",
        "SELECT vero_collector.make_partition(0)",
        "DROP SCHEMA vero_collector CASCADE",
        "CREATE TABLE vero_collector.of_mine ()",
    ],
)
def test_the_role_may_do_nothing_else(reader, forbidden):
    with (
        psycopg.connect(reader[0], autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(forbidden.encode())


@pytest.mark.parametrize("arguments", [(), ("--test",)], ids=["run", "test"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_an_error_names_the_setting_and_no_secret(tap, postgres, problem, arguments):
    run = tap.run({"source": problem_url(postgres, problem)}, *arguments)
    assert run.status == 1
    tells(run, PROBLEMS[problem][1], SECRET)


@pytest.mark.parametrize(
    ("user", "database", "said"),
    [
        (f"reader:{SECRET}", "of-a-reader", "password authentication failed"),
        ("reader", "of-a-reader", "no password supplied"),
        (f"reader:{PASSWORD}", "postgres", "the database holds no store"),
        (f"stranger:{PASSWORD}", "of-a-reader", "permission denied for schema vero_collector"),
    ],
    ids=["wrong-password", "no-password", "no-store", "no-rights"],
)
def test_who_may_not_read_is_told_so_without_the_password(
    tap, reader, postgres, user, database, said
):
    run = tap.run({"source": postgres.url(database, user)}, "--test")
    assert run.status == 1
    tells(run, said, SECRET)
    assert PASSWORD not in run.stderr


def tells(run, said, secret):
    (error,) = (line for line in run.stderr.splitlines() if "INFO" not in line)
    assert "source: " in error
    assert said in error
    assert secret not in run.stderr
    assert secret.encode() not in run.stdout
