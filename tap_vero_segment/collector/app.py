"""The collector as an ASGI application: which endpoint answers, and who may ask."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec.json
import msgspec.yaml

from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.endpoints import events, segment, tracking, vero
from tap_vero_segment.collector.endpoints.health import Health
from tap_vero_segment.collector.eraser import Eraser, begin_erasure
from tap_vero_segment.collector.guesses import Guesses
from tap_vero_segment.collector.live_page.routes import Page
from tap_vero_segment.collector.request import (
    Budgets,
    DisconnectedError,
    Request,
    check_method,
    is_one_of,
)
from tap_vero_segment.collector.responses import (
    NO_STORE,
    RETRY_AFTER,
    ErrorReason,
    HTTPError,
    Response,
    Stream,
    enabled,
    error_of_body,
    nothing_here,
    send_response,
    send_stream,
)
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import BodyError
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.metrics import Metrics
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.collector.responses import Receive, Scope, Send
    from tap_vero_segment.collector.settings import Secrets


T = TypeVar("T")

logger = logging.getLogger("vero-collector")

REFUSAL_SECONDS: Final = 0.2
"""How long an overloaded collector takes to say so: clients that come again at once would cost it
as much as those that it takes."""


class App:
    """The collector.

    Args:
        secrets: Who may do what.
        committer: Takes what comes in; whoever serves the application starts and stops it.
        reader_pool: Read the store for the read API and the metrics.
        counts: Where it is counted what is refused, and what the metrics tell.
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
        self._endpoints: dict[str, Callable[[Request], Awaitable[Response | Stream]]] = {
            **dict.fromkeys(tracking.PATHS, self._tracking),
            "/segment": self._segment,
            "/v1/events": self._events,
            "/v1/erasures": self._erasures,
            "/health": self._health.health,
            "/ready": self._health.ready,
            "/metrics": self._health.metrics,
            "/openapi.json": self._openapi,
            **self._page.endpoints,
        }
        self._endpoints_below = {"/vero/": self._vero, **self._page.endpoints_below}

    def use(self, secrets: Secrets) -> None:
        """Take other secrets, for requests that have not shown theirs yet."""
        self._secrets = secrets
        self._page.secrets_changed()

    def stop(self) -> None:
        """Be ready no more; what has come in is still answered."""
        self._health.stop()

    def end_streams(self) -> None:
        """End the answers that would go on for ever, and log what is left: in the event loop."""
        self._page.close()
        self._guesses.log()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, self._budgets)
        try:
            response = await self._respond(request)
            if request.path in tracking.PATHS:
                response = response._replace(headers=(*response.headers, tracking.ALLOW_ORIGIN))
            if isinstance(response, Stream):
                await self._stream(send, receive, response)
            else:
                request.response_has(len(response.body))
                await send_response(send, response, head=request.method == "HEAD")
        except DisconnectedError:
            return
        finally:
            request.end()

    async def _stream(self, send: Send, receive: Receive, stream: Stream) -> None:
        try:
            await send_stream(send, receive, stream)
        except Exception as error:  # noqa: BLE001  # as below; the connection ends with this
            logger.error("a fault in a stream: %s", describe_fault(error))  # noqa: TRY400

    async def _respond(self, request: Request) -> Response | Stream:
        try:
            return await self._route(request)
        except HTTPError as error:
            if error.reason is ErrorReason.WRONG_SECRET:
                known = request.path in self._endpoints
                self._guesses.note(request.path if known else _above(request), request.client)
            return self._refuse(error)
        except RefusedError as error:
            if error.reason is ErrorReason.OVERLOADED:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(REFUSAL_SECONDS)
            return self._refuse(_unavailable(error.message, error.reason))
        except StoreError:
            # The committer has logged it; the client learns that nothing was kept.
            message = "the store failed, nothing was kept"
            return self._refuse(_unavailable(message, ErrorReason.STORE_FAILED))
        except DisconnectedError:
            raise
        except asyncio.CancelledError:
            # The server stops, and has waited for this request as long as it waits for any.
            return self._refuse(_unavailable("shutting down", ErrorReason.SHUTTING_DOWN))
        except Exception as error:  # noqa: BLE001  # a traceback's locals could name recipients
            logger.error("a fault while answering: %s", describe_fault(error))  # noqa: TRY400
            return self._refuse(HTTPError(500, "a fault of the collector"))

    def _refuse(self, error: HTTPError) -> Response:
        self._counts.refused(error.reason)
        return error.response()

    async def _route(self, request: Request) -> Response | Stream:
        endpoint = self._endpoints.get(request.path) or self._endpoints_below.get(_above(request))
        if endpoint is None:
            raise nothing_here()
        try:
            return await endpoint(request)
        except BodyError as error:
            raise error_of_body(error) from error

    async def _vero(self, request: Request) -> Response:
        tokens = enabled(self._secrets.webhook_token)
        given = request.path.removeprefix("/vero/")
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

    async def _events(self, request: Request) -> Response:
        self._check_read_token(request)
        return await events.get(request, self._reader_pool)

    async def _erasures(self, request: Request) -> Response:
        self._check_read_token(request)
        return await events.get_erasures(request, self._reader_pool)

    def _check_read_token(self, request: Request) -> None:
        tokens = enabled(self._secrets.read_token)
        scheme, _, given = (request.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not is_one_of(given.strip(), tokens):
            raise HTTPError(401, "a wrong read token", (b"www-authenticate", b"Bearer"))
        request.admit()
        check_method(request, "GET")

    async def _openapi(self, request: Request) -> Response:
        check_method(request, "GET")
        # Beside the event loop: reading it takes a while, once.
        body = await asyncio.to_thread(lambda: msgspec.json.encode(openapi_document()))
        return Response(200, body, headers=NO_STORE)


@cache
def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the collector's endpoints: ``openapi.yaml``."""
    content = files("tap_vero_segment.collector").joinpath("openapi.yaml").read_bytes()
    document: dict[str, Any] = msgspec.yaml.decode(content)
    del document["x-parts"]
    document["info"]["version"] = version("tap-vero-segment")
    return document


def _unavailable(message: str, reason: ErrorReason) -> HTTPError:
    return HTTPError(503, message, RETRY_AFTER, reason=reason)


def _above(request: Request) -> str:
    """Return what comes before a path's last part: ``/vero/`` of ``/vero/TOKEN``."""
    return request.path[: request.path.find("/", 1) + 1]
