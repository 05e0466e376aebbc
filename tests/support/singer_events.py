"""Events as a tap would hand them to a target: Singer messages of this project's streams."""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from tap_vero_segment.collection import BY_STREAM
from tap_vero_segment.tap.streams import collection_schema, tracks_schema
from tests.support.payloads import many
from tests.support.records import record_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tap_vero_segment.record import Record


@cache
def records(count: int) -> tuple[Record, ...]:
    """Return distinct records of the seven email streams."""
    return tuple(record_of(json.dumps(payload).encode()) for payload in many(count))


def line(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def schema_line(
    stream: str, schema: dict[str, Any] | None = None, key: Iterable[str] = ("id",)
) -> bytes:
    """Return the SCHEMA message of a stream: of the tap's own, unless a schema is given."""
    if schema is None:
        of_tap = (
            tracks_schema if stream == "tracks" else lambda: collection_schema(BY_STREAM[stream])
        )
        schema = of_tap()
    return line({"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": list(key)})


def record_line(record: Record, stream: str | None = None) -> bytes:
    return line({"type": "RECORD", "stream": stream or record["event"], "record": record})


def batch_line(*files: str, stream: str = "email_sent") -> bytes:
    """Return the BATCH message of files of zipped JSON lines, given as URLs."""
    encoding = {"format": "jsonl", "compression": "gzip"}
    return line({"type": "BATCH", "stream": stream, "encoding": encoding, "manifest": list(files)})


def state_line(position: int) -> bytes:
    return line({"type": "STATE", "value": {"position": position}})


def position_of(state: dict[str, Any] | None) -> int:
    """Return how many events a state takes for delivered."""
    return (state or {"position": 0})["position"]


def run_lines(events: Iterable[Record], start: int = 0, every: int = 100) -> Iterator[bytes]:
    """Yield a run's messages: what comes after a state's position, with a state now and then."""
    chosen = list(events)
    for stream in sorted({record["event"] for record in chosen}):
        yield schema_line(stream)
    for position, record in enumerate(itertools.islice(chosen, start, None), start + 1):
        yield record_line(record)
        if position % every == 0 or position == len(chosen):
            yield state_line(position)
