"""Requests and responses on bare ASGI: as little as the collector's few endpoints need."""

from __future__ import annotations

import asyncio
import hmac
import zlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from tap_vero_segment.collector.refusals import BY_STATUS, Refusal
from tap_vero_segment.stores.base import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Mapping,
        MutableMapping,
        Sequence,
    )

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

MAX_BODY: Final = 512 * 1024
"""Bytes of a request's body; a longer one is answered with 413."""

JSON: Final = b"application/json"
NDJSON: Final = b"application/x-ndjson"

MAX_HALF_RECEIVED: Final = 64 * 1024 * 1024
"""Bytes of bodies that have arrived in part, over all connections that have shown a secret."""
MAX_STRANGERS_HALF_RECEIVED: Final = 16 * 1024 * 1024
"""The same, of clients that have shown none: theirs can be in the body, or be its signature."""
MAX_RESPONSES: Final = 64 * 1024 * 1024
"""Bytes of large responses that are being made, or that their clients have not taken yet."""
RESPONSE_SECONDS: Final = 2.0
"""How long a request waits for memory for its response."""
_PIECE: Final = 64 * 1024
"""Bytes of a response that are handed to the connection at once; it says when it wants more."""

NO_STORE: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
"""Headers of what nobody else may see, or take for something else."""

_GZIP: Final = b"\x1f\x8b"
"""The first two bytes of gzip data, and of no JSON."""
_GZIP_WINDOW: Final = 31  # zlib's way to say: with gzip's header

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
        reason: Refusal | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = headers
        self.reason = reason or BY_STATUS[status]

    def response(self) -> Response:
        """Return the answer."""
        body = msgspec.json.encode({"success": False, "error": self.message})
        return Response(self.status, body, headers=(*NO_STORE, *self.headers))


class DisconnectedError(Exception):
    """The client went away before its request was complete: there is nobody to answer."""


class BodyBudget:
    """Memory for bodies that have arrived in part, shared by many requests.

    A body that arrives in one piece needs none of it, so that slow clients cost the quick ones
    nothing.

    Args:
        size: Bytes.
        evict: Whether the request that came first is given up where there is not enough; otherwise
            the one that wants more is refused.
    """

    def __init__(self, size: int = MAX_HALF_RECEIVED, *, evict: bool = False) -> None:
        self._left = size
        self._evict = evict
        self._taken: dict[Request, int] = {}  # by those that came first

    def take(self, request: Request, size: int) -> None:
        """Take some of it.

        Raises:
            HTTPError: 503, there is not so much left.
        """
        while size > self._left and self._evict and self._taken:
            oldest = next(iter(self._taken))
            if oldest is request:
                break
            self.give_back(oldest)
            oldest.give_up()
        if size > self._left:
            raise HTTPError(503, "overloaded", RETRY_AFTER)
        self._left -= size
        self._taken[request] = self._taken.get(request, 0) + size

    def give_back(self, request: Request) -> None:
        """Give back what a request has taken."""
        self._left += self._taken.pop(request, 0)


class ResponseBudget:
    """Memory for large responses, which those that read slowly hold for long.

    Args:
        size: Bytes.
    """

    def __init__(self, size: int = MAX_RESPONSES) -> None:
        self._left = size
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Take some of it, as soon as there is as much.

        Raises:
            HTTPError: 503, there was not in time.
        """
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                while size > self._left:
                    await self._freed.wait()
        except TimeoutError as error:
            raise HTTPError(503, "overloaded by slow readers", RETRY_AFTER) from error
        self._left -= size

    def give_back(self, size: int) -> None:
        """Give back some of it; a negative size is more that was needed after all."""
        self._left += size
        waiting, self._freed = self._freed, asyncio.Event()
        waiting.set()


class Budgets:
    """The memory that all requests share."""

    def __init__(self) -> None:
        self.bodies = BodyBudget()
        self.strangers_bodies = BodyBudget(MAX_STRANGERS_HALF_RECEIVED, evict=True)
        self.responses = ResponseBudget()


class Request:
    """A request, its body not yet read.

    Args:
        scope: ASGI's.
        receive: ASGI's.
        budgets: Memory for its body and its response.
    """

    def __init__(self, scope: Scope, receive: Receive, budgets: Budgets) -> None:
        self._scope = scope
        self._receive = receive
        self._budgets = budgets
        self._bodies = budgets.strangers_bodies
        self._response_size = 0
        # The server's side of it, which keeps its scope itself.
        self._connection = scope.get("state", {}).pop("connection", None)
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._query: bytes = scope["query_string"]
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.scheme: str = scope.get("scheme", "http")
        """``https`` where the client used it, as told by a proxy that is trusted."""
        self.client: str = (scope.get("client") or ("",))[0]
        """The client's address, as told by a proxy that is trusted."""

    def admit(self) -> None:
        """Let it have what those have who have shown a secret: a place, and memory."""
        self._bodies = self._budgets.bodies
        if self._connection is not None:
            self._connection.admit(self._scope)

    def give_up(self) -> None:
        """Refuse it although its body has not come to its end, and never will."""
        if self._connection is not None:
            self._connection.give_up()

    async def expect_response(self, size: int = PAGE_BYTES) -> None:
        """Wait for memory for a large response, before it is made.

        Raises:
            HTTPError: 503, there is none.
        """
        await self._budgets.responses.take(size)
        self._response_size = size

    def response_has(self, size: int) -> None:
        """Hold the memory of a response that is made, and of which it was not known how long."""
        if self._response_size:
            self._budgets.responses.give_back(self._response_size - size)
            self._response_size = size

    def end(self) -> None:
        """Give back what it holds: its response is sent, or will never be."""
        if self._response_size:
            self._budgets.responses.give_back(self._response_size)
            self._response_size = 0

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of a name, which is given in lower case."""
        return next((value for key, value in self._headers if key == name), None)

    def cookie(self, name: str) -> str | None:
        """Return the value of the first cookie of a name."""
        for key, value in self._headers:
            if key != b"cookie":
                continue
            for pair in value.decode("latin-1").split(";"):
                given, separator, content = pair.strip().partition("=")
                if separator and given == name:
                    return content
        return None

    def query(self) -> Mapping[str, str]:
        """Return the query's parameters; of a repeated one, the last.

        Raises:
            HTTPError: 400, it is no query.
        """
        try:
            return dict(parse_qsl(self._query.decode("ascii"), keep_blank_values=True))
        except ValueError as error:
            raise HTTPError(400, "the query cannot be read") from error

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """Read the body.

        One that is too long is read to its end all the same, but not kept: many clients read no
        answer before they have sent everything, and take a connection closed on them for a fault.

        Raises:
            HTTPError: 413, it is longer than ``limit`` bytes; 503, there is no room for it.
            DisconnectedError: The client went away in the middle of it.
        """
        chunks: list[bytes] = []
        size = 0
        bodies = self._bodies
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise DisconnectedError
                body = message.get("body", b"")
                size += len(body)
                if size <= limit:
                    chunks.append(body)
                else:
                    chunks.clear()
                if not message.get("more_body", False):
                    break
                if size <= limit:
                    bodies.take(self, len(body))
                else:
                    bodies.give_back(self)
        finally:
            bodies.give_back(self)
        if size > limit:
            raise too_large(limit)
        return b"".join(chunks)


def too_large(limit: int) -> HTTPError:
    """Return the answer to a body that is longer than ``limit`` bytes."""
    return HTTPError(413, f"the body is longer than {limit} bytes")


def unzip(body: bytes) -> bytes:
    """Return the content of a gzipped body; any other body stays as it is.

    The first two bytes tell, as not every proxy and client keeps the header true.

    Raises:
        HTTPError: 400, it is damaged or holds more than one gzip member; 413, its content is
            longer than :data:`MAX_BODY`.
    """
    if not body.startswith(_GZIP):
        return body
    member = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # One byte more than it may be: a small body can unzip to gigabytes.
        content = member.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise not_gzip() from error
    if len(content) > MAX_BODY:
        raise too_large(MAX_BODY)
    if not member.eof:
        raise not_gzip()
    if member.unused_data:
        # Another one, maybe: thousands of them, each with nothing in it, would take long to read.
        message = "the body goes on behind its first gzip member"
        raise HTTPError(400, message, reason=Refusal.NOT_JSON)
    return content


def not_gzip() -> HTTPError:
    """Return the response to a body that should be gzip and is not."""
    return HTTPError(400, "the body is not gzip", reason=Refusal.NOT_JSON)


def same_secret(given: bytes, secret: str) -> bool:
    """Compare in constant time, so that the answer's delay tells nothing of the secret."""
    return hmac.compare_digest(given, secret.encode())


def is_one_of(given: bytes, secrets: Sequence[str]) -> bool:
    """Compare with each, whichever fits, so that the delay does not tell which one did either."""
    return any([same_secret(given, secret) for secret in secrets])  # noqa: C419  # all of them


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
