"""The streams by name, catalogs that select some of them, and what must hold of any run."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from tests.support.inline_tap import inline_tap
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, STREAM_OF
from tests.support.tap import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.support.stored import Stored
    from tests.support.tap import Messages

EMAIL_STREAMS = frozenset(STREAM_OF[vero_type] for vero_type in EMAIL_TYPES)
OTHER_STREAMS = frozenset(STREAM_OF[vero_type] for vero_type in OTHER_TYPES)
DEFAULT_STREAMS = EMAIL_STREAMS | {"tracks"}
ALL_STREAMS = DEFAULT_STREAMS | OTHER_STREAMS


@cache
def _discovered() -> str:
    with inline_tap({"source": "sqlite:///not-opened.db"}) as tap:
        return tap.catalog_json_text


def catalog_of(*streams: str) -> dict[str, Any]:
    """Return the catalog that --discover prints, with just these streams selected."""
    catalog: dict[str, Any] = json.loads(_discovered())
    for entry in catalog["streams"]:
        select(catalog, entry["tap_stream_id"], selected=entry["tap_stream_id"] in streams)
    return catalog


def bookmark_of(state: Mapping[str, Any] | None, stream: str) -> str | None:
    bookmarks = (state or {}).get("bookmarks", {})
    value: str | None = bookmarks.get(stream, {}).get("replication_key_value")
    return value


def states_never_run_ahead(
    messages: Messages,
    events: Iterable[Stored],
    written: Mapping[str, Iterable[str]] | None = None,
) -> list[int]:
    """See that at each STATE, all that it takes for read has been written before it.

    Args:
        messages: A run's messages.
        events: The events that the run could see.
        written: The ids that each stream had before the run.

    Returns:
        Where in the messages the STATE messages are.
    """
    got = {stream: set(ids) for stream, ids in (written or {}).items()}
    waiting: dict[str, list[Stored]] = {}
    for event in events:
        for stream in event.streams:
            waiting.setdefault(stream, []).append(event)
    done = dict.fromkeys(waiting, 0)
    positions = []
    for position, message in enumerate(messages.all):
        if message["type"] == "RECORD":
            got.setdefault(message["stream"], set()).add(message["record"]["id"])
        elif message["type"] == "STATE":
            positions.append(position)
            for stream, of_stream in waiting.items():
                bookmark = bookmark_of(message["value"], stream) or ""
                while done[stream] < len(of_stream):
                    event = of_stream[done[stream]]
                    if event.loaded_at > bookmark:
                        break
                    assert event.id in got.get(stream, ()), (stream, bookmark)
                    done[stream] += 1
    return positions
