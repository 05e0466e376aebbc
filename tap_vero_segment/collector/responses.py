"""Responses, and the errors that end the handling of a request: as little as bare ASGI needs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tap_vero_segment.inputs.body import NotJSONError, TooLargeError, TooLongError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence

    from tap_vero_segment.inputs.body import BodyError

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]


class ErrorReason(StrEnum):
    """The reason for an answer that is no success, as the metrics name it."""

    RESPONSE_NOT_READ = "answer_not_read"
    BAD_REQUEST = "bad_request"
    FAULT = "fault"
    FORBIDDEN = "forbidden"
    HEADERS_TOO_LARGE = "headers_too_large"
    METHOD = "method"
    NO_SESSION = "no_session"
    NOT_FOUND = "not_found"
    NOT_HTTP = "not_http"
    NOT_JSON = "not_json"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    STORE_BROKEN = "store_broken"
    STORE_FAILED = "store_failed"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_GUESSES = "too_many_guesses"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    WRONG_SECRET = "wrong_secret"  # noqa: S105  # a word for the metrics


REASON_BY_STATUS: Final = {
    400: ErrorReason.BAD_REQUEST,
    401: ErrorReason.WRONG_SECRET,
    403: ErrorReason.FORBIDDEN,
    404: ErrorReason.NOT_FOUND,
    405: ErrorReason.METHOD,
    408: ErrorReason.TIMEOUT,
    413: ErrorReason.TOO_LARGE,
    415: ErrorReason.UNSUPPORTED_ENCODING,
    429: ErrorReason.TOO_MANY_GUESSES,
    431: ErrorReason.HEADERS_TOO_LARGE,
    500: ErrorReason.FAULT,
    503: ErrorReason.OVERLOADED,
}
"""What a status means where nothing says it more exactly."""

STATUSES: Final[dict[str, str]] = {
    **{reason: str(status) for status, reason in REASON_BY_STATUS.items()},
    ErrorReason.NO_SESSION: "401",
    ErrorReason.NOT_HTTP: "400",
    ErrorReason.NOT_JSON: "400",
    ErrorReason.SHUTTING_DOWN: "503",
    ErrorReason.STORE_BROKEN: "503",
    ErrorReason.STORE_FAILED: "503",
    ErrorReason.TOO_MANY_CONNECTIONS: "503",
    ErrorReason.WRONG_SECRET: "401, 404",
}
"""The statuses that a reason comes with; one that is missing comes with none."""

JSON: Final = b"application/json"

NDJSON: Final = b"application/x-ndjson"

_PIECE: Final = 64 * 1024
"""Bytes of a response that are handed to the connection at once; it says when it wants more."""

NO_STORE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
"""Headers of what nobody else may see, or take for something else."""

RETRY_AFTER: Final = (b"retry-after", b"1")
"""Seconds: a full queue is empty again in less."""


class Response(NamedTuple):
    """An answer, whole."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Stream(NamedTuple):
    """An answer that goes on until its parts end or the client goes away; it has status 200.

    Attributes:
        parts: What is sent.
        content_type: Its type.
        headers: Further headers.
        end: Called when it has ended, even before its first part.
    """

    parts: AsyncGenerator[bytes]
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    end: Callable[[], None]


class HTTPError(Exception):
    """An answer that ends the handling of a request.

    Args:
        status: The HTTP status.
        message: What went wrong, for the client; it repeats nothing of the request.
        headers: Further headers of the answer.
        reason: What the metrics count it as; None: what the status means.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *headers: tuple[bytes, bytes],
        reason: ErrorReason | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = headers
        self.reason = reason or REASON_BY_STATUS[status]

    def response(self) -> Response:
        """Return the answer."""
        body = msgspec.json.encode({"success": False, "error": self.message})
        return Response(self.status, body, headers=(*NO_STORE, *self.headers))


def too_large(limit: int) -> HTTPError:
    """Return the answer to a body that is longer than ``limit`` bytes."""
    return HTTPError(413, f"the body is longer than {limit} bytes")


def error_of_body(error: BodyError) -> HTTPError:
    """Return the response to a body that is no use."""
    if isinstance(error, TooLongError):
        return HTTPError(413, str(error))
    reason = None
    if isinstance(error, NotJSONError):
        reason = ErrorReason.NOT_JSON
    elif isinstance(error, TooLargeError):
        reason = ErrorReason.TOO_LARGE
    return HTTPError(400, str(error), reason=reason)


async def send_response(send: Send, response: Response, *, head: bool = False) -> None:
    """Send an answer, or only its headers; return when the client has taken most of it."""
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [
                (b"content-type", response.content_type),
                (b"content-length", b"%d" % len(response.body)),
                *response.headers,
            ],
        }
    )
    body = b"" if head else response.body
    last = max(0, len(body) - 1) // _PIECE * _PIECE
    for begin in range(0, last, _PIECE):
        piece = body[begin : begin + _PIECE]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": body[last:]})


async def send_stream(send: Send, receive: Receive, stream: Stream) -> None:
    """Send an answer part by part; return when it ends or the client goes away."""
    try:
        headers = [(b"content-type", stream.content_type), *stream.headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending = asyncio.create_task(_send_parts(send, stream))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
    finally:
        stream.end()
    if not sending.cancelled() and (error := sending.exception()) is not None:
        raise error


async def _send_parts(send: Send, stream: Stream) -> None:
    async with aclosing(stream.parts) as parts:
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def enabled(secrets: Sequence[str]) -> Sequence[str]:
    """Return the secrets of an endpoint; one without a secret is disabled.

    Raises:
        HTTPError: 404, it has none.
    """
    if not secrets:
        raise nothing_here()
    return secrets


def nothing_here(reason: ErrorReason = ErrorReason.NOT_FOUND) -> HTTPError:
    """Return the answer to who asks for what is not there, or not for him."""
    return HTTPError(404, "there is nothing here", reason=reason)
