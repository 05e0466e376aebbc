"""The newest events, and single ones, as every store gives them."""

from __future__ import annotations

import json

import apsw
import pytest

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.stores.base import NEWEST_SEARCHED, StoreBrokenError
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.stores.test_any_store import events, loaded, prune_all
from tests.support.stored import url_of


def collection_of(line: bytes) -> str:
    return BY_EVENT[json.loads(line)["event"]].stream


def test_the_newest_come_first(writer, reader):
    for seed in range(3):
        writer.write(events(20, seed), [])
    lines = reader.lines(0, None, 1_000)[::-1]

    for limit in (1, 59, 60, 61):
        assert reader.newest(limit) == lines[:limit]
    for collection in {collection_of(line) for line in lines}:
        of_it = [line for line in lines if collection_of(line) == collection]
        for limit in (1, len(of_it), 1_000):
            assert reader.newest(limit, collection) == of_it[:limit]
    assert reader.newest(10, "no such") == []


def test_what_was_pruned_is_not_among_them(writer, reader):
    writer.write(events(25, 1), [])
    since = times.now()
    writer.write(events(15, 2), [])
    lines = reader.lines(0, None, 1_000)[::-1]
    at = loaded(reader)
    prune_all(writer, since)

    assert reader.newest(15) == reader.newest(16) == lines[:15]
    assert reader.event(at[24]) is None
    prune_all(writer, times.LATEST)
    assert reader.newest(10) == reader.newest(10, "email_sent") == []


def test_a_collection_is_sought_among_the_newest_only(writer, reader):
    [rare, frequent] = events(2)
    rare, frequent = rare._replace(collection="rare"), frequent._replace(collection="frequent")

    def write_some(number: int, name: str) -> None:
        writer.write([frequent._replace(id=f"{name}-{place}") for place in range(number)], [])

    writer.write([rare], [])
    write_some(NEWEST_SEARCHED - 1, "a")
    assert len(reader.newest(10, "rare")) == 1
    write_some(1, "b")
    assert reader.newest(10, "rare") == []
    assert len(reader.newest(10, "frequent")) == 10


def test_each_event_is_found_by_its_time(writer, reader):
    writer.write(events(20), [])
    lines = reader.lines(0, None, 1_000)

    at = loaded(reader)
    assert [reader.event(moment) for moment in at] == lines
    for moment in (at[0] - 1, at[-1] + 1, 0, -1, 10**30, -(10**30)):
        assert reader.event(moment) is None


# Damage


@pytest.mark.parametrize("damage", ["UPDATE events SET call = x'00'", "DELETE FROM events"])
def test_a_damaged_store_is_told(tmp_path, damage):
    store = tmp_path / "vero-events.db"
    writer = SqliteWriter(url_of(store), "store")
    writer.write(events(5), [])
    connection = apsw.Connection(str(store))
    with SqliteReader(url_of(store), "store") as reader:
        last = reader.high_water()
        assert last is not None
        collection = collection_of(reader.newest(1)[0])
        connection.execute("DROP TRIGGER keep_chain")
        connection.execute(f"{damage} WHERE loaded_at = {last}")

        with pytest.raises(StoreBrokenError):
            reader.newest(3)
        if damage.startswith("UPDATE"):
            with pytest.raises(StoreBrokenError):
                reader.newest(3, collection)
            with pytest.raises(StoreBrokenError):
                reader.event(last)
    connection.close()
    writer.close()
