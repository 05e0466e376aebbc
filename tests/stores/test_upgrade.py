"""Stores that earlier releases wrote, kept as SQL: each is opened, read and written on."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.sqlite.connection import APPLICATION_ID
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.schema import MIGRATIONS, SCHEMA_VERSION
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.collector import Collector
from tests.support.events import read_events
from tests.support.payloads import documented, many
from tests.support.stored import url_of
from tests.support.tap import run_tap

RELEASED = Path(__file__).parent / "released"
SCHEMAS = sorted(RELEASED.glob("*.sql"))
FIRST = RELEASED / "schema-1.sql"
SECOND = RELEASED / "schema-2.sql"
EVENTS = 30


def rebuild(sql: Path, store: Path) -> Path:
    """Make the file that a release wrote."""
    connection = apsw.Connection(str(store))
    connection.execute(sql.read_text(encoding="utf-8"))
    connection.pragma("journal_mode", "wal")
    connection.close()
    return store


def rows(store: Path, table: str) -> list[tuple]:
    connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    found = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return found


@pytest.fixture(params=SCHEMAS, ids=lambda path: path.stem)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return rebuild(request.param, tmp_path / "vero-events.db")


def test_every_released_schema_is_kept():
    names = {path.name for path in SCHEMAS}
    assert names == {f"schema-{version}.sql" for version in range(1, SCHEMA_VERSION)}


def test_everything_is_there_after_the_upgrade(store):
    before = {table: rows(store, table) for table in ("dead_letters", "exports", "totals")}
    events = rows(store, "events")
    assert len(events) == EVENTS
    assert all(before.values())

    writer = SqliteWriter(url_of(store), "store")
    writer.close()

    assert {table: rows(store, table) for table in before} == before
    assert [row[: len(events[0])] for row in rows(store, "events")] == events
    with SqliteReader(url_of(store), "store") as reader:
        lines = [json.loads(line) for line in reader.lines(0, None, 1_000)]
        assert [line["messageId"] for line in lines] == [row[1] for row in events]
        assert [kept.letter.body for kept in reader.dead_letters(0, 10)] == [b"nonsense"]
        assert reader.exported_until()
        assert sum(total.events for total in reader.summary().totals) == EVENTS
        assert reader.arrivals(0) == []


def test_a_collector_goes_on_with_it_and_a_tap_reads_it(store, tmp_path):
    with Collector(tmp_path) as collector:
        for payload in many(EVENTS):
            assert collector.post(payload).status_code == 200  # as it has them all already
        assert len(read_events(collector)) == EVENTS
        assert collector.post(documented("sent")).status_code == 200
        events = read_events(collector)
        collector.kill()
    with SqliteReader(url_of(store), "store") as reader:
        # Of what was there before, nobody counted when it came.
        assert [arrivals.events for arrivals in reader.arrivals(0)] == [1]
    assert len(events) == EVENTS + 1
    assert [event["loadedAt"] for event in events] == sorted(event["loadedAt"] for event in events)

    run = run_tap(tmp_path, {"source": url_of(store)})

    assert run.status == 0
    assert run.messages.ids() == [event["messageId"] for event in events]


def test_a_tap_says_that_a_collector_upgrades_it(store):
    before = store.read_bytes()

    with pytest.raises(SettingError, match=r"source: .* older release .* start vero-collector"):
        SqliteReader(url_of(store), "source")

    assert store.read_bytes() == before


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(store, monkeypatch):
    [(version,)] = rows(store, "pragma_user_version")
    broken = (*MIGRATIONS[:-1], f"{MIGRATIONS[-1]} INSERT INTO nowhere VALUES (1);")
    monkeypatch.setattr("tap_vero_segment.stores.sqlite.connection.MIGRATIONS", broken)
    before = rows(store, "events")
    with pytest.raises(SettingError, match="nowhere"):
        SqliteWriter(url_of(store), "store")
    assert rows(store, "events") == before
    assert rows(store, "pragma_user_version") == [(version,)]

    monkeypatch.undo()
    SqliteWriter(url_of(store), "store").close()

    assert rows(store, "pragma_user_version") == [(SCHEMA_VERSION,)]
    assert rows(store, "pragma_application_id") == [(APPLICATION_ID,)]


def test_what_is_written_after_the_upgrade_is_checked(store):
    writer = SqliteWriter(url_of(store), "store")
    writer.close()
    with Collector(store.parent) as collector:
        collector.post(documented("sent"))
    connection = apsw.Connection(str(store))
    connection.execute(
        "UPDATE events SET call_check = NULL WHERE loaded_at = (SELECT max(rowid) FROM events)"
    )
    connection.close()
    with pytest.raises(SettingError, match="lost its checksum"):
        SqliteWriter(url_of(store), "store")


def test_a_damaged_store_is_not_upgraded(tmp_path):
    store = rebuild(SECOND, tmp_path / "vero-events.db")
    connection = apsw.Connection(str(store))
    connection.execute("UPDATE events SET call = x'00' WHERE loaded_at % 10 = 5")
    connection.close()

    with pytest.raises(SettingError, match="damaged"):
        SqliteWriter(url_of(store), "store")

    assert rows(store, "pragma_user_version") == [(2,)]
