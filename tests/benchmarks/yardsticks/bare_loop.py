"""The limit: an archive to RECORD messages in a bare loop of isal, msgspec and orjson, no SDK.

It knows that every call is one of ours and as it should be, looks at no setting, and keeps no
bookmark. What it writes is what the tap writes, byte for byte but for ``time_extracted``.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
from isal import igzip

from tap_vero_segment.collection import BY_EVENT, COMMON_COLUMNS, EMAIL_COLUMNS
from tap_vero_segment.times import to_text

COMMON = [column.name for column in COMMON_COLUMNS]
OWN = {
    event: [column.name for column in (*EMAIL_COLUMNS, *collection.columns)]
    for event, collection in BY_EVENT.items()
}


class Call(msgspec.Struct, rename="camel", gc=False):
    message_id: str
    event: str
    user_id: str
    timestamp: str
    original_timestamp: str
    received_at: str
    context: dict[str, Any]
    properties: dict[str, Any]


def main(archive: str) -> None:
    decode = msgspec.json.Decoder(Call).decode
    dumps = orjson.dumps
    write = sys.stdout.buffer.write
    for path in sorted(Path(archive).rglob("*.gz")):
        loaded_at = to_text(int(path.stat().st_mtime) * 10**6)
        with igzip.open(path) as file:
            content = file.read()
        lines: list[bytes] = []
        extracted = datetime.now(UTC).isoformat()
        for line in content.split(b"\n"):
            if not line:
                continue
            call = decode(line)
            collection = BY_EVENT[call.event]
            context = call.context
            properties = call.properties
            record = {
                "id": call.message_id,
                "received_at": call.received_at[:23] + "000Z",
                "loaded_at": loaded_at,
                "timestamp": call.timestamp[:23] + "000Z",
                "original_timestamp": call.original_timestamp[:23] + "000Z",
                "sent_at": None,
                "event": collection.stream,
                "event_text": call.event,
                "user_id": call.user_id,
                "anonymous_id": None,
                "context_traits_email": context.pop("traits")["email"],
                "context_ip": context.pop("ip"),
                "context_user_agent": context.pop("userAgent", None),
                "context_channel": properties.get("campaign_channel"),
                "context": context,
            }
            tracks = dict(record)
            for name in OWN[call.event]:
                value = properties.pop(name, None)
                record[name] = str(value) if isinstance(value, int) else value
            record["properties"] = properties or None
            for stream, one in (("tracks", tracks), (collection.stream, record)):
                message = {
                    "type": "RECORD",
                    "stream": stream,
                    "record": one,
                    "time_extracted": extracted,
                }
                lines.append(dumps(message, option=orjson.OPT_APPEND_NEWLINE))
        write(b"".join(lines))


if __name__ == "__main__":
    main(sys.argv[1])
