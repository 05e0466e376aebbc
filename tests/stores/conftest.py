"""Every store, empty, opened by its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tap_vero_segment.stores.sqlite.writer import SqliteWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_vero_segment.stores.base import Reader, Writer

    Open = Callable[..., Writer]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/vero-events.db"
    database: str = request.getfixturevalue("database")
    return database


@pytest.fixture
def open_writer(url: str) -> Iterator[Open]:
    """Opens the store, with a clock where one is given."""
    opened: list[Writer] = []

    def opening(clock: Callable[[], int] = times.now) -> Writer:
        kind = SqliteWriter if url.startswith("sqlite") else PostgresWriter
        writer = kind(url, "store", clock)
        opened.append(writer)
        return writer

    yield opening
    for writer in opened:
        writer.close()


@pytest.fixture
def writer(open_writer: Open) -> Writer:
    return open_writer()


@pytest.fixture
def reader(writer: Writer, url: str) -> Iterator[Reader]:
    with open_reader(url, "store") as opened:
        yield opened
