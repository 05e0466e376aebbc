"""Segment's own client for Python, fed with the events of RECORD messages, as its README says."""

import sys
from datetime import datetime

import msgspec
from segment.analytics.client import Client

client = Client("key", host=sys.argv[1], gzip=True, max_queue_size=100_000, thread=4)
for line in sys.stdin.buffer:
    message = msgspec.json.decode(line)
    if message["type"] != "RECORD" or message["stream"] == "tracks":
        continue
    record = message["record"]
    client.track(
        user_id=record["user_id"],
        event=record["event_text"],
        properties={name: record[name] for name in ("email_id", "campaign_id", "campaign_name")}
        | (record["properties"] or {}),
        context={"traits": {"email": record["context_traits_email"]}, "ip": record["context_ip"]},
        timestamp=datetime.fromisoformat(record["timestamp"]),
        message_id=record["id"],
    )
client.shutdown()
