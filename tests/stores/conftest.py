"""Every store, empty, opened by its URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.store import new_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tap_vero_segment.stores.base import Reader, Writer

    Open = Callable[..., Writer]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return new_store(request, tmp_path)


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
