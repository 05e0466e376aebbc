"""The setting objects_as_text: the same values, as text that holds JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

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

OBJECTS = ("context", "properties")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("store") / "store.db"
    fill_full(path)
    fill(path, [*odd(), documented("resubscribed")])
    return {"source": url_of(path)}


def read(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its objects read from their text."""
    texts = {name: record[name] for name in OBJECTS if record.get(name) is not None}
    assert all(isinstance(text, str) for text in texts.values())
    return record | {name: json.loads(text) for name, text in texts.items()}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="plain"),
        pytest.param({"stream_maps": {"*": {"copied": "event"}}}, id="stream-maps"),
        pytest.param({"flattening_enabled": True, "flattening_max_depth": 3}, id="flattening"),
    ],
)
@pytest.mark.parametrize("older", [False, True], ids=["", "catalog-of-before"])
def test_objects_are_text_that_holds_them(
    store: dict[str, Any], more: dict[str, Any], *, older: bool
) -> None:
    catalog = catalog_of(*ALL_STREAMS) if older else None
    config = store | more | {"objects_as_text": True}
    texts = sync_inline(config, catalog=catalog)
    objects = sync_inline(store, catalog=catalog)
    assert_records_fit_their_schemas(texts)
    for stream, schema in texts.schemas.items():
        for name in OBJECTS:
            if name in schema["properties"]:
                assert schema["properties"][name]["type"] == ["string", "null"]
        for record, expected in zip(texts.records[stream], objects.records[stream], strict=True):
            assert {k: v for k, v in read(record).items() if k != "copied"} == expected
    assert any(record["context"] is None for record in texts.records["tracks"])


@pytest.mark.parametrize("encoding", [JSONL, PARQUET], ids=["jsonl", "parquet"])
def test_batch_files_have_objects_as_text(
    store: dict[str, Any], tmp_path: Path, encoding: dict[str, Any]
) -> None:
    config = store | {"objects_as_text": True}
    batches = unpacked(sync_inline(config | batches_to(tmp_path / "batches", encoding=encoding)))
    assert batches.records == sync_inline(config).records
