"""The loader is a program of its own."""

from __future__ import annotations

from tests.test_imports import COLLECTOR, PACKAGE, loaded_by, reached_from, within


def test_it_loads_nothing_of_the_collector_the_tap_and_the_stores():
    loaded = loaded_by(f"{PACKAGE}.targets.duckdb")
    assert f"{PACKAGE}.targets.duckdb.target" in loaded
    others = [f"{PACKAGE}.{room}" for room in ("collector", "tap", "stores", "sources", "archive")]
    assert not within(loaded, "uvicorn", "apsw", "obstore", "pyarrow", *others)


def test_no_other_program_ever_comes_to_it():
    for name in (*COLLECTOR, f"{PACKAGE}.tap", f"{PACKAGE}.targets.segment"):
        assert not within(reached_from(name), f"{PACKAGE}.targets.duckdb"), name
