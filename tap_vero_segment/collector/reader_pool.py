"""Reading the store beside the event loop: for the read API and for the metrics."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Reader

    T = TypeVar("T")

READER_THREADS: Final = 2


class ReaderPool:
    """Threads that read the store, each with a reader of its own.

    Args:
        open_reader: Opens the store's reading half; called once in each thread.
    """

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader
        self._executor = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")
        self._local = threading.local()
        self._reader_pool: list[Reader] = []
        self._running: set[Future[Any]] = set()

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Return what ``work`` reads, in one of the threads.

        Raises:
            UserError: The store cannot be opened.
            StoreError: It cannot be read.
        """
        future = self._executor.submit(lambda: work(self._reader()))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(future)

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._open_reader()
            self._reader_pool.append(reader)
        return reader

    def close(self, seconds: float | None = None) -> bool:
        """Let the threads end, and close what they have opened.

        Args:
            seconds: How long the threads may take; None: as long as they do.

        Returns:
            Whether they have ended; otherwise the store does not answer them.
        """
        self._executor.shutdown(wait=False, cancel_futures=True)
        if wait(self._running.copy(), seconds).not_done:
            return False
        self._executor.shutdown()
        for reader in self._reader_pool:
            reader.close()
        return True
