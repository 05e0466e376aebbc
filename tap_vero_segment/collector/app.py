"""The collector as an ASGI application: which endpoint answers, and who may ask."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector import openapi
from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.endpoints import events, metrics, segment, tracking, vero
from tap_vero_segment.collector.http import (
    RETRY_AFTER,
    DisconnectedError,
    HTTPError,
    Request,
    Response,
    same_secret,
    send_response,
)
from tap_vero_segment.collector.refusals import Refusal
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.http import Receive, Scope, Send
    from tap_vero_segment.collector.metrics import Metrics
    from tap_vero_segment.collector.reading import Readers
    from tap_vero_segment.collector.settings import Secrets

logger = logging.getLogger("vero-collector")

_OK: Final = Response(200, b'{"status":"ok"}')


class App:
    """The collector.

    Args:
        secrets: Who may do what.
        committer: Takes what comes in; whoever serves the application starts and stops it.
        readers: Read the store for the read API and the metrics.
        counts: Where it is counted what is refused, and what the metrics tell.
        legacy_batches: Whether batches of Segment's webhooks are taken that are signed in part.
    """

    def __init__(
        self,
        secrets: Secrets,
        committer: Committer,
        readers: Readers,
        counts: Metrics,
        *,
        legacy_batches: bool = False,
    ) -> None:
        self._secrets = secrets
        self._committer = committer
        self._readers = readers
        self._counts = counts
        self._legacy_batches = legacy_batches
        self._endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
            **dict.fromkeys(tracking.PATHS, self._tracking),
            "/segment": self._segment,
            "/v1/events": self._events,
            "/health": self._health,
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
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
            return self._refuse(error)
        except RefusedError as error:
            message = "overloaded or shutting down"
            return self._refuse(HTTPError(503, message, RETRY_AFTER, reason=error.reason))
        except StoreError:
            # The committer has logged it; the client learns that nothing was kept.
            message = "the store failed, nothing was kept"
            return self._refuse(HTTPError(503, message, RETRY_AFTER, reason=Refusal.STORE_FAILED))
        except DisconnectedError:
            raise
        except asyncio.CancelledError:
            # The server stops, and has waited for this request as long as it waits for any.
            reason = Refusal.SHUTTING_DOWN
            return self._refuse(HTTPError(503, "shutting down", RETRY_AFTER, reason=reason))
        except Exception as error:  # noqa: BLE001  # a traceback's locals could name recipients
            logger.error("a fault while answering: %s", type(error).__name__)  # noqa: TRY400
            return self._refuse(HTTPError(500, "a fault of the collector"))

    def _refuse(self, error: HTTPError) -> Response:
        self._counts.refused(error.reason)
        return error.response()

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
            raise _nothing_here(Refusal.WRONG_SECRET)
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
        return await events.get(request, self._readers)

    async def _health(self, request: Request) -> Response:
        _check_method(request, "GET")
        return _OK

    async def _ready(self, request: Request) -> Response:
        _check_method(request, "GET")
        await self._committer.commit([], [])
        return _OK

    async def _metrics(self, request: Request) -> Response:
        _check_method(request, "GET")
        return await metrics.get(request, self._counts, self._committer, self._readers)

    async def _openapi(self, request: Request) -> Response:
        _check_method(request, "GET")
        return openapi.response()


def _opened(secret: str | None) -> str:
    """Return the secret of a door; one without a secret is not there at all."""
    if secret is None:
        raise _nothing_here()
    return secret


def _nothing_here(reason: Refusal = Refusal.NOT_FOUND) -> HTTPError:
    return HTTPError(404, "there is nothing here", reason=reason)


def _check_method(request: Request, method: str) -> None:
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        allowed = b"GET, HEAD" if method == "GET" else method.encode()
        raise HTTPError(405, f"only {method} here", (b"allow", allowed))
