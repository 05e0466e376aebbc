"""``GET /v1/events``: the read API, through which a tap on another machine reads the store."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tap_vero_segment import times
from tap_vero_segment.collector.http import NDJSON, RETRY_AFTER, HTTPError, Response
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.collector.http import Request
    from tap_vero_segment.stores.base import Reader

logger = logging.getLogger("vero-collector")

MAX_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 1_000
READER_THREADS: Final = 2

HIGH_WATER: Final = b"high-water-mark"
"""The header that says how far the store went when the page was read, as fixed-width UTC text."""


class EventPages:
    """Pages of events, read in threads beside the event loop.

    Args:
        open_reader: Opens the store's reading half; called once in each thread.
    """

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader
        self._executor = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")
        self._local = threading.local()
        self._readers: list[Reader] = []

    async def get(self, request: Request) -> Response:
        """Answer with a page of NDJSON: a track call a line, in ``loadedAt`` order.

        Raises:
            HTTPError: 400, a parameter cannot be used; 503, the store cannot be read.
        """
        after, limit = _parameters(request)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._page, after, limit)
        except (StoreError, UserError) as error:
            logger.error("the store cannot be read: %s", error)  # noqa: TRY400
            raise HTTPError(503, "the store cannot be read", RETRY_AFTER) from error

    def _page(self, after: int, limit: int) -> Response:
        reader = self._reader()
        mark = reader.high_water()
        if mark is None:
            return Response(200, b"", NDJSON)
        lines = reader.lines(after, mark, limit)
        body = b"\n".join([*lines, b""]) if lines else b""
        return Response(200, body, NDJSON, ((HIGH_WATER, times.to_text(mark).encode()),))

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


def _parameters(request: Request) -> tuple[int, int]:
    query = request.query()
    after = query.get("after")
    if after and "T" in after:
        # An unescaped + in a query reads as a space: 2026-11-23T09:24:00+01:00.
        after = after.replace(" ", "+")
    try:
        cursor = times.from_text(after) if after else 0
    except ValueError as error:
        raise HTTPError(400, f"after: {error}") from error
    limit = query.get("limit", str(DEFAULT_LIMIT))
    size = int(limit) if re.fullmatch("[0-9]{1,5}", limit) else 0
    if not 1 <= size <= MAX_LIMIT:
        raise HTTPError(400, f"limit: a whole number from 1 to {MAX_LIMIT}")
    return cursor, size
