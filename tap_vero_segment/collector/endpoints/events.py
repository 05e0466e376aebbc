"""``GET /v1/events``: the read API, through which a tap on another machine reads the store."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

from tap_vero_segment import times
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.collector.request import bare
from tap_vero_segment.collector.responses import NDJSON, NO_STORE, RETRY_AFTER, HTTPError
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.stores.base import Reader

logger = logging.getLogger("vero-collector")

MAX_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 1_000

HIGH_WATER: Final = "high-water-mark"
"""The header that says how far the store went when the page was read, as fixed-width UTC text."""


async def get_erasures(request: Request, reader_pool: ReaderPool) -> Response:
    """Respond with a page of NDJSON: an erased event's id a line, in ``loadedAt`` order.

    Raises:
        HTTPError: As :func:`get`.
    """
    return await _get(request, reader_pool, _erasures)


async def get(request: Request, reader_pool: ReaderPool) -> Response:
    """Respond with a page of NDJSON: a track call a line, in ``loadedAt`` order.

    Raises:
        HTTPError: 400, a parameter cannot be used; 503, the store cannot be read, or slow readers
            hold all of the memory for pages.
    """
    return await _get(request, reader_pool, _page)


async def _get(
    request: Request, reader_pool: ReaderPool, page: Callable[[Reader, int, int], Response]
) -> Response:
    after, limit = _parameters(request)
    await bare(request).expect_response()
    try:
        return await reader_pool.read(lambda reader: page(reader, after, limit))
    except (StoreError, UserError) as error:
        logger.error("the store cannot be read: %s", error)  # noqa: TRY400
        raise HTTPError(
            503, "the store cannot be read", RETRY_AFTER, reason=ErrorReason.STORE_FAILED
        ) from error


def _page(reader: Reader, after: int, limit: int) -> Response:
    mark = reader.high_water()
    if mark is None:
        return Response(headers=NO_STORE, media_type=NDJSON)
    return _ndjson(reader.lines(after, mark, limit), mark)


def _erasures(reader: Reader, after: int, limit: int) -> Response:
    mark = reader.newest_erased()
    if mark is None:
        return Response(headers=NO_STORE, media_type=NDJSON)
    lines = [
        msgspec.json.encode(
            {
                "id": each.id,
                "erasedAt": times.to_text(each.erased_at),
                "loadedAt": times.to_text(each.loaded_at),
            }
        )
        for each in reader.erased(after, limit)
    ]
    return _ndjson(lines, mark)


def _ndjson(lines: list[bytes], mark: int) -> Response:
    body = b"\n".join([*lines, b""]) if lines else b""
    headers = {**NO_STORE, HIGH_WATER: times.to_text(mark)}
    return Response(body, headers=headers, media_type=NDJSON)


def _parameters(request: Request) -> tuple[int, int]:
    query = request.query_params
    after = query.get("after")
    if after and "T" in after.upper():
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
