"""The SDK's standard tests of targets, all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.testing import get_target_test_class

from tap_vero_segment.targets.duckdb import TargetVeroDuckDB
from tests.support.inline_target import own_signal_handlers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def configured(tmp_path: Path) -> Iterator[None]:
    CONFIG["filepath"] = str(tmp_path / "warehouse.duckdb")
    with own_signal_handlers():
        yield


class TestStandard(get_target_test_class(TargetVeroDuckDB, config=CONFIG)):  # type: ignore[misc]
    """All of them."""
