"""Track calls that leave no column empty, as Segment's own server would send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment import times, track
from tap_vero_segment.collection import COLLECTIONS, COMMON_COLUMNS, PROPERTIES_COLUMN, columns
from tap_vero_segment.stores.base import Event
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.stored import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from tap_vero_segment.collection import Collection

SENT_AT = "2026-11-23T09:24:00.000000Z"
RECEIVED_AT = "2026-11-23T09:24:01.250000Z"


def full_call(collection: Collection) -> track.TrackCall:
    """Return a call with a value for each column of the collection's stream."""
    named = {
        column.name: f"{column.name} of {collection.stream}"
        for column in columns(collection)
        if column not in (*COMMON_COLUMNS, PROPERTIES_COLUMN)
    }
    return track.TrackCall(
        message_id=f"full-{collection.stream}",
        event=collection.event,
        user_id="4711",
        anonymous_id="anonymous-4711",
        timestamp=SENT_AT,
        original_timestamp=SENT_AT,
        sent_at=SENT_AT,
        received_at=RECEIVED_AT,
        context={
            "traits": {"email": "full@example.com"},
            "ip": "198.51.100.7",
            "userAgent": "Mozilla/5.0",
            "library": {"name": "vero", "version": "1"},
        },
        properties=named | {"order": {"lines": [1, 2.5, None, True]}},
    )


def fill_full(path: Path) -> None:
    """Store a full call of each collection."""
    writer = SqliteWriter(url_of(path), "store")
    calls = [(collection, full_call(collection)) for collection in COLLECTIONS]
    writer.write(
        [
            Event(
                id=call.message_id,
                collection=collection.stream,
                received_at=times.from_text(RECEIVED_AT),
                call=track.encode(call),
                input="segment",
                body=None,
            )
            for collection, call in calls
        ],
        [],
    )
    writer.close()
