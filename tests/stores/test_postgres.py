"""What is PostgreSQL's own: the schema, its partitions, its roles, what a server can be like."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import psycopg
import pytest

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.postgres import pruning
from tap_vero_segment.stores.postgres.connection import READER_ROLE
from tap_vero_segment.stores.postgres.reader import PostgresReader
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tests.stores.test_any_store import WEEK, events, ids, loaded, prune_all

MONDAY = times.from_text("2026-11-23T00:00:00Z")


def partitions(database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = "
            "'vero_collector.events'::regclass ORDER BY 1"
        ).fetchall()
    return [name.removeprefix("vero_collector.") for (name,) in rows]


def execute(database: str, *statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def refused_to_write(url: str) -> str:
    with pytest.raises(SettingError) as caught:
        PostgresWriter(url, "store")
    return str(caught.value)


def refused_to_read(url: str) -> str:
    with pytest.raises(SettingError) as caught:
        PostgresReader(url, "source")
    return str(caught.value)


# Partitions


def test_each_week_is_a_partition_and_a_commit_lies_in_one(database):
    now = 0
    writer = PostgresWriter(database, "store", lambda: now)
    moments = [MONDAY, MONDAY + WEEK - 1, MONDAY + WEEK, MONDAY + 5 * WEEK - 50]
    for seed, now in enumerate(moments):  # noqa: B007
        writer.write(events(100, seed), [])
    writer.close()

    # 100 events do not fit into the last microsecond of a week: they open the next one.
    assert partitions(database) == ["events_20261123", "events_20261130", "events_20261228"]
    with PostgresReader(database, "source") as reader:
        at = loaded(reader)
    assert at[0] == MONDAY
    assert at[100] == MONDAY + WEEK
    assert at[300] == MONDAY + 5 * WEEK
    assert at == sorted(set(at))
    assert len(at) == 400


def test_pruning_drops_partitions(database):
    now = 0
    writer = PostgresWriter(database, "store", lambda: now)
    for seed, now in enumerate(MONDAY + number * WEEK + 1000 for number in range(4)):  # noqa: B007
        writer.write(events(50, seed), [])

    assert prune_all(writer, times.LATEST, MONDAY + 2 * WEEK + 1009) == 110

    assert partitions(database) == ["events_20261207", "events_20261214"]
    with psycopg.connect(database) as connection:
        [held] = connection.execute("SELECT count(*) FROM vero_collector.ids").fetchone()
    assert held == 90
    writer.close()


def held(database: str) -> list[int]:
    """How many ids and how many events there are."""
    with psycopg.connect(database) as connection:
        query = "SELECT (SELECT count(*) FROM vero_collector.ids), count(*) FROM {}"
        return [*connection.execute(query.format("vero_collector.events").encode()).fetchone()]


def test_a_broken_off_pruning_is_finished_by_the_next(database, monkeypatch):
    now = 0
    writer = PostgresWriter(database, "store", lambda: now)
    for seed, now in enumerate(MONDAY + number * WEEK for number in range(3)):  # noqa: B007
        writer.write(events(50, seed), [])

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning, "PAGE", 20)
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_drop", broken)
        assert writer.prune(times.LATEST, MONDAY + WEEK - 1) == 20
        assert held(database) == [130, 130]
        with pytest.raises(KeyboardInterrupt):
            prune_all(writer, times.LATEST, MONDAY + WEEK - 1)
    assert held(database) == [100, 100]
    assert len(partitions(database)) == 3
    assert writer.prune(times.LATEST, MONDAY + WEEK - 1) == 0
    assert len(partitions(database)) == 2
    writer.close()


def test_pruning_beside_a_dump_deletes_and_holds_nobody_up(database, monkeypatch, caplog):
    """A dump has each table from its beginning to its end, and whoever drops one waits for that."""
    now = MONDAY
    monkeypatch.setattr(pruning, "PATIENCE", 1)
    writer = PostgresWriter(database, "store", lambda: now)
    for seed in range(3):
        writer.write(events(50, seed), [])
        now += WEEK
    done = threading.Event()
    waited = []

    def collect() -> None:
        with contextlib.closing(PostgresWriter(database, "store", lambda: now)) as other:
            for event in itertools.cycle(events(1_000, seed=9)):
                began = time.monotonic()
                other.write([event], [])
                waited.append(time.monotonic() - began)
                if done.is_set():
                    return

    with psycopg.connect(database) as dump, ThreadPoolExecutor() as executor:
        dump.execute("LOCK TABLE vero_collector.events IN ACCESS SHARE MODE")
        collecting = executor.submit(collect)
        try:
            with caplog.at_level(logging.WARNING):
                assert prune_all(writer, times.LATEST, MONDAY + 2 * WEEK - 1) == 100
        finally:
            done.set()
        collecting.result()
        assert max(waited) < 1.5  # it was 2 and an error
        assert "prune again later" in caplog.text
        assert len(partitions(database)) == 4
        assert writer.write(events(50, seed=2), []) == 0  # of the week that is kept
        [ids_held, events_held] = held(database)
        assert ids_held == events_held

    assert writer.prune(times.LATEST, MONDAY + 2 * WEEK - 1) == 0
    assert len(partitions(database)) == 2
    writer.close()


# The schema


def test_a_schema_that_is_somebody_elses_is_left_alone(database):
    execute(
        database,
        "CREATE SCHEMA vero_collector",
        "CREATE TABLE vero_collector.events (theirs integer)",
    )

    assert refused_to_write(database).startswith("store: ")
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'vero_collector'"
        ).fetchall()
    assert found == [("events",)]


def test_a_schema_that_another_user_could_change_is_not_used(database):
    execute(
        database,
        "CREATE ROLE stranger_who_was_first",
        "CREATE SCHEMA vero_collector AUTHORIZATION stranger_who_was_first",
        "GRANT ALL ON SCHEMA vero_collector TO PUBLIC",
        "CREATE ROLE collector_who_was_second LOGIN",
    )

    said = refused_to_write(database.replace("vero@", "collector_who_was_second@"))

    assert "belongs to another user" in said
    assert "ALTER SCHEMA vero_collector OWNER TO" in said


def test_a_database_without_a_store_is_told_to_the_reader(database):
    assert "start a collector" in refused_to_read(database)


def test_the_schema_may_be_made_beforehand_for_a_user_who_may_not(database):
    name = "collector_without_rights"
    execute(
        database,
        f"CREATE ROLE {name} LOGIN",
        f"CREATE SCHEMA vero_collector AUTHORIZATION {name}",
    )
    url = database.replace("vero@", f"{name}@")

    writer = PostgresWriter(url, "store")
    assert writer.write(events(3), []) == 3
    assert prune_all(writer, times.LATEST) == 3
    writer.close()


def test_a_user_without_rights_is_told(database):
    execute(database, "CREATE ROLE nobody_at_all LOGIN")

    assert "permission denied" in refused_to_write(database.replace("vero@", "nobody_at_all@"))


def test_text_in_another_encoding_is_refused(postgres):
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")

    assert "LATIN1" in refused_to_write(postgres.url("latin"))


# Roles


def test_the_role_for_readers_reads_events_and_nothing_else(database):
    writer = PostgresWriter(database, "store", count(MONDAY, WEEK).__next__)
    writer.write(events(5), [])
    execute(database, f"CREATE ROLE only_reads LOGIN IN ROLE {READER_ROLE}")
    url = database.replace("vero@", "only_reads@")

    with PostgresReader(url, "source") as reader:
        assert len(ids(reader)) == 5
        writer.write(events(5, seed=9), [])  # in a partition that is new
        assert len(ids(reader)) == 10
        assert reader.high_water() is not None
        assert sum(arrivals.events for arrivals in reader.arrivals(0)) == 10
        assert len(reader.newest(20)) == 10
        assert reader.newest(20, "email_sent")
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "SELECT body FROM vero_collector.events",
            "SELECT * FROM vero_collector.dead_letters",
            "SELECT received_at FROM vero_collector.ids",
            "DELETE FROM vero_collector.search_blocks",
            "DELETE FROM vero_collector.events",
            "UPDATE vero_collector.clock SET last = 0",
            "SELECT vero_collector.append(1, '{a}', '{a}', '{1}', '{a}', '{a}', '{a}', '{}', '{}')",
            "INSERT INTO vero_collector.exports VALUES ('a', 1, 1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    writer.close()


# Durability


def test_a_commit_is_on_disk_also_where_the_database_is_set_to_hurry(database, postgres):
    name = database.rpartition("/")[2]
    with postgres.connect() as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off'.encode())
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    writer = PostgresWriter(database, "store")
    with postgres.connect(name) as connection:
        for seed in range(20):
            writer.write(events(5, seed), [])
            [unflushed] = connection.execute(
                "SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()"
            ).fetchone()
            assert unflushed < 200  # no more than the odd record of the server's own
    writer.close()


def test_a_server_that_does_not_sync_is_told_of(database, caplog, monkeypatch):
    from tap_vero_segment.stores.postgres import connection as module

    class Careless(module.Session):
        def run(self, work):
            found = super().run(work)
            return (*found[:2], ("off",)) if isinstance(found, tuple) else found

    monkeypatch.setattr(module, "Session", Careless)
    module._warn_of_lost_events.cache_clear()  # noqa: SLF001
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # as a collector has several writers
            module.open_to_write(database, "store").close()

    assert caplog.text.count("fsync off") == 1
