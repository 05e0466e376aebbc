"""The setting ``batch_config``: what cannot be used is told by its name before anything is read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.errors import SettingError
from tap_vero_segment.tap.batch.settings import BatchSettings
from tests.support.batches import JSONL, PARQUET, batches_to
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


def test_no_batch_config_means_records() -> None:
    assert BatchSettings.read({}) is None
    assert BatchSettings.read({"batch_config": None}) is None
