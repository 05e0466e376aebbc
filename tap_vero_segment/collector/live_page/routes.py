"""The live page's endpoints, and who may have them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import BY_STREAM
from tap_vero_segment.collector.commands.dead_letters import find_dead_letter
from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.live_page import actions, feed, snapshot, views
from tap_vero_segment.collector.live_page.auth import (
    Session,
    Sessions,
    base_url,
    is_own,
    set_cookie,
)
from tap_vero_segment.collector.live_page.snapshot import entry_of
from tap_vero_segment.collector.live_page.views import (
    HEADERS,
    STATIC_FILES,
    STATIC_PATH,
    PageError,
    html,
    login_form,
    redirect,
    static_file,
)
from tap_vero_segment.collector.redaction import readable
from tap_vero_segment.collector.request import check_method
from tap_vero_segment.collector.responses import (
    JSON,
    RETRY_AFTER,
    ErrorReason,
    Response,
    Stream,
    enabled,
    nothing_here,
)
from tap_vero_segment.errors import UserError
from tap_vero_segment.limits import MAX_FORM
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.guesses import Guesses
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.collector.request import Request
    from tap_vero_segment.collector.settings import Secrets
    from tap_vero_segment.stores.base import KeptDeadLetter, Reader

    T = TypeVar("T")
    Endpoint = Callable[[Request], Awaitable[Response | Stream]]
    OfSession = Callable[[Request, Session], Awaitable[Response | Stream]]
    Action = Callable[[Mapping[str, str]], Awaitable[str]]


logger = logging.getLogger("vero-collector")
EVENT_STREAM: Final = b"text/event-stream"
_FAILED: Final = "The store failed, nothing was kept."
_UNREADABLE: Final = "The store cannot be read at present."
_LOADED_AT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_NUMBER: Final = re.compile("[0-9]{1,18}")


class Page:
    """The live page.

    Args:
        secrets: Returns the secrets of the moment.
        committer: Takes what the page's buttons store.
        reader_pool: Read the store.
        guesses: Knows who has given a wrong read token.
        public_url: Where Vero reaches the collector; None: the page takes its own address.
    """

    def __init__(
        self,
        secrets: Callable[[], Secrets],
        committer: Committer,
        reader_pool: ReaderPool,
        guesses: Guesses,
        public_url: str | None,
    ) -> None:
        self._secrets = secrets
        self._committer = committer
        self._reader_pool = reader_pool
        self._guesses = guesses
        self._public_url = public_url
        self._feed = feed.Feed(reader_pool)
        self._sessions = Sessions(lambda: secrets().read_token)
        self.endpoints: dict[str, Endpoint] = {
            "/": self._home,
            "/login": self._login,
            "/logout": self._logout,
            "/live": self._behind_login(self._live),
            "/test-event": self._button(self._send_test_event),
            "/replay": self._button(self._replay),
        }
        """By their paths."""
        self.endpoints_below: dict[str, Endpoint] = {
            "/event/": self._behind_login(self._event),
            "/dead-letter/": self._behind_login(self._letter),
            STATIC_PATH: self._static,
        }
        """By the beginnings of their paths."""

    def secrets_changed(self) -> None:
        """End the streams of those who may not watch any more."""
        self._feed.wake()

    def close(self) -> None:
        """End what would go on for ever."""
        self._feed.close()

    # Who may

    def _behind_login(self, endpoint: OfSession) -> Endpoint:
        """Let only those look who have logged in."""

        async def guarded(request: Request) -> Response | Stream:
            self._open(request, "GET")
            return await endpoint(request, self._session(request))

        return guarded

    def _button(self, action: Action) -> Endpoint:
        """Let only the page's own forms do something; then show the page with what was done."""

        async def guarded(request: Request) -> Response:
            self._open(request, "POST")
            fields, _ = await self._form_of_session(request)
            try:
                done = await action(fields)
            except RefusedError as error:
                message = "The collector takes nothing at present. Try again in a moment."
                raise PageError(503, message, RETRY_AFTER, reason=error.reason) from error
            except (StoreError, UserError) as error:
                raise _store_failed(_FAILED) from error
            return redirect(f"/?done={done}")

        return guarded

    def _open(self, request: Request, method: str) -> None:
        """See that the page is there at all.

        Raises:
            HTTPError: 404, it has no secret; 405, another method is needed.
        """
        enabled(self._secrets().read_token)
        check_method(request, method)

    def _session(self, request: Request) -> Session:
        session = self._sessions.of(request)
        if session is None:
            raise PageError(401, "Log in first.", reason=ErrorReason.NO_SESSION, login=True)
        request.admit()
        return session

    async def _form_of_session(self, request: Request) -> tuple[Mapping[str, str], Session]:
        """Read a form, which must be sent by a page of ours, by somebody who has logged in.

        Raises:
            PageError: 401, he has not; 403, it was not.
        """
        _check_origin(request)
        session = self._session(request)
        fields = await _form(request)
        if not session.fits(fields.get("form_token", "")):
            raise PageError(403, "This form is not of your session. Go back and reload the page.")
        return fields, session

    async def _login(self, request: Request) -> Response:
        self._open(request, "POST")
        _check_origin(request)
        self._guesses.begin_login(request.client)
        fields = await _form(request)
        session = self._sessions.begin(fields.get("token", ""))
        if session is None:
            raise PageError(401, "That is not the read token.", login=True)
        self._guesses.right_login(request.client)
        request.admit()
        return redirect("/", set_cookie(request, session))

    async def _logout(self, request: Request) -> Response:
        self._open(request, "POST")
        _, session = await self._form_of_session(request)
        self._sessions.end(session)
        self._feed.wake()  # its streams end
        return redirect("/", set_cookie(request, None))

    # What is shown

    async def _home(self, request: Request) -> Response:
        self._open(request, "GET")
        session = self._sessions.of(request)
        if session is None:
            # A browser that comes by a link on another site brings no cookie, but does so when the
            # page itself sends it here again.
            again = request.header(b"sec-fetch-site") == b"cross-site"
            return login_form(again=again)
        request.admit()
        query = request.query()
        shown = views.Shown(
            base_url=self._public_url or base_url(request),
            is_public=self._public_url is not None,
            webhook_token=next(iter(self._secrets().webhook_token), None),
            form_token=session.form_token,
            collection=_collection(query),
            done=query.get("done", ""),
        )
        return await self._read(request, lambda reader: views.home(reader, shown, times.now()))

    async def _live(self, request: Request, session: Session) -> Response | Stream:
        if request.method == "HEAD":
            return Response(200, b"", EVENT_STREAM, HEADERS)
        query = request.query()
        since = (request.header(b"last-event-id") or b"").decode("latin-1") or query.get("since")
        parts, end = self._feed.watch(
            _collection(query),
            feed.decode_cursor(since) if since else None,
            lambda: self._sessions.holds(session),
        )
        # nginx would keep events back until it has a pageful.
        return Stream(parts, EVENT_STREAM, (*HEADERS, (b"x-accel-buffering", b"no")), end)

    async def _event(self, request: Request, session: Session) -> Response:
        at = request.path.removeprefix("/event/")
        loaded_at = _time(at)
        if loaded_at is None or not (
            line := await self._read(request, lambda one: one.event(loaded_at))
        ):
            raise PageError(404, "There is no such event; it may have been pruned.")
        body = msgspec.json.format(line, indent=2)
        if JSON in (request.header(b"accept") or b""):
            return Response(200, body, JSON, HEADERS)
        return html(
            "event.html",
            form_token=session.form_token,
            at=at,
            entry=entry_of(line),
            text=printable(body.decode()),
        )

    async def _letter(self, request: Request, session: Session) -> Response:
        number = _number(request.path.removeprefix("/dead-letter/"))
        secrets = list(itertools.chain(*self._secrets()))

        def read(reader: Reader) -> tuple[KeptDeadLetter, str] | None:
            kept = find_dead_letter(reader, number)
            return kept and (kept, printable(readable(kept.letter.body, secrets)))

        found = await self._read(request, read)
        if found is None:
            raise PageError(404, "There is no such dead letter; it may be an event by now.")
        kept, text = found
        return html(
            "letter.html",
            form_token=session.form_token,
            letter=snapshot.listed(kept),
            text=text,
        )

    async def _static(self, request: Request) -> Response:
        self._open(request, "GET")
        name = request.path.removeprefix(STATIC_PATH)
        if name not in STATIC_FILES:
            raise nothing_here()
        return static_file(name)

    async def _read(self, request: Request, work: Callable[[Reader], T]) -> T:
        await request.expect_response()
        try:
            async with asyncio.timeout(feed.STORE_SECONDS):
                return await self._reader_pool.read(work)
        except (StoreError, UserError, OSError, TimeoutError) as error:
            logger.error("the store cannot be read: %s", error)  # noqa: TRY400
            raise _store_failed(_UNREADABLE) from error

    # What the buttons do

    async def _send_test_event(self, fields: Mapping[str, str]) -> str:
        del fields
        enabled(self._secrets().webhook_token)
        await actions.send_test_event(self._committer)
        return "test"

    async def _replay(self, fields: Mapping[str, str]) -> str:
        number = _number(fields.get("number", ""))
        return await actions.replay(number, self._reader_pool, self._committer)


def _check_origin(request: Request) -> None:
    if not is_own(request):
        raise PageError(403, "This form was sent by another site.")


async def _form(request: Request) -> Mapping[str, str]:
    """Read the fields of a form.

    Raises:
        PageError: 400, it is none.
        HTTPError: 413, it is too long.
    """
    body = await request.body(MAX_FORM)
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=16, keep_blank_values=True))
    except ValueError as error:
        raise PageError(400, "The form cannot be read.") from error


def _collection(query: Mapping[str, str]) -> str:
    """Return the collection that is asked for; where there is none such, all of them."""
    asked = query.get("collection", "")
    return asked if asked in BY_STREAM else snapshot.EVERYTHING


def _time(text: str) -> int | None:
    try:
        return times.from_text(text) if _LOADED_AT.fullmatch(text) else None
    except ValueError:
        return None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise PageError(404, "There is no such dead letter.")
    return int(text)


def _store_failed(message: str) -> PageError:
    return PageError(503, message, RETRY_AFTER, reason=ErrorReason.STORE_FAILED)
