from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.forked_target import ForkedTarget, TargetForks
from tests.support.tracking_server import TrackingServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def target_forks() -> Iterator[TargetForks]:
    with TargetForks() as forks:
        yield forks


@pytest.fixture
def target(target_forks: TargetForks, tmp_path: Path) -> ForkedTarget:
    """The target, each run in a process of its own."""
    return ForkedTarget(target_forks, tmp_path)


@pytest.fixture
def server() -> Iterator[TrackingServer]:
    """A Tracking API, to which nothing wrong may be said."""
    with TrackingServer() as running:
        yield running
    assert running.wrongs == []
