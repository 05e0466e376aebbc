"""Stores of an older and of a newer schema than a release knows, which today's only has one of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.postgres.connection import MIGRATIONS as POSTGRES
from tap_vero_segment.stores.sqlite.connection import MIGRATIONS as SQLITE
from tests.stores.test_any_store import events, ids

if TYPE_CHECKING:
    from collections.abc import Callable

STEP = {
    "sqlite": "CREATE TABLE later (id INTEGER)",
    "postgresql": "CREATE TABLE vero_collector.later (id integer)",
}


@pytest.fixture
def next_release(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process one of a release whose schema takes another step, given as SQL."""
    kind, known = ("sqlite", SQLITE) if url.startswith("sqlite") else ("postgres", POSTGRES)

    def release(step: str) -> None:
        monkeypatch.setattr(f"tap_vero_segment.stores.{kind}.connection.MIGRATIONS", (*known, step))

    return release


def test_a_collector_upgrades_an_older_store_and_an_older_release_leaves_it_alone(
    url, open_writer, next_release, monkeypatch
):
    writer = open_writer()
    writer.write(events(3), [])
    writer.close()
    step = STEP[url.partition(":")[0]]

    next_release(f"{step}; INSERT INTO nowhere VALUES (1)")
    with pytest.raises(SettingError, match=r"^store: "):  # and is as it was
        open_writer()
    next_release(step)
    with pytest.raises(SettingError, match=r"^source: .* older release .*: start vero-collector"):
        open_reader(url, "source")

    writer = open_writer()

    assert writer.write(events(5), []) == 2
    with open_reader(url, "source") as reader:
        assert len(ids(reader)) == 5
    writer.close()
    monkeypatch.undo()
    for opening in (open_writer, lambda: open_reader(url, "store")):
        with pytest.raises(SettingError, match=r"newer release .*: upgrade tap-vero-segment"):
            opening()
