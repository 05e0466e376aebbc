"""BATCH messages: files are loaded as records are."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import duckdb
import obstore
import pytest
from obstore.store import from_url

from tap_vero_segment.errors import UserError
from tests.support.duckdb_loading import (
    KEYED,
    Warehouse,
    record_message,
    schema_message,
    state_message,
)
from tests.support.s3 import S3

if TYPE_CHECKING:
    from pathlib import Path

PROPERTIES: dict[str, Any] = {
    "id": {"type": "integer"},
    "value": {"type": ["null", "string"]},
    "moment": {"type": ["null", "string"], "format": "date-time"},
    "ratio": {"type": ["null", "number"]},
    "object": {"type": ["null", "object"]},
    "items": {"type": ["null", "array"]},
}
RECORDS: list[dict[str, Any]] = [
    {"id": 1, "value": 'say "hi"', "moment": "2026-11-23T02:00:00+02:00", "ratio": 0.1},
    {"id": 2, "value": "", "object": {"b": 1, "a": [None]}, "items": [1, 2]},
    {"id": 1, "value": None, "moment": "2026-11-23T00:00:00.000001Z"},
]
EXPECTED = [
    (1, None, "2026-11-23 00:00:00.000001", None, None, None),
    (2, "", None, None, {"b": 1, "a": [None]}, [1, 2]),
]


def batch_message(form: str, *urls: str, compression: str = "none") -> bytes:
    encoding = {"format": form, "compression": compression}
    message = {"type": "BATCH", "stream": "things", "encoding": encoding, "manifest": urls}
    return json.dumps(message).encode() + b"\n"


def json_lines(path: Path, records: list[dict[str, Any]], zipped: bool = False) -> Path:  # noqa: FBT001, FBT002
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def parquet(path: Path, source: Path) -> Path:
    """The same rows with Parquet's own types."""
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT id, value, moment::TIMESTAMPTZ AS moment, ratio, object, items FROM "
            f"read_json('{source}', format = 'newline_delimited', columns = {{id: 'BIGINT', "
            "value: 'VARCHAR', moment: 'VARCHAR', ratio: 'DOUBLE', object: 'JSON', "
            "items: 'BIGINT[]'}))"
            f" TO '{path}' (FORMAT parquet)"
        )
    return path


def loaded(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    rows = warehouse.query(
        "SELECT id, value, moment::VARCHAR, ratio, object, items FROM things ORDER BY id"
    )
    read = [None if text is None else json.loads(text) for row in rows for text in row[4:]]
    return [(*row[:4], *read[2 * number : 2 * number + 2]) for number, row in enumerate(rows)]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_files_are_loaded_as_records_are(warehouse: Warehouse, tmp_path: Path, kind: str) -> None:
    path = json_lines(tmp_path / f"a file.{kind}", RECORDS, zipped=kind == "jsonl.gz")
    if kind == "parquet":
        path = parquet(tmp_path / "b.parquet", json_lines(tmp_path / "source", RECORDS))
    form = kind.removesuffix(".gz")
    lines = [
        schema_message(PROPERTIES, ["id"]),
        record_message({"id": 2, "value": "earlier"}),
        batch_message(form, path.as_uri()),
        state_message({"position": 1}),
    ]
    assert warehouse.load(lines) == [{"position": 1}]
    assert loaded(warehouse) == EXPECTED


def test_files_of_an_object_store(warehouse: Warehouse, tmp_path: Path) -> None:
    with S3(tmp_path) as server:
        options = server.options
        server.make_bucket("batches")
        url = "s3://batches/folder"
        store = from_url(url, config=options, client_options={"allow_http": True})
        path = json_lines(tmp_path / "local", RECORDS, zipped=True)
        obstore.put(store, "part.gz", path.read_bytes())
        lines = [schema_message(PROPERTIES, ["id"]), batch_message("jsonl", f"{url}/part.gz")]
        warehouse.load(lines, storage_options=options)
        assert loaded(warehouse) == EXPECTED
        with pytest.raises(UserError, match=r"folder/gone\.gz: it is not there"):
            warehouse.load(
                [lines[0], batch_message("jsonl", f"{url}/gone.gz")], storage_options=options
            )


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (batch_message("csv", "file:///a"), "neither jsonl nor parquet"),
        (
            batch_message("jsonl", "file:///nowhere/a.jsonl"),
            "/nowhere/a.jsonl, which is not a file",
        ),
    ],
)
def test_files_that_cannot_be_read_are_one_line(
    warehouse: Warehouse, message: bytes, problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        warehouse.load([schema_message(KEYED, ["id"]), message])


def test_files_of_streams_with_stream_maps_are_one_line(warehouse: Warehouse) -> None:
    maps = {"things": {"value": "'x'"}}
    with pytest.raises(UserError, match="stream maps and flattening change no batch files"):
        warehouse.load(
            [schema_message(KEYED, ["id"]), batch_message("jsonl", "file:///a")], stream_maps=maps
        )
