"""The index of events, which a collector builds beside all that comes in."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import apsw

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import Search
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.search import find
from tap_vero_segment.stores.search.index import BLOCK
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.collector import Collector, wait_until
from tests.support.payloads import many
from tests.support.stored import url_of

if TYPE_CHECKING:
    from pathlib import Path

PERSON = Search(recipient="Person7@example.com")


def blocks(collector: Collector) -> int:
    with closing(apsw.Connection(str(collector.store))) as connection:
        return connection.execute("SELECT count(*) FROM search_blocks").get


def fill(store: Path) -> None:
    """A block of events: those of some people first, then equal ones of other ids."""
    events = [read_vero(json.dumps(each).encode(), times.now()) for each in many(20)]
    one = events[-1]
    with closing(SqliteWriter(url_of(store), "store")) as writer:
        writer.write(events, [])
        for start in range(0, BLOCK, 1_024):
            writer.write(
                [one._replace(id=f"id-{number}") for number in range(start, start + 1_024)], []
            )


def test_a_collector_builds_the_index_and_mends_it(tmp_path, monkeypatch):
    collector = Collector(tmp_path)
    fill(collector.store)
    # So that only an index leads to the oldest events.
    monkeypatch.setattr(find, "SEARCHED", 100)
    with open_reader(collector.store_url, "store") as reader:
        assert reader.search(PERSON, limit=10).lines == []
        with collector:
            wait_until(lambda: blocks(collector) == 1)
            [found] = reader.search(PERSON, limit=10).lines
            assert b"person7@" in found
        with closing(apsw.Connection(str(collector.store))) as connection:
            connection.execute("UPDATE search_parts SET checksum = 0 WHERE number % 256 = 9")
        with collector:
            wait_until(
                lambda: "damaged blocks of the search index: 1, built anew" in collector.log()
            )
            wait_until(lambda: reader.search(PERSON, limit=10).lines == [found])
            assert collector.stop() == 0
