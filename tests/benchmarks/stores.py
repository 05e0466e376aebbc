"""Stores filled with a benchmark's events, without a collector."""

from __future__ import annotations

from itertools import count, islice
from typing import TYPE_CHECKING

import msgspec
import psycopg

from tap_vero_segment.inputs.intake import event_of
from tap_vero_segment.inputs.segment import read_call
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.benchmarks.data import calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tap_vero_segment.stores.base import Event, Writer
    from tests.support.postgres import Postgres

GROUP = 1_000
BASE = 50_000


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
