"""A request on bare ASGI, under those of Starlette too, and the memory that all requests share."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Final, cast

from tap_vero_segment.collector.responses import RETRY_AFTER, HTTPError, too_large
from tap_vero_segment.limits import (
    MAX_BODY,
    MAX_HALF_RECEIVED,
    MAX_RESPONSES,
    MAX_STRANGERS_HALF_RECEIVED,
    PAGE_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import HTTPConnection
    from starlette.types import Message, Receive, Scope, Send

RESPONSE_SECONDS: Final = 2.0
"""How long a request waits for memory for its response."""
_PIECE: Final = 64 * 1024
"""Bytes of a response that are handed to the connection at once; it says when it wants more."""


class DisconnectedError(Exception):
    """The client went away before its request was complete: nobody waits for a response."""


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
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: str = (scope.get("client") or ("",))[0]
        """The client's address, as a trusted proxy reports it."""
        self.is_responding = False
        """Whether a part of the response was sent, by :meth:`send_pieces`."""

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

    def send_pieces(self, send: Send) -> Send:
        """Return ASGI's ``send`` that returns when the client has taken most of a body.

        The memory of a response that is made is held until then: as much as it needs, where more
        was expected.
        """

        async def send_on(message: Message) -> None:
            self.is_responding = True
            body = message.get("body", b"")
            if self._response_size and body:
                self._budgets.responses.give_back(self._response_size - len(body))
                self._response_size = len(body)
            last = max(0, len(body) - 1) // _PIECE * _PIECE
            for begin in range(0, last, _PIECE):
                piece = body[begin : begin + _PIECE]
                await send({"type": message["type"], "body": piece, "more_body": True})
            await send({**message, "body": body[last:]} if last else message)

        return send_on

    def end(self) -> None:
        """Give back what it holds: its response is sent, or will never be."""
        if self._response_size:
            self._budgets.responses.give_back(self._response_size)
            self._response_size = 0

    def header(self, name: bytes) -> bytes | None:
        """Return the first header of a name, which is given in lower case."""
        return next((value for key, value in self._headers if key == name), None)

    async def body(self, limit: int = MAX_BODY) -> bytes:
        """Read the body.

        One that is too long is read to its end all the same, but not kept: many clients read no
        response before they have sent everything, and take a connection closed on them for a fault.

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


def same_secret(given: bytes, secret: str) -> bool:
    """Compare in constant time, so that the delay tells nothing of the secret."""
    return hmac.compare_digest(given, secret.encode())


def is_one_of(given: bytes, secrets: Sequence[str]) -> bool:
    """Compare with each, whichever fits, so that the delay does not tell which one did either."""
    return any([same_secret(given, secret) for secret in secrets])  # noqa: C419  # all of them


def check_method(request: Request, method: str) -> None:
    """See that a request has the method that its endpoint wants.

    Raises:
        HTTPError: 405, it has not.
    """
    if request.method != method:
        raise HTTPError(405, f"only {method} here", {"allow": method})


def bare(request: HTTPConnection) -> Request:
    """Return what a request of Starlette's stands on: its connection's place, and its memory."""
    return cast("Request", request.state.bare)
