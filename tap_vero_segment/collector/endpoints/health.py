"""``GET /health``, ``/ready`` and ``/metrics``: what monitors ask, without a secret."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec
from starlette.responses import Response

from tap_vero_segment.collector.commands.repair_clock import clock_warning
from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.metrics import Metrics, Scrape, StoreFigures
from tap_vero_segment.collector.responses import JSON, NO_STORE, RETRY_AFTER
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.stores.base import Reader

T = TypeVar("T")

logger = logging.getLogger("vero-collector")

READY_SECONDS: Final = 5
"""How long the store may take to accept a write, and the collector still be ready."""
PROBE_SECONDS: Final = 1.0
"""How often the store is tried for those who ask whether it accepts writes."""
STORE_SECONDS: Final = 5
"""How long a scrape waits for the store; Prometheus itself waits ten seconds for a scrape."""

_OK: Final = Response(b'{"status":"ok"}', headers=NO_STORE, media_type=JSON)


class Health:
    """Knows how the collector is.

    Args:
        committer: Says whether the store accepts writes.
        reader_pool: Reads the store's figures.
        metrics: What was counted.
    """

    def __init__(self, committer: Committer, reader_pool: ReaderPool, metrics: Metrics) -> None:
        self._committer = committer
        self._reader_pool = reader_pool
        self._metrics = metrics
        self._stopping = False
        self._store_problem = _Shared(self._probe, PROBE_SECONDS)
        self._store_figures = _Shared(self._read_store)

    def stop(self) -> None:
        """Be ready no more."""
        self._stopping = True

    async def health(self, _: Request) -> Response:
        """Respond: the event loop goes round."""
        return _OK

    async def ready(self, _: Request) -> Response:
        """Respond with 200 where the store accepts writes, else with 503 and why it does not."""
        problem = await self._why_not_ready()
        if problem is None:
            warning = clock_warning(self._committer.clock_behind)
            if warning is None:
                return _OK
            body = msgspec.json.encode({"status": "ok", "warning": warning})
            return Response(body, headers=NO_STORE, media_type=JSON)
        body = msgspec.json.encode({"status": problem})
        return Response(body, 503, RETRY_AFTER | NO_STORE, JSON)

    async def _why_not_ready(self) -> str | None:
        if self._stopping:
            return "shutting down"
        try:
            self._committer.check_accepting()
        except RefusedError as error:
            return error.message
        return await self._store_problem.get()

    async def _probe(self) -> str | None:
        """Return why the store accepts no writes, if that is so."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._committer.probe()
        except RefusedError as error:
            return error.message
        except StoreError:
            return "the store accepts no writes"
        except TimeoutError:
            return "the store does not answer"
        return "the disk is nearly full" if self._committer.nearly_full else None

    async def metrics(self, request: Request) -> Response:
        """Respond with all figures; without the store's, where it cannot be read."""
        store = await self._store_figures.get()
        committer = self._committer
        scrape = Scrape(committer.pending, committer.pending_bytes, committer.clock_behind, store)
        accept = request.headers.get("accept", "")
        content_type, body = await asyncio.to_thread(self._metrics.expose, scrape, accept)
        return Response(body, headers=NO_STORE, media_type=content_type)

    async def _read_store(self) -> StoreFigures | None:
        """Return what the store says of itself; None: it cannot be read."""
        try:
            async with asyncio.timeout(STORE_SECONDS):
                return await self._reader_pool.read(_figures)
        except TimeoutError:
            logger.error("the store cannot be read within %d seconds", STORE_SECONDS)  # noqa: TRY400
        except (StoreError, UserError, OSError) as error:
            logger.error("the store cannot be read: %s", error)  # noqa: TRY400
        return None


def _figures(reader: Reader) -> StoreFigures:
    forwards = [(each, reader.backlog(each)) for each in reader.forwards()]
    return StoreFigures(reader.summary(), reader.size(), forwards)


class _Shared(Generic[T]):
    """Work that is done once for all who want its result meanwhile, or soon after it began.

    Args:
        work: Does it.
        seconds: For how long a result will do, from when the work began.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float = 0.0) -> None:
        self._work = work
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._began = 0.0

    async def get(self) -> T:
        """Return the result."""
        now = asyncio.get_running_loop().time()
        if self._task is None or (self._task.done() and now - self._began >= self._seconds):
            self._began = now
            self._task = asyncio.create_task(self._work())
        return await asyncio.shield(self._task)
