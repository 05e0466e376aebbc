"""The messages themselves: valid by their own schemas, complete, and one a line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tap_vero_segment.collection import COLLECTIONS, COMMON_COLUMNS, columns
from tests.support.calls import fill_full, full_call
from tests.support.odd import odd
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.streams import ALL_STREAMS, DEFAULT_STREAMS, catalog_of
from tests.support.validation import assert_records_fit_their_schemas

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap


def test_every_record_fits_the_schema_before_it(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill_full(path)
    every_type = [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES]
    fill(path, every_type + odd() + many(200))
    messages = tap.good({"source": url_of(path)}, catalog=catalog_of(*ALL_STREAMS))
    assert messages.records.keys() == ALL_STREAMS
    assert_records_fit_their_schemas(messages)


def test_every_column_comes_out_with_its_value(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill_full(path)
    messages = tap.good({"source": url_of(path)}, catalog=catalog_of(*ALL_STREAMS))
    tracks = {record["id"]: record for record in messages.records["tracks"]}
    for collection in COLLECTIONS:
        (record,) = messages.records[collection.stream]
        call = full_call(collection)
        assert None not in record.values()
        assert record | {"loaded_at": None} == expected_record(call, collection)
        if collection.email:
            common = {column.name: record[column.name] for column in COMMON_COLUMNS}
            assert tracks[record["id"]] == common
    assert len(tracks) == 7


def expected_record(call: Any, collection: Any) -> dict[str, Any]:
    properties = dict(call.properties)
    return {
        "id": call.message_id,
        "received_at": call.received_at,
        "loaded_at": None,
        "timestamp": call.timestamp,
        "original_timestamp": call.original_timestamp,
        "sent_at": call.sent_at,
        "event": collection.stream,
        "event_text": collection.event,
        "user_id": "4711",
        "anonymous_id": "anonymous-4711",
        "context_traits_email": "full@example.com",
        "context_ip": "198.51.100.7",
        "context_user_agent": "Mozilla/5.0",
        "context_channel": properties["campaign_channel"],
        "context": {"library": {"name": "vero", "version": "1"}},
        "properties": {"order": properties.pop("order")},
    } | properties


def test_schemas_name_keys_titles_and_what_may_be_null(tap: ForkedTap, one_of_each: Path) -> None:
    messages = tap.good({"source": url_of(one_of_each)}, catalog=catalog_of(*ALL_STREAMS))
    schemas = {m["stream"]: m for m in messages.all if m["type"] == "SCHEMA"}
    assert schemas.keys() == ALL_STREAMS
    wanted = {collection.stream: columns(collection) for collection in COLLECTIONS}
    for stream, of_stream in (wanted | {"tracks": COMMON_COLUMNS}).items():
        message = schemas[stream]
        properties = message["schema"]["properties"]
        assert message["key_properties"] == ["id"]
        assert message["bookmark_properties"] == ["loaded_at"]
        assert list(properties) == [column.name for column in of_stream]
        for column in of_stream:
            schema = properties[column.name]
            assert ("null" in schema["type"]) is column.nullable
            assert (schema.get("format") == "date-time") is (column.kind == "time")
            assert schema["title"]
            assert schema["description"]


def test_a_stream_is_sorted_by_its_replication_key(tap: ForkedTap, large: Path) -> None:
    messages = tap.good({"source": url_of(large)})
    for stream in DEFAULT_STREAMS:
        loaded_at = [record["loaded_at"] for record in messages.records[stream]]
        assert loaded_at == sorted(set(loaded_at))


def test_schemas_come_before_their_records_and_a_state_comes_last(
    tap: ForkedTap, one_of_each: Path
) -> None:
    messages = tap.good({"source": url_of(one_of_each)})
    kinds = [message["type"] for message in messages.all]
    assert kinds.index("RECORD") > max(
        position for position, kind in enumerate(kinds) if kind == "SCHEMA"
    )
    assert kinds[-1] == "STATE"


def test_odd_text_and_numbers_arrive_as_they_were_sent(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    payloads = odd()
    fill(path, payloads)
    run = tap.run({"source": url_of(path)})
    assert run.stdout.endswith(b"\n")
    assert b"\r" not in run.stdout
    arrived = {}
    for line in run.stdout.decode("utf-8").split("\n")[:-1]:
        message = json.loads(line)
        if message["type"] == "RECORD" and message["stream"] != "tracks":
            record = message["record"]
            arrived[record["user_id"]] = record["properties"]["extra"]["deep"][0]
    for payload in payloads:
        # U+0000, which no database's text can hold, is replaced.
        sent = json.dumps(payload["extra"]["deep"][0]).replace("\\u0000", "\\ufffd")
        assert same(arrived[str(payload["user"]["id"])], json.loads(sent)), sent


def same(arrived: Any, sent: Any) -> bool:
    """Equal, and of one kind: 1 is not True."""
    if isinstance(sent, dict) and isinstance(arrived, dict):
        return arrived.keys() == sent.keys() and all(same(arrived[k], sent[k]) for k in sent)
    if isinstance(sent, list) and isinstance(arrived, list):
        return len(arrived) == len(sent) and all(map(same, arrived, sent))
    return bool(type(arrived) is type(sent) and arrived == sent)


def test_extraction_times_are_there(tap: ForkedTap, one_of_each: Path) -> None:
    messages = tap.good({"source": url_of(one_of_each)})
    for message in messages.all:
        if message["type"] == "RECORD":
            assert re.fullmatch(
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", message["time_extracted"]
            )


def test_metrics_count_the_records_and_the_log_holds_no_address(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    fill(path, many(120))
    run = tap.run({"source": url_of(path)}, env={"LOGLEVEL": "DEBUG"})
    counted = {
        metric["tags"]["stream"]: metric["value"]
        for metric in map(json.loads, re.findall(r"METRIC: (\{.*\})", run.stderr))
        if metric["metric"] == "record_count"
    }
    assert counted == run.messages.counts()
    assert "person" not in run.stderr
    assert "example.com" not in run.stderr
