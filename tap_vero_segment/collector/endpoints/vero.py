"""``POST /vero/{webhook_token}``: Vero's webhooks, one event a request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.storing import commit, keep_dead_letter, read_in_thread
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.collector.responses import SUCCESS, HTTPError
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import NotAnObjectError, NotJSONError, UnmappableError, unzip
from tap_vero_segment.inputs.intake import VERO, read_vero
from tap_vero_segment.stores.base import DeadLetter, Event

if TYPE_CHECKING:
    from starlette.responses import Response

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.request import Request

logger = logging.getLogger("vero-collector")


async def receive(request: Request, committer: Committer) -> Response:
    """Store a webhook and respond when it is synced to disk.

    A payload that cannot be mapped is kept as a dead letter and acknowledged: Vero could not send
    a better one.

    Raises:
        HTTPError: 400, the body is no JSON object, and is kept as a dead letter all the same.
        BodyError: It cannot be unzipped, likewise; or it is too long when it is.
    """
    body = await request.body()
    received_at = times.now()
    try:
        content = unzip(body)
    except NotJSONError as error:
        await keep_dead_letter(DeadLetter(received_at, VERO, str(error), body), committer)
        raise
    read = await read_in_thread(len(content), lambda: _read(content, received_at), committer)
    if isinstance(read, Event):
        await commit([read], [], committer, len(content) + len(read.call))
        return SUCCESS
    letter, refused = read
    await keep_dead_letter(letter, committer)
    if refused is not None:
        raise refused
    return SUCCESS


def _read(body: bytes, received_at: int) -> Event | tuple[DeadLetter, HTTPError | None]:
    """Return a body's event, or its dead letter and the response to the sender."""
    refused = None
    try:
        return read_vero(body, received_at)
    except NotAnObjectError as error:
        reason = str(error)
        refused = HTTPError(400, f"the body is {error}", reason=ErrorReason.NOT_JSON)
    except UnmappableError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  # a fault of the mapping must not cost the event
        logger.error("a fault in the mapping: %s", describe_fault(error))  # noqa: TRY400
        reason = f"a fault in the mapping: {type(error).__name__}"
    return DeadLetter(received_at, VERO, reason, body), refused
