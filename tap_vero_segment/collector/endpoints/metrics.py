"""``GET /metrics``: the collector's figures for Prometheus, and for whoever reads its format."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.metrics import Metrics, Scrape, StoreFigures
from tap_vero_segment.collector.responses import NO_STORE, Response
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.collector.request import Request
    from tap_vero_segment.stores.base import Reader

    Figures = Callable[[], Awaitable[StoreFigures | None]]

logger = logging.getLogger("vero-collector")

STORE_SECONDS: Final = 5
"""How long a scrape waits for the store; Prometheus itself waits ten seconds for a scrape."""


async def get(
    request: Request, metrics: Metrics, committer: Committer, figures: Figures
) -> Response:
    """Answer with all figures; without the store's, where it cannot be read."""
    store = await figures()
    scrape = Scrape(committer.pending, committer.pending_bytes, committer.clock_behind, store)
    accept = (request.header(b"accept") or b"").decode("latin-1")
    content_type, body = await asyncio.to_thread(metrics.expose, scrape, accept)
    return Response(200, body, content_type.encode(), NO_STORE)


async def read_store(reader_pool: ReaderPool) -> StoreFigures | None:
    """Return what the store says of itself; None: it cannot be read."""
    try:
        async with asyncio.timeout(STORE_SECONDS):
            return await reader_pool.read(_figures)
    except TimeoutError:
        logger.error("the store cannot be read within %d seconds", STORE_SECONDS)  # noqa: TRY400
    except (StoreError, UserError, OSError) as error:
        logger.error("the store cannot be read: %s", error)  # noqa: TRY400
    return None


def _figures(reader: Reader) -> StoreFigures:
    return StoreFigures(reader.summary(), reader.size())
