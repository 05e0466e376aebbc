"""The collector as an ASGI application: which endpoint a request is for, and who may use it.

The inputs, through which everything comes, are bare ASGI. All the rest is Starlette's, behind them.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import msgspec.json
import msgspec.yaml
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route, Router

from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.endpoints import events, segment, tracking, vero
from tap_vero_segment.collector.endpoints.health import Health
from tap_vero_segment.collector.eraser import Eraser, begin_erasure
from tap_vero_segment.collector.error_reasons import REASON_BY_STATUS, ErrorReason
from tap_vero_segment.collector.guesses import Guesses
from tap_vero_segment.collector.live_page.routes import Page
from tap_vero_segment.collector.request import (
    Budgets,
    DisconnectedError,
    Request,
    bare,
    check_method,
    is_one_of,
)
from tap_vero_segment.collector.responses import (
    JSON,
    NO_STORE,
    RETRY_AFTER,
    HTTPError,
    enabled,
    error_of_body,
    nothing_here,
)
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import BodyError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request as StarletteRequest
    from starlette.types import Receive, Scope, Send

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.metrics import Metrics
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.collector.settings import Secrets


logger = logging.getLogger("vero-collector")

REFUSAL_SECONDS: Final = 0.2
"""How long an overloaded collector takes to say so: clients that come again at once would cost it
as much as those that it takes."""
VERO: Final = "/vero/"
"""What stands before the token in Vero's URL."""
PUBLIC: Final = frozenset({"/health", "/ready", "/metrics", "/openapi.json"})
"""What needs no secret. Everything else behind the inputs is there only with a read token."""


class App:
    """The collector.

    Args:
        secrets: Who may do what.
        committer: Takes what comes in; whoever serves the application starts and stops it.
        reader_pool: Read the store for the read API and the metrics.
        counts: Where it is counted what is refused, and what the metrics show.
        legacy_batches: Whether batches of Segment's webhooks are taken that are signed in part.
        public_url: Where Vero reaches the collector, for the live page; None: not known.
        eraser: Erases the users of Segment's ``delete`` notices; None: these are ignored.
    """

    def __init__(
        self,
        secrets: Secrets,
        committer: Committer,
        reader_pool: ReaderPool,
        counts: Metrics,
        *,
        legacy_batches: bool = False,
        public_url: str | None = None,
        eraser: Eraser | None = None,
    ) -> None:
        self._secrets = secrets
        self._committer = committer
        self._reader_pool = reader_pool
        self._counts = counts
        self._legacy_batches = legacy_batches
        self._eraser = eraser
        self._budgets = Budgets()
        self._guesses = Guesses()
        self._health = Health(committer, reader_pool, counts)
        self._page = Page(lambda: self._secrets, committer, reader_pool, self._guesses, public_url)
        self._inputs: dict[str, Callable[[Request], Awaitable[Response]]] = {
            **dict.fromkeys(tracking.PATHS, self._tracking),
            "/segment": self._segment,
        }
        self._router = Router(
            [
                Route("/v1/events", self._events),
                Route("/v1/events/search", self._search),
                Route("/v1/erasures", self._erasures),
                Route("/health", self._health.health),
                Route("/ready", self._health.ready),
                Route("/metrics", self._health.metrics),
                Route("/openapi.json", _openapi),
                *self._page.routes,
            ],
            redirect_slashes=False,
        )

    def use(self, secrets: Secrets) -> None:
        """Take other secrets, for requests that have not shown theirs yet."""
        self._secrets = secrets
        self._page.secrets_changed()

    def stop(self) -> None:
        """Be ready no more; what has come in still gets its response."""
        self._health.stop()

    def end_streams(self) -> None:
        """End the responses that would go on for ever, and log what is left: in the event loop."""
        self._page.close()
        self._guesses.log()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, self._budgets)
        endpoint = self._inputs.get(request.path)
        if endpoint is None and request.path.startswith(VERO):
            endpoint = self._vero
        try:
            if endpoint is None:
                await self._route(request, scope, receive, request.send_pieces(send))
                return
            response = await endpoint(request)
        except DisconnectedError:
            return
        except (Exception, asyncio.CancelledError) as error:
            if request.is_responding:
                if isinstance(error, asyncio.CancelledError):
                    raise
                _log_fault(error)  # the connection ends with this
                return
            response = await self._refuse(scope, error)
        finally:
            request.end()
        await response(scope, receive, send)

    async def _route(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to Starlette's router, whose endpoints find the bare one in its state."""
        if request.path not in PUBLIC:
            enabled(self._secrets.read_token)
        scope["app"] = self  # so that the router raises what it has to say
        scope.setdefault("state", {})["bare"] = request
        await self._router(scope, receive, send)

    async def _refuse(self, scope: Scope, error: BaseException) -> Response:
        """Count an error; return the response to it."""
        if isinstance(error, RefusedError) and error.reason is ErrorReason.OVERLOADED:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(REFUSAL_SECONDS)
        refusal = _http_error(error)
        self._counts.refused(refusal.reason)
        if refusal.reason is ErrorReason.WRONG_SECRET:
            self._guesses.note(_endpoint_of(scope), (scope.get("client") or ("",))[0])
        response = refusal.response()
        if scope["path"] in tracking.PATHS:
            response.headers.update(tracking.ALLOW_ORIGIN)
        return response

    async def _vero(self, request: Request) -> Response:
        tokens = enabled(self._secrets.webhook_token)
        given = request.path.removeprefix(VERO)
        if not is_one_of(given.encode(errors="replace"), tokens):
            raise nothing_here(ErrorReason.WRONG_SECRET)
        request.admit()
        check_method(request, "POST")
        self._committer.check_accepting()
        return await vero.receive(request, self._committer)

    async def _tracking(self, request: Request) -> Response:
        write_keys = enabled(self._secrets.write_key)
        if request.method == "OPTIONS":
            return tracking.PREFLIGHT
        check_method(request, "POST")
        self._committer.check_accepting()
        return await tracking.receive(request, self._committer, write_keys)

    async def _segment(self, request: Request) -> Response:
        secrets = enabled(self._secrets.segment_secret)
        check_method(request, "POST")
        self._committer.check_accepting()
        return await segment.receive(
            request,
            self._committer,
            secrets,
            self._erase if self._eraser is not None else None,
            legacy_batches=self._legacy_batches,
        )

    async def _erase(self, user_ids: Sequence[str]) -> None:
        await self._committer.run(lambda writer: begin_erasure(writer, user_ids))
        if self._eraser is not None:
            self._eraser.wake()

    async def _events(self, request: StarletteRequest) -> Response:
        self._check_read_token(request)
        return await events.get(request, self._reader_pool)

    async def _search(self, request: StarletteRequest) -> Response:
        self._check_read_token(request)
        return await events.search(request, self._reader_pool)

    async def _erasures(self, request: StarletteRequest) -> Response:
        self._check_read_token(request)
        return await events.get_erasures(request, self._reader_pool)

    def _check_read_token(self, request: StarletteRequest) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        tokens = self._secrets.read_token
        if scheme.lower() != "bearer" or not is_one_of(given.strip().encode("latin-1"), tokens):
            raise HTTPError(401, "a wrong read token", {"www-authenticate": "Bearer"})
        bare(request).admit()


async def _openapi(_: StarletteRequest) -> Response:
    # Beside the event loop: reading it takes a while, once.
    body = await asyncio.to_thread(lambda: msgspec.json.encode(openapi_document()))
    return Response(body, headers=NO_STORE, media_type=JSON)


@cache
def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the collector's endpoints: ``openapi.yaml``."""
    content = files("tap_vero_segment.collector").joinpath("openapi.yaml").read_bytes()
    document: dict[str, Any] = msgspec.yaml.decode(content)
    del document["x-parts"]
    document["info"]["version"] = version("tap-vero-segment")
    return document


def _http_error(error: BaseException) -> HTTPError:
    """Return what the client learns of an error."""
    match error:
        case HTTPError():
            return error
        case HTTPException():
            return _of_starlette(error)
        case BodyError():
            return error_of_body(error)
        case RefusedError():
            message, reason = error.message, error.reason
        case StoreError():
            # The committer has logged it; the client learns that nothing was kept.
            message, reason = "the store failed, nothing was kept", ErrorReason.STORE_FAILED
        case asyncio.CancelledError():
            # The server stops, and has waited for this request as long as it waits for any.
            message, reason = "shutting down", ErrorReason.SHUTTING_DOWN
        case _:
            _log_fault(error)
            return HTTPError(500, "a fault of the collector")
    return HTTPError(503, message, RETRY_AFTER, reason=reason)


def _of_starlette(error: HTTPException) -> HTTPError:
    if error.status_code == 404:  # noqa: PLR2004
        return nothing_here()
    headers = dict(error.headers or {})
    message = "a request that cannot be served"
    if allowed := headers.get("Allow"):
        headers["Allow"] = ", ".join(sorted(allowed.split(", ")))
        message = f"only {headers['Allow']} here"
    reason = REASON_BY_STATUS.get(error.status_code, ErrorReason.BAD_REQUEST)
    return HTTPError(error.status_code, message, headers, reason=reason)


def _log_fault(error: BaseException) -> None:
    # A traceback's locals could name recipients.
    logger.error("a fault while responding: %s", describe_fault(error))


def _endpoint_of(scope: Scope) -> str:
    """Return an endpoint's path, without what a client can choose."""
    if "route" in scope:
        path: str = scope["route"].path
        return path
    return VERO if scope["path"].startswith(VERO) else scope["path"]
