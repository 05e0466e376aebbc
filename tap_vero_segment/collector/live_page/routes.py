"""The live page's endpoints, and who may have them."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route

from tap_vero_segment import times
from tap_vero_segment.collection import BY_STREAM
from tap_vero_segment.collector.commands.dead_letters import find_dead_letter
from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.collector.live_page import (
    actions,
    chart,
    dead_letters,
    feed,
    finding,
    snapshot,
    views,
)
from tap_vero_segment.collector.live_page.auth import (
    Session,
    Sessions,
    base_url,
    is_own,
    set_cookie,
)
from tap_vero_segment.collector.live_page.views import (
    HEADERS,
    PageError,
    html,
    login_form,
    redirect,
)
from tap_vero_segment.collector.redaction import readable
from tap_vero_segment.collector.request import bare, same_secret
from tap_vero_segment.collector.responses import JSON, RETRY_AFTER, enabled
from tap_vero_segment.errors import UserError
from tap_vero_segment.limits import MAX_FORM
from tap_vero_segment.stores.base import LetterHead, StoreError
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from starlette.types import Message, Receive, Scope, Send

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.guesses import Guesses
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.collector.settings import Secrets
    from tap_vero_segment.stores.base import KeptDeadLetter, Reader

    T = TypeVar("T")
    Endpoint = Callable[[Request], Awaitable[Response]]
    OfSession = Callable[[Request, Session], Awaitable[Response]]
    Action = Callable[[Mapping[str, str]], Awaitable[str]]


logger = logging.getLogger("vero-collector")
_EVENT_STREAM: Final = {
    **HEADERS,
    "content-type": "text/event-stream",
    "x-accel-buffering": "no",  # nginx would keep events back until it has a pageful
}
_FAILED: Final = "The store failed, nothing was kept."
_NO_EVENT: Final = "There is no such event; it may have been pruned or erased."
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
        self._feed = feed.Feed(reader_pool, committer.accepts_writes)
        self._many = dead_letters.Many(reader_pool, committer)
        self._sessions = Sessions(lambda: secrets().read_token)
        self.routes: list[BaseRoute] = [
            Route("/", self._home),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/live", self._behind_login(self._live)),
            Route("/search", self._search, methods=["GET", "POST"]),
            Route("/event/{at:path}", self._behind_login(self._event)),
            Route("/dead-letter/{number:path}", self._behind_login(self._letter)),
            Route("/test-event", self._button(self._send_test_event), methods=["POST"]),
            Route("/replay", self._button(self._replay), methods=["POST"]),
            Route("/delete", self._button(self._delete), methods=["POST"]),
            Route("/chart", self._behind_login(self._chart)),
            Route(dead_letters.PATH, self._behind_login(self._letters)),
            Route(f"{dead_letters.PATH}/delete", self._behind_login(self._confirm_delete)),
            Mount(views.STATIC_PATH, views.Static()),
        ]
        """Without a read token the application serves none of them."""

    def secrets_changed(self) -> None:
        """End the streams of sessions that have ended."""
        self._feed.wake()

    def close(self) -> None:
        """End what would go on for ever."""
        self._feed.close()
        self._many.close()

    # Who may

    def _behind_login(self, endpoint: OfSession) -> Endpoint:
        """Let only those look who have logged in."""

        async def guarded(request: Request) -> Response:
            return await endpoint(request, self._session(request))

        return guarded

    def _button(self, action: Action) -> Endpoint:
        """Let only the page's own forms do something; then show the page with what was done."""

        async def guarded(request: Request) -> Response:
            fields, _ = await self._form_of_session(request)
            try:
                done = await action(fields)
            except RefusedError as error:
                message = "The collector takes nothing at present. Try again in a moment."
                raise PageError(503, message, RETRY_AFTER, reason=error.reason) from error
            except (StoreError, UserError) as error:
                raise _store_failed(_FAILED) from error
            path = dead_letters.PATH if fields.get("back") else "/"
            return redirect(f"{path}?done={done}")

        return guarded

    def _session(self, request: Request) -> Session:
        session = self._sessions.of(request)
        if session is None:
            raise PageError(401, "Log in first.", reason=ErrorReason.NO_SESSION, login=True)
        bare(request).admit()
        return session

    async def _form_of_session(self, request: Request) -> tuple[Mapping[str, str], Session]:
        """Read a form, which a page of ours must have sent, in a session.

        Raises:
            PageError: 401, there is no session; 403, another page has sent it.
        """
        _check_origin(request)
        session = self._session(request)
        fields = await _form(request)
        if not session.fits(fields.get("form_token", "")):
            raise PageError(403, "This form is not of your session. Go back and reload the page.")
        return fields, session

    async def _login(self, request: Request) -> Response:
        _check_origin(request)
        client = bare(request).client
        self._guesses.begin_login(client)
        fields = await _form(request)
        session = self._sessions.begin(fields.get("token", ""))
        if session is None:
            raise PageError(401, "That is not the read token.", login=True)
        self._guesses.right_login(client)
        bare(request).admit()
        return _home_with_cookie(request, session)

    async def _logout(self, request: Request) -> Response:
        _, session = await self._form_of_session(request)
        self._sessions.end(session)
        self._feed.wake()  # its streams end
        response = _home_with_cookie(request, None)
        finding.remember(response, request, "")
        return response

    # What is shown

    async def _home(self, request: Request) -> Response:
        session = self._sessions.of(request)
        if session is None:
            # A browser that comes by a link on another site brings no cookie, but does so when the
            # page itself sends it here again.
            return login_form(again=request.headers.get("sec-fetch-site") == "cross-site")
        bare(request).admit()
        query = request.query_params
        shown = views.Shown(
            base_url=self._public_url or base_url(request),
            is_public=self._public_url is not None,
            webhook_token=next(iter(self._secrets().webhook_token), None),
            form_token=session.form_token,
            collection=_collection(query),
            done=query.get("done", ""),
            range=_range(query),
            writable=await self._committer.accepts_writes(),
        )
        return await self._read(request, lambda reader: views.home(reader, shown, times.now()))

    async def _chart(self, request: Request, session: Session) -> Response:
        del session
        query = request.query_params
        shown, only = _range(query), _collection(query)
        drawn = await self._read(
            request, lambda reader: chart.read(reader, shown, only, times.now())
        )
        return _json(msgspec.json.encode(drawn))

    async def _live(self, request: Request, session: Session) -> Response:
        if request.method == "HEAD":
            return Response(headers=_EVENT_STREAM)
        query = request.query_params
        since = request.headers.get("last-event-id") or query.get("since")
        parts, end = self._feed.watch(
            _collection(query),
            feed.decode_cursor(since) if since else None,
            lambda: self._sessions.holds(session),
        )
        return _Stream(parts, end)

    async def _search(self, request: Request) -> Response:
        """Take the form of the search page, or show the page with what the form has found."""
        if request.method == "POST":
            fields, session = await self._form_of_session(request)
            content = finding.encode_form(fields)
            response = redirect(f"/search?s={session.mark(content)}")
            finding.remember(response, request, content)
            return response
        session = self._session(request)
        query = request.query_params
        content, mark = finding.remembered(request), query.get("s", "")
        form: Mapping[str, str] | None = {}
        if mark:
            known = same_secret(mark.encode(errors="replace"), session.mark(content))
            form = finding.decode_form(content) if known else None
        before, after = (_time(query.get(name, "")) for name in ("before", "after"))
        asked = finding.Asked(session.form_token, mark, form, before, after)
        return await self._read(request, lambda reader: finding.search_page(reader, asked))

    async def _event(self, request: Request, session: Session) -> Response:
        loaded_at = _time(request.path_params["at"])
        if loaded_at is None:
            raise PageError(404, _NO_EVENT)
        if _wants_json(request):
            line = await self._read(request, lambda reader: reader.event(loaded_at))
            if line:
                return _json(msgspec.json.format(line, indent=2))
            raise PageError(404, _NO_EVENT)
        shown = finding.ShownEvent(
            session.form_token,
            self._public_url or base_url(request),
            self._public_url is not None,
            tuple(itertools.chain(*self._secrets())),
        )
        page = await self._read(
            request, lambda reader: finding.event_page(reader, loaded_at, shown)
        )
        if page is None:
            raise PageError(404, _NO_EVENT)
        return page

    async def _letter(self, request: Request, session: Session) -> Response:
        number = _number(request.path_params["number"])
        secrets = list(itertools.chain(*self._secrets()))

        def read(reader: Reader) -> tuple[KeptDeadLetter, str] | None:
            kept = find_dead_letter(reader, number)
            return kept and (kept, printable(readable(kept.letter.body, secrets)))

        found = await self._read(request, read)
        if found is None:
            raise PageError(404, "There is no such dead letter; it may be an event by now.")
        kept, text = found
        letter = kept.letter
        head = LetterHead(
            kept.number, letter.received_at, letter.input, letter.reason, len(letter.body)
        )
        entry = snapshot.entry_of_letter(head)
        if _wants_json(request):
            return _json(msgspec.json.encode({**msgspec.structs.asdict(entry), "body": text}))
        return html("letter.html", form_token=session.form_token, letter=entry, text=text)

    async def _letters(self, request: Request, session: Session) -> Response:
        query = request.query_params
        secrets = list(itertools.chain(*self._secrets()))
        listing = await self._read(
            request, lambda reader: dead_letters.read(reader, query, secrets)
        )
        if _wants_json(request):
            return _json(msgspec.json.encode(listing))
        return views.dead_letters(
            listing, self._many.progress, session.form_token, query.get("done", "")
        )

    async def _confirm_delete(self, request: Request, session: Session) -> Response:
        query = request.query_params
        number = _number(query["number"]) if "number" in query else None
        letters, those = await self._read(
            request, lambda reader: dead_letters.count(reader, query.get("reason"))
        )
        return html(
            "delete.html",
            form_token=session.form_token,
            number=number,
            letters=letters,
            those=those,
        )

    async def _read(self, request: Request, work: Callable[[Reader], T]) -> T:
        await bare(request).expect_response()
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
        if "number" not in fields:
            return await self._many.replay(dead_letters.chosen(fields))
        number = _number(fields["number"])
        return await actions.replay(number, self._reader_pool, self._committer)

    async def _delete(self, fields: Mapping[str, str]) -> str:
        if "number" not in fields:
            return await self._many.delete(dead_letters.chosen(fields))
        return await actions.delete(_number(fields["number"]), self._committer)


def _check_origin(request: Request) -> None:
    if not is_own(request):
        raise PageError(403, "This form was sent by another site.")


async def _form(request: Request) -> Mapping[str, str]:
    """Read the fields of a form.

    Raises:
        PageError: 400, it cannot be read.
        HTTPError: 413, it is too long.
    """
    body = await bare(request).body(MAX_FORM)

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    try:
        form = await Request(request.scope, receive).form(max_files=0, max_fields=16)
    except HTTPException as error:
        raise PageError(400, "The form cannot be read.") from error
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _home_with_cookie(request: Request, session: Session | None) -> Response:
    response = redirect("/")
    set_cookie(response, request, session)
    return response


class _Stream(StreamingResponse):
    """A response that goes on until its parts end or the client goes away.

    Args:
        parts: What is sent.
        end: Called when it has ended, even before its first part.
    """

    def __init__(self, parts: AsyncGenerator[bytes], end: Callable[[], None]) -> None:
        super().__init__(parts, headers=_EVENT_STREAM)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def _collection(query: Mapping[str, str]) -> str:
    """Return the collection that is asked for; where there is none such, all of them."""
    asked = query.get("collection", "")
    return asked if asked in BY_STREAM else snapshot.EVERYTHING


def _range(query: Mapping[str, str]) -> str:
    """Return how far back the chart is to go; where there is no such range, a day."""
    asked = query.get("range", "")
    return asked if asked in chart.RANGES else chart.DEFAULT


def _wants_json(request: Request) -> bool:
    return JSON in request.headers.get("accept", "")


def _json(body: bytes) -> Response:
    return Response(body, headers=HEADERS, media_type=JSON)


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
