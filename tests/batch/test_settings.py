"""The setting ``batch_config``: what cannot be used is told by its name before anything is read."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.json import read_json

from tap_vero_segment.errors import SettingError
from tap_vero_segment.tap.batch.settings import COMPRESSIONS, BatchSettings
from tests.support.batches import JSONL, PARQUET, batches_to, local
from tests.support.docs import PAGES
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import url_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_would_write_nothing_ends_the_run(
    tap: ForkedTap, tmp_path: Path, size: int
) -> None:
    fill(tmp_path / "store.db", many(3))
    config = {"source": url_of(tmp_path / "store.db")} | batches_to(tmp_path / "files", size)
    run = tap.run(config)
    assert run.status == 1
    assert not run.stdout
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert "batch_config.batch_size" in error
    assert not (tmp_path / "files").exists()


def changed(**changes: Any) -> dict[str, Any]:
    raw = batches_to("file:///somewhere")["batch_config"]
    return {"batch_config": raw | changes}


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (changed(batch_size=True), "batch_config.batch_size"),
        (changed(batch_size="10"), "batch_config.batch_size"),
        (changed(encoding=None), "batch_config.encoding"),
        (changed(encoding={"format": "csv"}), "batch_config.encoding.format"),
        (
            changed(encoding={"format": "jsonl", "compression": "zstd"}),
            "batch_config.encoding.compression",
        ),
        (changed(storage=[]), "batch_config.storage"),
        (changed(storage={"root": ""}), "batch_config.storage.root"),
        (changed(storage={"root": "here", "params": "text"}), "batch_config.storage.params"),
        ({"batch_config": "here"}, "batch_config.encoding"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_name(config: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        BatchSettings.read(config)
    assert caught.value.setting == setting


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    config = batches_to("file:///somewhere", encoding=PARQUET)
    assert BatchSettings.read(config) is not None
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert BatchSettings.read(batches_to("file:///somewhere", encoding=JSONL)) is not None
    with pytest.raises(SettingError, match=r"batch_config.*pip install 'tap-vero-segment\[parq"):
        BatchSettings.read(config)


COMBINATIONS = [
    ("jsonl", None),
    ("jsonl", "none"),
    ("jsonl", "gzip"),
    ("parquet", None),
    ("parquet", "none"),
    ("parquet", "gzip"),
    ("parquet", "snappy"),
    ("parquet", "zstd"),
]


def encoding_of(form: str, compression: str | None) -> dict[str, Any]:
    return {"format": form} | ({"compression": compression} if compression else {})


def rows_and_codecs(content: bytes, form: str) -> tuple[int, set[str]]:
    """The rows of a file, and what it is compressed with."""
    if form == "parquet":
        file = pq.ParquetFile(io.BytesIO(content))
        columns = file.metadata.row_group(0)
        codecs = {columns.column(each).compression for each in range(columns.num_columns)}
        return file.read().num_rows, codecs
    zipped = content.startswith(b"\x1f\x8b")
    with pa.input_stream(pa.BufferReader(content), compression="gzip" if zipped else None) as lines:
        return read_json(lines).num_rows, {"GZIP" if zipped else "UNCOMPRESSED"}


def test_the_combinations_tried_are_those_that_the_documentation_and_the_schema_promise() -> None:
    for form, compressions in COMPRESSIONS.items():
        assert {each for each in COMBINATIONS if each[0] == form} == {
            (form, each) for each in (None, *compressions)
        }
        names = f"`{form}` ({', '.join(f'`{each}`' for each in compressions)}"
        names = names.replace(", `none`", " or `none`")
        assert names in " ".join(PAGES["tap/batch-files.md"].split())


@pytest.mark.parametrize(
    ("form", "compression", "through"),
    [(*each, "--config") for each in COMBINATIONS] + [("parquet", "zstd", "ENV")],
)
def test_each_combination_is_taken_from_the_command_line(
    tap: ForkedTap, tmp_path: Path, form: str, compression: str | None, through: str
) -> None:
    fill(tmp_path / "store.db", many(30))
    config = {"source": url_of(tmp_path / "store.db")}
    batches = batches_to(tmp_path / "files", encoding=encoding_of(form, compression))
    if through == "ENV":
        env = {"TAP_VERO_SEGMENT_BATCH_CONFIG": json.dumps(batches["batch_config"])}
        messages = tap.good(config, "--config=ENV", env=env)
    else:
        messages = tap.good(config | batches)
    (tracks,) = (
        each for each in messages.all if each["type"] == "BATCH" and each["stream"] == "tracks"
    )
    (url,) = tracks["manifest"]
    by_itself = "snappy" if form == "parquet" else "none"
    codec = (compression or by_itself).upper().replace("NONE", "UNCOMPRESSED")
    assert rows_and_codecs(local(url), form) == (30, {codec})


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        (encoding_of("jsonl", "snappy"), "for jsonl it is one of gzip, none"),
        (encoding_of("jsonl", "zstd"), "for jsonl it is one of gzip, none"),
        (encoding_of("parquet", "brotli"), "none of gzip, none, snappy, zstd"),
        (encoding_of("csv", None), "none of jsonl, parquet"),
    ],
)
def test_a_combination_that_there_is_not_is_refused_by_its_name(
    tap: ForkedTap, tmp_path: Path, encoding: dict[str, Any], told: str
) -> None:
    fill(tmp_path / "store.db", many(3))
    config = {"source": url_of(tmp_path / "store.db")}
    run = tap.run(config | batches_to(tmp_path / "files", encoding=encoding))
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert run.status == 1
    assert "batch_config" in error
    assert ("format" if "csv" in encoding.values() else "compression") in error
    assert told in error
    assert not (tmp_path / "files").exists()


def test_params_that_are_no_object_are_not_repeated(tap: ForkedTap, tmp_path: Path) -> None:
    batches = batches_to(tmp_path / "files", params="a-secret-key")
    run = tap.run({"source": url_of(tmp_path / "store.db")} | batches)
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert "batch_config.storage.params: it is not an object" in error
    assert "secret" not in run.stderr


def test_no_batch_config_means_records() -> None:
    assert BatchSettings.read({}) is None
    assert BatchSettings.read({"batch_config": None}) is None
