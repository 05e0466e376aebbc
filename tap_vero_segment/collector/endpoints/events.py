"""The read API: what a tap on another machine reads, and the search for events."""

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
from tap_vero_segment.collector.searching import FIELDS, read_search, read_time
from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.stores.base import Reader

logger = logging.getLogger("vero-collector")

MAX_LIMIT: Final = 10_000
DEFAULT_LIMIT: Final = 1_000

SEARCHED: Final = (*FIELDS, "before", "after", "limit")
"""The parameters of a search, in order."""

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


async def search(request: Request, reader_pool: ReaderPool) -> Response:
    """Respond with a page of NDJSON: a track call a line that was searched for, the newest first.

    Raises:
        HTTPError: As :func:`get`.
    """
    query = request.query_params
    limit = _limit(query)
    if unknown := query.keys() - set(SEARCHED):
        msg = f"parameters: {len(unknown)} of them are not known; use {', '.join(SEARCHED)}"
        raise HTTPError(400, msg)
    try:
        asked = read_search(query)
        before, after = (read_time(query, name) for name in ("before", "after"))
    except SettingError as error:
        raise HTTPError(400, str(error)) from error
    if before is not None and after is not None:
        raise HTTPError(400, "after: it cannot be combined with before; leave one of them out")

    def page(reader: Reader) -> Response:
        found = reader.search(asked, before=before, after=after, limit=limit)
        cursors = {
            name: times.to_text(moment)
            for name, moment in (
                ("older", found.older),
                ("newer", found.newer),
                ("searched-to", found.searched_to),
            )
            if moment is not None
        }
        body = b"".join(b"%b\n" % line for line in found.lines)
        return Response(body, headers=NO_STORE | cursors, media_type=NDJSON)

    return await _read(request, reader_pool, page)


async def _get(
    request: Request, reader_pool: ReaderPool, page: Callable[[Reader, int, int], Response]
) -> Response:
    after, limit = _parameters(request)
    return await _read(request, reader_pool, lambda reader: page(reader, after, limit))


async def _read(
    request: Request, reader_pool: ReaderPool, page: Callable[[Reader], Response]
) -> Response:
    await bare(request).expect_response()
    try:
        return await reader_pool.read(page)
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
    try:
        after = read_time(query, "after") if query.get("after") else None
    except SettingError as error:
        raise HTTPError(400, str(error)) from error
    return after or 0, _limit(query)


def _limit(query: Mapping[str, str]) -> int:
    limit = query.get("limit", str(DEFAULT_LIMIT))
    size = int(limit) if re.fullmatch("[0-9]{1,5}", limit) else 0
    if not 1 <= size <= MAX_LIMIT:
        raise HTTPError(400, f"limit: a whole number from 1 to {MAX_LIMIT}")
    return size
