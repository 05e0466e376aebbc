"""What a store holds, read without the tap, and stores with times of a test's choosing."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tap_vero_segment.stores.base import Reader


class Stored(NamedTuple):
    """An event in a store, and the streams that it belongs to."""

    loaded_at: str
    id: str
    streams: tuple[str, ...]


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def every_line(reader: Reader, after: int = 0) -> list[bytes]:
    """Return every line of a store after a ``loaded_at``; it returns them page by page."""
    lines: list[bytes] = []
    while page := reader.lines(after, None, 10_000):
        lines += page
        after = times.from_text(json.loads(page[-1])["loadedAt"])
    return lines


def lines_of(path: Path) -> list[bytes]:
    """Return every line of a store."""
    with SqliteReader(url_of(path), "store") as reader:
        return every_line(reader)


def stored(path: Path) -> list[Stored]:
    """Return every event of a store, in the order of ``loaded_at``."""
    events = []
    for line in lines_of(path):
        call = json.loads(line)
        collection = BY_EVENT[call["event"]]
        streams = (collection.stream, "tracks") if collection.email else (collection.stream,)
        events.append(Stored(call["loadedAt"], call["messageId"], streams))
    return events


def ids_by_stream(events: Iterable[Stored]) -> dict[str, list[str]]:
    """Return the ids that each stream should have, in order."""
    expected: dict[str, list[str]] = {}
    for event in events:
        for stream in event.streams:
            expected.setdefault(stream, []).append(event.id)
    return expected


def ids_of(records: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """Return the ids that each stream has, in order."""
    return {stream: [record["id"] for record in found] for stream, found in records.items()}


def fill_at(
    path: Path,
    payloads: Sequence[dict[str, Any]],
    *,
    received_at: Sequence[str] | None = None,
    loaded_at: Sequence[str] | None = None,
) -> list[str]:
    """Store payloads one by one, at times that a person would write; return the ids."""
    now = times.now()
    received = map(times.from_text, received_at) if received_at else itertools.repeat(now)
    loaded = map(times.from_text, loaded_at) if loaded_at else itertools.repeat(0)
    writer = SqliteWriter(url_of(path), "store", lambda: now)
    ids = []
    # Where the clock stands still, the store counts up by itself.
    for payload, received_moment, loaded_moment in zip(payloads, received, loaded, strict=False):
        now = loaded_moment or now
        event = read_vero(json.dumps(payload).encode(), received_moment)
        writer.write([event], [])
        ids.append(event.id)
    writer.close()
    return ids
