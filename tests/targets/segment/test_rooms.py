"""The target is a program of its own: the collector has nothing to do with it."""

from __future__ import annotations

from tests.test_imports import COLLECTOR, PACKAGE, loaded_by, reached_from, within


def test_the_target_loads_nothing_of_the_collector_the_tap_and_the_stores():
    loaded = loaded_by(f"{PACKAGE}.targets.segment")
    assert f"{PACKAGE}.targets.segment.target" in loaded
    others = [f"{PACKAGE}.{room}" for room in ("collector", "tap", "stores", "sources", "archive")]
    assert not within(loaded, "uvicorn", "apsw", "obstore", *others)


def test_neither_program_ever_comes_to_the_target():
    for name in (*COLLECTOR, f"{PACKAGE}.tap"):
        assert not within(reached_from(name), f"{PACKAGE}.targets"), name
