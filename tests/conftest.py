from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import Collector
from tests.support.postgres import Postgres, running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for other processes a third of the time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A running collector on an empty store."""
    with Collector(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server; what stops or kills it, starts one of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database on it."""
    return postgres.create(f"test-{next(_numbers)}")


_numbers = itertools.count()
