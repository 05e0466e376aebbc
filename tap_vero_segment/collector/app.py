"""The collector as an ASGI application: which endpoint answers, and who may ask."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.endpoints import vero
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
    """

    def __init__(self, secrets: Secrets, committer: Committer, pages: EventPages) -> None:
        self._secrets = secrets
        self._committer = committer
        self._pages = pages

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
        path = request.path
        if path.startswith("/vero/"):
            self._check_webhook_token(path.removeprefix("/vero/"))
            _check_method(request, "POST")
            return await vero.receive(request, self._committer)
        if path == "/v1/events":
            self._check_read_token(request)
            _check_method(request, "GET")
            return await self._pages.get(request)
        if path == "/health":
            _check_method(request, "GET")
            return _OK
        if path == "/ready":
            _check_method(request, "GET")
            await self._committer.commit([], [])
            return _OK
        raise HTTPError(404, "there is nothing here")

    def _check_webhook_token(self, given: str) -> None:
        token = self._secrets.webhook_token
        if token is None or not same_secret(given.encode(errors="replace"), token):
            raise HTTPError(404, "there is nothing here")

    def _check_read_token(self, request: Request) -> None:
        token = self._secrets.read_token
        if token is None:
            raise HTTPError(404, "there is nothing here")
        scheme, _, given = (request.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not same_secret(given.strip(), token):
            raise HTTPError(401, "a wrong read token", (b"www-authenticate", b"Bearer"))


def _check_method(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        allowed = b"GET, HEAD" if method == "GET" else method.encode()
        raise HTTPError(405, f"only {method} here", (b"allow", allowed))
