"""Webhooks as others keep them: the same payloads in each of the shapes that ``import`` reads."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
from tests.support.payloads import OTHER_TYPES, documented, many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Payload = dict[str, Any]
Row = dict[str, Any]
Kept = list[tuple[Payload, str]]
"""Payloads, and when each was received."""

SNOWPLOW = {"user_created": "created", "user_updated": "updated"}
SNOWPLOW_TYPES = ("sent", "delivered", "opened", "clicked", "bounced", "unsubscribed", *SNOWPLOW)
TABLE = {"complained", "sent", "delivered", "opened", "clicked", "bounced", "unsubscribed"}


def history(count: int) -> list[tuple[Payload, str]]:
    """Return payloads, one in ten of a type that tells no time or is rare."""
    payloads = many(count)
    for number in range(0, count, 10):
        user = payloads[number]["user"]
        payloads[number] = documented(OTHER_TYPES[number // 10 % len(OTHER_TYPES)])
        payloads[number]["user"] = {**payloads[number]["user"], **user}
        if payloads[number]["type"] == "failed":
            payloads[number]["failed_at"] = 1_700_000_000 + number
    return [
        (payload, times.to_text((1_700_000_002 + number) * times.SECOND))
        for number, payload in enumerate(payloads)
    ]


def ids(kept: Kept) -> list[str]:
    """Return the ids that a collector would have given."""
    return [
        read_vero(json.dumps(payload).encode(), times.from_text(received)).id
        for payload, received in kept
    ]


# Rows


def wrapped(kept: Kept) -> Iterable[Row]:
    for number, (payload, received) in enumerate(kept):
        yield {"id": number, "created_at": received, "payload": payload}


def wrapped_text(kept: Kept) -> Iterable[Row]:
    for number, (payload, received) in enumerate(kept):
        yield {"id": number, "received_at": received, "body": json.dumps(payload)}


def flat(value: Row, prefix: str, separator: str) -> Row:
    """Flatten objects as warehouses' loaders do; arrays go elsewhere."""
    found: Row = {}
    for name, each in value.items():
        path = f"{prefix}{name.replace('-', '_')}"
        if isinstance(each, dict):
            found |= flat(each, f"{path}{separator}", separator)
        elif not isinstance(each, list):
            found[path] = each
    return found


def stitch(kept: Kept) -> Iterable[Row]:
    for number, (payload, received) in enumerate(kept):
        yield {
            "_sdc_received_at": received,
            "_sdc_sequence": 1_700_000_000_000 + number,
            "_sdc_table_version": 0,
            "__sdc_primary_key": f"key-{number}",
            **flat(payload, "", "__"),
        }


def stitch_data(kept: Kept) -> Iterable[Row]:
    for _, (payload, received) in enumerate(kept):
        yield {"_sdc_batched_at": received, **flat(payload, "data__", "__")}


def of_snowplow(payload: Payload) -> Payload:
    """Do what Snowplow's adapter does."""

    def each(name: str, value: Any) -> tuple[str, Any]:
        if name in {f"{payload['type']}_at", "triggered_at"}:
            value = datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds")
            value = value.replace("+00:00", "Z")
        elif name in {"id", "bounce_code"}:
            value = str(value)
        elif isinstance(value, dict):
            value = dict(each(*item) for item in value.items())
        return "tags" if name == "_tags" else name, value

    return dict(each(*item) for item in payload.items() if item[0] != "type")


def of_type(kept: Kept, *types: str) -> Kept:
    return [each for each in kept if each[0]["type"] in types]


def self_describing(kept: Kept) -> Iterable[Row]:
    for payload, received in kept:
        name = SNOWPLOW.get(payload["type"], payload["type"])
        schema = f"iglu:com.getvero/{name}/jsonschema/1-0-0"
        yield {"collector_tstamp": received, "schema": schema, "data": of_snowplow(payload)}


def enriched(kept: Kept) -> Iterable[Row]:
    for number, (payload, received) in enumerate(kept):
        name = SNOWPLOW.get(payload["type"], payload["type"])
        yield {
            "event_id": f"event-{number}",
            "collector_tstamp": received.replace("T", " ").removesuffix("Z"),
            f"unstruct_event_com_getvero_{name}_1": of_snowplow(payload),
            "contexts_com_acme_other_1": [{"a": 1}],
        }


def shredded(kept: Kept) -> Iterable[Row]:
    """Rows of Snowplow's tables in Redshift, which cut text."""
    for payload, received in kept:
        columns = flat(of_snowplow(payload), "", ".")
        yield {
            "schema_vendor": "com.getvero",
            "schema_name": SNOWPLOW.get(payload["type"], payload["type"]),
            "root_id": "0",
            "root_tstamp": received,
            **{name: str(value)[:255] for name, value in columns.items()},
        }


def own_table(kept: Kept) -> Iterable[Row]:
    for number, (payload, received) in enumerate(kept):
        campaign = payload.get("campaign", {})
        yield {
            "id": number,
            "event_timestamp": payload.get(f"{payload['type']}_at", received),
            "type": payload["type"],
            "user_id": payload["user"]["id"],
            "user_email": payload["user"]["email"],
            "message_id": payload.get("message_id"),
            "user_agent": payload.get("user_agent"),
            "bounce_type": payload.get("bounce_type"),
            **{
                f"campaign_{name}": campaign.get(name.replace("_", "-"), campaign.get(name))
                for name in ("id", "type", "name", "group", "channel", "subject", "trigger_event")
            },
            "sent_to": campaign.get("sent_to"),
            "series_title": campaign.get("series_title"),
            "template": campaign.get("template"),
            "created_at": received,
        }


# Files


def write_ndjson(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def write_gzipped(path: Path, rows: Iterable[Any]) -> None:
    with gzip.open(path, "wt") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)


def write_array(path: Path, rows: Iterable[Any]) -> None:
    path.write_text(json.dumps(list(rows), indent=2))


def write_csv(path: Path, rows: Iterable[Any]) -> None:
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    name: json.dumps(value) if isinstance(value, (dict, list)) else value
                    for name, value in row.items()
                }
            )


def write_parquet(path: Path, rows: Iterable[Any]) -> None:
    rows = list(rows)
    for row in rows:
        for name in ("collector_tstamp", "_sdc_received_at"):
            if name in row:
                row[name] = datetime.fromisoformat(row[name]).replace(tzinfo=UTC)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    pq.write_table(pa.table(columns), path)


def with_time(kept: Kept) -> Kept:
    """The payloads that tell a time, which is all that raw ones can have."""
    return [
        (payload, times.to_text(payload[f"{payload['type']}_at"] * times.SECOND))
        for payload, _ in kept
        if f"{payload['type']}_at" in payload
    ]


EXACT: dict[str, Callable[[Path, Kept], Kept]] = {}
"""Shapes that hold the payload as it was posted: each writes a file, and returns what it holds."""
REBUILT: dict[str, Callable[[Path, Kept], Kept]] = {}
"""Shapes that do not."""


def _shape(
    shapes: dict[str, Any],
    name: str,
    rows: Callable[[Kept], Iterable[Any]],
    write: Callable[[Path, Iterable[Any]], None],
    choose: Callable[[Kept], Kept] = list,
) -> None:
    def shape(path: Path, kept: Kept) -> Kept:
        chosen = choose(kept)
        write(path, rows(chosen))
        return chosen

    shapes[name] = shape


def payloads_of(kept: Kept) -> list[Payload]:
    return [payload for payload, _ in kept]


def of_snowplows_types(kept: Kept) -> Kept:
    return of_type(kept, *SNOWPLOW_TYPES)


def of_a_type(kept: Kept) -> Kept:
    return of_type(kept, "bounced", "user_updated")


_shape(EXACT, "ndjson", payloads_of, write_ndjson, with_time)
_shape(EXACT, "ndjson.gz", payloads_of, write_gzipped, with_time)
_shape(EXACT, "array", payloads_of, write_array, with_time)
_shape(EXACT, "wrapped", wrapped, write_ndjson)
_shape(EXACT, "wrapped-text", wrapped_text, write_gzipped)
_shape(EXACT, "wrapped-array", wrapped_text, write_array)
_shape(EXACT, "wrapped-csv", wrapped, write_csv)
_shape(EXACT, "wrapped-parquet", wrapped_text, write_parquet)
_shape(REBUILT, "stitch-csv", stitch, write_csv)
_shape(REBUILT, "stitch-data-csv", stitch_data, write_csv)
_shape(REBUILT, "stitch-ndjson", stitch, write_ndjson)
_shape(REBUILT, "stitch-parquet", stitch, write_parquet)
_shape(REBUILT, "snowplow-ndjson", self_describing, write_ndjson, of_snowplows_types)
_shape(REBUILT, "snowplow-enriched-ndjson", enriched, write_ndjson, of_snowplows_types)
_shape(REBUILT, "snowplow-enriched-csv", enriched, write_csv, of_snowplows_types)
_shape(REBUILT, "snowplow-enriched-parquet", enriched, write_parquet, of_snowplows_types)
_shape(REBUILT, "snowplow-redshift-csv", shredded, write_csv, of_snowplows_types)
_shape(REBUILT, "table-csv", own_table, write_csv)
_shape(REBUILT, "table-ndjson", own_table, write_ndjson)
