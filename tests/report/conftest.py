from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.funnel import DuckDB, PostgreSQL, generated

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.funnel import Record


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> DuckDB | PostgreSQL:
    """An empty warehouse of either kind."""
    if request.param == "duckdb":
        return DuckDB(tmp_path / "warehouse.duckdb")
    return PostgreSQL(request.getfixturevalue("database"))


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """Events of many kinds, in three parts of three years."""
    return generated(500)
