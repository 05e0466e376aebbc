"""Settings that change what a record holds: segment_columns and email_addresses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.collection import SEGMENT_COLUMNS
from tap_vero_segment.record import to_fields
from tests.support.batches import JSONL, PARQUET, batches_to, unpacked
from tests.support.calls import fill_full
from tests.support.inline_tap import sync_inline
from tests.support.odd import odd
from tests.support.payloads import documented
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.streams import ALL_STREAMS, catalog_of
from tests.support.validation import assert_records_fit_their_schemas

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap

FURTHER = [column.name for column in SEGMENT_COLUMNS]
ADDRESSES = ("full@example.com", "steve@getvero.com", "user@example.com")
HASH = {"email_addresses": "hash", "hash_key": "a secret"}
OMIT = {"email_addresses": "omit"}

MAPPED = pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="plain"),
        pytest.param({"stream_maps": {"*": {"copied": "event"}}}, id="stream-maps"),
        pytest.param({"flattening_enabled": True, "flattening_max_depth": 3}, id="flattening"),
    ],
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("store") / "store.db"
    fill_full(path)
    bounced = documented("bounced") | {"bounce_message": "550 <Steve@GetVero.com> unknown"}
    fill(path, [*odd(), documented("resubscribed"), documented("opened"), bounced])
    return {"source": url_of(path)}


@MAPPED
def test_segments_columns_are_there_and_take_nothing_away(
    store: dict[str, Any], more: dict[str, Any]
) -> None:
    catalog = catalog_of(*ALL_STREAMS)
    without = sync_inline(store, catalog=catalog)
    found = sync_inline(store | more | {"segment_columns": True})
    assert_records_fit_their_schemas(found)
    for stream, schema in found.schemas.items():
        assert schema["properties"].keys() >= set(FURTHER)
        for record, before in zip(found.records[stream], without.records[stream], strict=True):
            assert record["uuid_ts"] == record["loaded_at"]
            if not more:
                assert to_fields(record) == to_fields(before)
    full = found.records["tracks"][0]
    assert (full["context_library_name"], full["context_library_version"]) == ("vero", "1")
    assert full["context"] is None


@pytest.mark.parametrize("encoding", [JSONL, PARQUET], ids=["jsonl", "parquet"])
def test_batch_files_have_segments_columns(
    store: dict[str, Any], tmp_path: Path, encoding: dict[str, Any]
) -> None:
    config = store | {"segment_columns": True} | HASH
    batches = unpacked(sync_inline(config | batches_to(tmp_path / "batches", encoding=encoding)))
    assert batches.records == sync_inline(config).records


@MAPPED
@pytest.mark.parametrize("setting", [HASH, OMIT], ids=["hash", "omit"])
def test_no_stream_shows_an_address(
    store: dict[str, Any], setting: dict[str, Any], more: dict[str, Any]
) -> None:
    catalog = catalog_of(*ALL_STREAMS)
    kept = sync_inline(store, catalog=catalog)
    found = sync_inline(store | more | setting, catalog=catalog)
    assert all(address in json.dumps(kept.records) for address in ADDRESSES)
    assert not [each for each in ADDRESSES if each in json.dumps(found.records).lower()]
    assert {stream: len(records) for stream, records in found.records.items()} == {
        stream: len(records) for stream, records in kept.records.items()
    }


def test_one_address_has_one_hash_in_all_streams_and_runs(store: dict[str, Any]) -> None:
    first, again = (sync_inline(store | HASH).records for _ in range(2))
    assert {name: [r["id"] for r in rs] for name, rs in first.items()} == {
        name: [r["id"] for r in rs] for name, rs in again.items()
    }
    by_id = {record["id"]: record["context_traits_email"] for record in first["tracks"]}
    for stream, records in again.items():
        for record in records:
            assert record["context_traits_email"] == by_id[record["id"]], stream
    hashes = {record["context_traits_email"] for record in again["email_opened"]} - {None}
    assert all(len(each) == 64 for each in hashes)


def test_a_hash_needs_a_key(store: dict[str, Any], tap: ForkedTap) -> None:
    done = tap.run(store | {"email_addresses": "hash"})
    assert done.status == 1
    assert done.stderr.strip().endswith(
        "hash_key: email_addresses is hash, which needs a secret key"
    )


def test_what_becomes_of_addresses_is_one_of_three(store: dict[str, Any], tap: ForkedTap) -> None:
    done = tap.run(store | {"email_addresses": "mask"})
    assert done.status == 1
    assert "email_addresses" in done.stderr
    assert "Traceback" not in done.stderr
