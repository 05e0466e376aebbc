"""Filling a real store without a collector, where a test is about what reads it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.erasures import ErasedPeople
from tap_vero_segment.stores.sqlite.writer import SqliteWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest


def new_store(request: pytest.FixtureRequest, folder: Path) -> str:
    """Return the URL of a store that is not there yet, of the kind that a fixture's parameter is.

    Args:
        request: The fixture's; its parameter is ``sqlite`` or ``postgresql``.
        folder: Where an SQLite file goes.
    """
    if request.param == "sqlite":
        return f"sqlite:///{folder}/vero-events.db"
    database: str = request.getfixturevalue("database")
    return database


class NobodyErased:
    """What a store that stands in for a real one says at its start: nobody was erased."""

    def erased_people(self) -> ErasedPeople:
        return ErasedPeople(b"")


def fill(path: Path, payloads: Iterable[dict[str, Any]], group: int = 100) -> list[str]:
    """Store payloads as a collector would, in groups; return the ids, in order."""
    writer = SqliteWriter(f"sqlite:///{path}", "store")
    events = [read_vero(json.dumps(payload).encode(), times.now()) for payload in payloads]
    for start in range(0, len(events), group):
        writer.write(events[start : start + group], [])
    writer.close()
    return [event.id for event in events]
