"""The tap that one writes first: a plain stream for each table, everything else the SDK's.

It reads the archive once for each stream, as the SDK's streams do by themselves, and builds the
same records from it.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from singer_sdk import Stream, Tap

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT, COLLECTIONS, COMMON_COLUMNS, Collection
from tap_vero_segment.tap.streams import collection_schema, tracks_schema

COMMON = [column.name for column in COMMON_COLUMNS]


class NaiveStream(Stream):
    primary_keys = ("id",)
    replication_key = "loaded_at"
    is_sorted = True

    def __init__(self, tap: Tap, collection: Collection | None) -> None:
        self.collection = collection
        name = collection.stream if collection else "tracks"
        schema = collection_schema(collection) if collection else tracks_schema()
        super().__init__(tap, name=name, schema=schema)

    def get_records(self, context):
        for path in sorted(Path(self.config["archive"]).rglob("*.gz")):
            loaded_at = times.to_text(int(path.stat().st_mtime) * 10**6)
            with gzip.open(path) as file:
                for line in file:
                    call = json.loads(line)
                    collection = BY_EVENT.get(call["event"])
                    if self.collection in {None, collection}:
                        record = record_of(call, collection, loaded_at)
                        if self.collection is None:
                            record = {name: record[name] for name in COMMON}
                        yield record


def record_of(call: dict[str, Any], collection: Collection, loaded_at: str) -> dict[str, Any]:
    context, properties = dict(call["context"]), dict(call["properties"])
    record = {
        "id": call["messageId"],
        "received_at": times.canonical(call["receivedAt"]),
        "loaded_at": loaded_at,
        "timestamp": times.canonical(call["timestamp"]),
        "original_timestamp": times.canonical(call["originalTimestamp"]),
        "sent_at": None,
        "event": collection.stream,
        "event_text": collection.event,
        "user_id": call["userId"],
        "anonymous_id": None,
        "context_traits_email": context.pop("traits")["email"],
        "context_ip": context.pop("ip"),
        "context_user_agent": context.pop("userAgent", None),
        "context_channel": properties.get("campaign_channel"),
        "context": context,
    }
    for name in collection_schema(collection)["properties"]:
        if name not in record and name != "properties":
            value = properties.pop(name, None)
            record[name] = str(value) if isinstance(value, int) else value
    return {**record, "properties": properties or None}


class NaiveTap(Tap):
    name = "naive-tap"
    config_jsonschema = {"type": "object", "properties": {"archive": {"type": "string"}}}  # noqa: RUF012

    def discover_streams(self):
        return [
            NaiveStream(self, None),
            *(NaiveStream(self, one) for one in COLLECTIONS if one.email),
        ]


if __name__ == "__main__":
    NaiveTap(config={"archive": sys.argv[1]}).sync_all()
