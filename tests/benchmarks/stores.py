"""Stores filled with a benchmark's events, without a collector."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import count, islice
from typing import TYPE_CHECKING

import apsw
import msgspec
import psycopg

from tap_vero_segment.inputs.intake import event_of
from tap_vero_segment.inputs.segment import read_call
from tap_vero_segment.stores.base import Search
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.benchmarks.data import calls
from tests.benchmarks.harness import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_vero_segment.stores.base import Event, Writer
    from tests.support.postgres import Postgres

GROUP = 1_000
BASE = 50_000
SEARCHES = 100


def _events(number: int) -> Iterator[Event]:
    """Yield events; beyond the first some thousands, the same with other ids."""
    base = []
    for fields in calls(min(number, BASE)):
        call = read_call(msgspec.json.encode(fields))
        assert call is not None
        base.append(event_of(call, "tracking", None))
    yield from base
    for round_ in count(1):
        for event in base:
            # Ids go up with time, as those of webhooks do.
            new = f"{round_:08x}{event.id[8:]}"
            yield event._replace(id=new, call=event.call.replace(event.id.encode(), new.encode()))


def _fill(writer: Writer, number: int) -> None:
    source = islice(_events(number), number)
    while group := list(islice(source, GROUP)):
        writer.write(group, [])
    writer.close()


def search_store(url: str, number: int) -> Sample:
    """Look for the recipients of some of a store's events, which has an index of them then.

    Args:
        url: The store.
        number: How many events it was filled with.
    """
    with closing(open_writer(url, "store")) as writer:
        while writer.build_index():
            pass
    wanted = [event["context"]["traits"]["email"] for event in islice(calls(number), SEARCHES)]
    took = []
    with open_reader(url, "store") as reader:
        for address in wanted:
            began = time.perf_counter()
            assert reader.search(Search(recipient=address), limit=50).lines
            took.append(time.perf_counter() - began)
    return Sample(sum(took), SEARCHES, extra={"p99 in s": max(took)})


def scan_sqlite(path: Path) -> Sample:
    """Look at every event for a recipient, with one statement."""
    query = "SELECT count(*) FROM events WHERE instr(lower(call), 'nobody@ticket.example')"
    began = time.perf_counter()
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(query).fetchall()
    return Sample(time.perf_counter() - began, 1)


def sqlite_store(folder: Path, number: int) -> Path:
    """Fill an SQLite store, unless it is there; return its file."""
    path = folder / f"store-{number}.db"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        for old in folder.glob(f"{unfinished.name}*"):
            old.unlink()
        _fill(SqliteWriter(f"sqlite:///{unfinished}", "store"), number)
        for part in folder.glob(f"{unfinished.name}*"):
            part.rename(part.with_name(part.name.replace(unfinished.name, path.name)))
    return path


def postgres_store(server: Postgres, number: int) -> str:
    """Fill a database, unless it is there; return its URL."""
    name = f"store-{number}"
    with server.connect() as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        [found] = connection.execute(query, (name,)).fetchone() or (0,)
    if found:
        return server.url(name)
    url = server.create(name)
    _fill(PostgresWriter(url, "store"), number)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return url
