"""What tests run in processes beside their own."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING

from tap_vero_segment.stores.sqlite.writer import SqliteWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        yield pool


def open_together(start: Path, number: int, count: int, store: Path) -> None:
    """Open a store for writing at the same instant as other processes.

    Args:
        start: A folder where each process shows that it is ready.
        number: This process.
        count: How many there are.
        store: The store's file.
    """
    (start / str(number)).touch()
    while len(list(start.iterdir())) < count:
        pass
    writer = SqliteWriter(f"sqlite:///{store}", "store")
    writer.probe()
    writer.close()
