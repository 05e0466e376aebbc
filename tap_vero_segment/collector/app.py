"""The collector as an ASGI application: which endpoint answers, and who may ask."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.endpoints import segment, tracking, vero
from tap_vero_segment.collector.http import (
    RETRY_AFTER,
    DisconnectedError,
    HTTPError,
    Request,
    Response,
    same_secret,
    send_response,
)
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.endpoints.events import EventPages
    from tap_vero_segment.collector.http import Receive, Scope, Send
    from tap_vero_segment.collector.settings import Secrets

logger = logging.getLogger("vero-collector")

_OK: Final = Response(200, b'{"status":"ok"}')


class App:
    """The collector.

    Args:
        secrets: Who may do what.
        committer: Takes what comes in; whoever serves the application starts and stops it.
        pages: Serves the read API.
        legacy_batches: Whether batches of Segment's webhooks are taken that are signed in part.
    """

    def __init__(
        self,
        secrets: Secrets,
        committer: Committer,
        pages: EventPages,
        *,
        legacy_batches: bool = False,
    ) -> None:
        self._secrets = secrets
        self._committer = committer
        self._pages = pages
        self._legacy_batches = legacy_batches
        self._endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
            **dict.fromkeys(tracking.PATHS, self._tracking),
            "/segment": self._segment,
            "/v1/events": self._events,
            "/health": self._health,
            "/ready": self._ready,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except DisconnectedError:
            return
        await send_response(send, response, head=request.method == "HEAD")

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._route(request)
        except HTTPError as error:
            return error.response()
        except RefusedError:
            return HTTPError(503, "overloaded or shutting down", RETRY_AFTER).response()
        except StoreError:
            # The committer has logged it; the client learns that nothing was kept.
            return HTTPError(503, "the store failed, nothing was kept", RETRY_AFTER).response()
        except DisconnectedError:
            raise
        except asyncio.CancelledError:
            # The server stops, and has waited for this request as long as it waits for any.
            return HTTPError(503, "shutting down", RETRY_AFTER).response()
        except Exception as error:  # noqa: BLE001  # a traceback's locals could name recipients
            logger.error("a fault while answering: %s", type(error).__name__)  # noqa: TRY400
            return HTTPError(500, "a fault of the collector").response()

    async def _route(self, request: Request) -> Response:
        endpoint = self._endpoints.get(request.path)
        if endpoint is None and request.path.startswith("/vero/"):
            endpoint = self._vero
        if endpoint is None:
            raise _nothing_here()
        return await endpoint(request)

    async def _vero(self, request: Request) -> Response:
        token = _opened(self._secrets.webhook_token)
        given = request.path.removeprefix("/vero/")
        if not same_secret(given.encode(errors="replace"), token):
            raise _nothing_here()
        _check_method(request, "POST")
        return await vero.receive(request, self._committer)

    async def _tracking(self, request: Request) -> Response:
        write_key = _opened(self._secrets.write_key)
        if request.method == "OPTIONS":
            return tracking.PREFLIGHT
        _check_method(request, "POST")
        return await tracking.receive(request, self._committer, write_key)

    async def _segment(self, request: Request) -> Response:
        secret = _opened(self._secrets.segment_secret)
        _check_method(request, "POST")
        return await segment.receive(
            request, self._committer, secret, legacy_batches=self._legacy_batches
        )

    async def _events(self, request: Request) -> Response:
        token = _opened(self._secrets.read_token)
        scheme, _, given = (request.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not same_secret(given.strip(), token):
            raise HTTPError(401, "a wrong read token", (b"www-authenticate", b"Bearer"))
        _check_method(request, "GET")
        return await self._pages.get(request)

    async def _health(self, request: Request) -> Response:
        _check_method(request, "GET")
        return _OK

    async def _ready(self, request: Request) -> Response:
        _check_method(request, "GET")
        await self._committer.commit([], [])
        return _OK


def _opened(secret: str | None) -> str:
    """Return the secret of a door; one without a secret is not there at all."""
    if secret is None:
        raise _nothing_here()
    return secret


def _nothing_here() -> HTTPError:
    return HTTPError(404, "there is nothing here")


def _check_method(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        allowed = b"GET, HEAD" if method == "GET" else method.encode()
        raise HTTPError(405, f"only {method} here", (b"allow", allowed))
