"""Reading the store beside the event loop: for the read API and for the metrics."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Reader

    T = TypeVar("T")

READER_THREADS: Final = 2


class Readers:
    """Threads that read the store, each with a reader of its own.

    Args:
        open_reader: Opens the store's reading half; called once in each thread.
    """

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader
        self._executor = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")
        self._local = threading.local()
        self._readers: list[Reader] = []

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Return what ``work`` reads, in one of the threads.

        Raises:
            UserError: The store cannot be opened.
            StoreError: It cannot be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: work(self._reader()))

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._open_reader()
            self._readers.append(reader)
        return reader

    def close(self) -> None:
        """Let the threads end, and close what they have opened."""
        self._executor.shutdown()
        for reader in self._readers:
            reader.close()
