"""``POST /vero/{webhook_token}``: Vero's webhooks, one event a request."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.calls import Calls, event_of, read_calls
from tap_vero_segment.collector.http import HTTPError, Response, unzip
from tap_vero_segment.collector.quarantine import quarantine
from tap_vero_segment.collector.refusals import Refusal
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import NotAnObjectError, UnmappableError, read_object
from tap_vero_segment.inputs.vero import to_track
from tap_vero_segment.stores.base import DeadLetter, Event

if TYPE_CHECKING:
    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.http import Request

logger = logging.getLogger("vero-collector")

INPUT: Final = "vero"
SUCCESS: Final = Response(200, b'{"success":true}')


async def receive(request: Request, committer: Committer) -> Response:
    """Store a webhook and answer when it is synced to disk.

    Raises:
        HTTPError: 400, the body is no JSON object, and is kept as a dead letter all the same; 413,
            it is too long when unzipped.
    """
    await take(await request.body(), committer)
    return SUCCESS


async def take(body: bytes, committer: Committer) -> None:
    """Store a webhook's body; return when it is synced to disk.

    A payload that cannot be mapped is kept as a dead letter and acknowledged: Vero could not send
    a better one.

    Raises:
        HTTPError: As in :func:`receive`.
    """
    received_at = times.now()
    try:
        content = unzip(body)
    except HTTPError as error:
        if error.status == HTTPStatus.BAD_REQUEST:
            await quarantine(DeadLetter(received_at, INPUT, error.message, body), committer)
        raise
    read = await read_calls(len(content), lambda: _read(content, received_at), committer)
    if isinstance(read, Event):
        await committer.commit([read], [], size=len(content) + len(read.call))
        return
    letter, refused = read
    await quarantine(letter, committer)
    if refused is not None:
        raise refused


def _read(body: bytes, received_at: int) -> Event | tuple[DeadLetter, HTTPError | None]:
    """Return a body's event, or the dead letter that it is and how that is answered."""
    refused = None
    try:
        return to_event(body, received_at)
    except NotAnObjectError as error:
        reason = str(error)
        refused = HTTPError(400, f"the body is {error}", reason=Refusal.NOT_JSON)
    except UnmappableError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  # a fault of the mapping must not cost the event
        logger.error("a fault in the mapping: %s", describe_fault(error))  # noqa: TRY400
        reason = f"a fault in the mapping: {type(error).__name__}"
    return DeadLetter(received_at, INPUT, reason, body), refused


def to_event(body: bytes, received_at: int) -> Event:
    """Turn a webhook's body into what a store keeps.

    Raises:
        NotAnObjectError: The body is no JSON object.
        UnmappableError: No track call can be made of it.
    """
    return event_of(to_track(read_object(body), received_at), INPUT, body)


def read_kept(body: bytes, received_at: int) -> Calls:
    """Turn a body that a store has kept as a dead letter into what it would be today.

    Raises:
        HTTPError: The body is gzipped and cannot be unzipped.
        NotAnObjectError: The body is no JSON object.
        UnmappableError: No track call can be made of it.
    """
    return Calls([to_event(unzip(body), received_at)], [], 0)
