from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A running collector on an empty store."""
    with Collector(tmp_path) as running:
        yield running
