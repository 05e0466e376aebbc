"""Who may use the live page: sessions, and forms of its own pages only.

A session is a cookie that every collector with the same read token believes. It ends after twelve
hours, and when the read token that it was begun with is no longer valid. Nothing is kept on the
server except which sessions were logged out of here, and that for as long as they would have run: a
collector believes no cookie from before its own start, as it cannot know which of them were logged
out of. Another collector goes on believing their cookies, which the browser has thrown away, until
they end or it starts again.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from itsdangerous import BadSignature, Signer

from tap_vero_segment import times
from tap_vero_segment.collector.request import same_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response


LIFE_SECONDS: Final = 12 * 3600
MAX_ENDED: Final = 10_000
"""Sessions that were logged out of; beyond, the one that was first is forgotten."""

_COOKIE: Final = "vero-collector"


class Session(NamedTuple):
    """The session of a person who has logged in.

    Attributes:
        cookie: The cookie's value: when the session ends, the form token, and the proof of both.
    """

    cookie: str

    @property
    def ends(self) -> float:
        """When it ends, in seconds since 1970."""
        # Proven to be ours, so it is a number.
        return int(self.cookie.split(".")[0]) / times.SECOND

    @property
    def form_token(self) -> str:
        """What a form of this session must bring along, which no other site can know."""
        return self.cookie.split(".")[1]

    def mark(self, content: str) -> str:
        """Return a keyed digest, which may stand in a URL where the content may not."""
        signer = Signer(self.form_token, "vero-collector search", digest_method=hashlib.sha256)
        return signer.get_signature(content).decode()

    def fits(self, form_token: str) -> bool:
        """Return whether a form was made for this session."""
        return same_secret(form_token.encode(errors="replace"), self.form_token)


def begin(given: str, tokens: Sequence[str], now: float) -> Session | None:
    """Return a new session, if the token that was given is right.

    Args:
        given: What was typed in.
        tokens: The read tokens.
        now: Seconds since 1970.
    """
    typed = given.strip().encode(errors="replace")
    # The token it was begun with is the key, so that the session ends with it.
    right = [token for token in tokens if same_secret(typed, token)]
    if not right:
        return None
    content = f"{int((now + LIFE_SECONDS) * times.SECOND)}.{secrets.token_hex(32)}"
    return Session(_signer(right).sign(content).decode())


def session_of(
    cookie: str, tokens: Sequence[str], now: float, since: float = 0.0
) -> Session | None:
    """Return the session of a cookie, if it is one and has not ended.

    Args:
        cookie: The cookie's value.
        tokens: The read tokens.
        now: Seconds since 1970.
        since: The same; a session that was begun before is not believed.
    """
    try:
        _signer(tokens).unsign(cookie)
    except BadSignature:
        return None
    session = Session(cookie)
    return session if now < session.ends and since + LIFE_SECONDS <= session.ends else None


def _signer(tokens: Sequence[str]) -> Signer:
    return Signer(tokens, "vero-collector session", digest_method=hashlib.sha256)


class Sessions:
    """Gives sessions to those who log in, and knows them again.

    Args:
        tokens: Returns the read tokens of the moment.
        clock: Returns the seconds since 1970.
    """

    def __init__(
        self, tokens: Callable[[], Sequence[str]], clock: Callable[[], float] = time.time
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._since = clock()
        self._ended: dict[str, float] = {}  # when they would have, by their cookies

    def begin(self, given: str) -> Session | None:
        """Return a new session, if the read token is right."""
        return begin(given, self._tokens(), self._clock())

    def of(self, request: Request) -> Session | None:
        """Return the session of a request, if it has one."""
        cookie = request.cookies.get(_name(request))
        return None if cookie is None else self._session_of(cookie)

    def holds(self, session: Session) -> bool:
        """Return whether a session goes on."""
        return self._session_of(session.cookie) is not None

    def end(self, session: Session) -> None:
        """Believe a session's cookie no more."""
        now = self._clock()
        self._ended = {cookie: ends for cookie, ends in self._ended.items() if now < ends}
        if len(self._ended) >= MAX_ENDED:
            del self._ended[next(iter(self._ended))]
        self._ended[session.cookie] = session.ends

    def _session_of(self, cookie: str) -> Session | None:
        session = session_of(cookie, self._tokens(), self._clock(), self._since)
        return None if cookie in self._ended else session


def set_cookie(response: Response, request: Request, session: Session | None) -> None:
    """Give the browser its session, or take it away."""
    response.set_cookie(
        _name(request),
        session.cookie if session else "",
        max_age=LIFE_SECONDS if session else 0,
        secure=request["scheme"] == "https",
        httponly=True,
        samesite="Strict",  # type: ignore[arg-type]  # as RFC 6265bis writes it
    )


def _name(request: Request) -> str:
    """Return the cookie's name; by its beginning, browsers take it from this very host only."""
    return f"__Host-{_COOKIE}" if request["scheme"] == "https" else _COOKIE


_HOST: Final = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::[0-9]{1,5})?"
)

UNKNOWN_HOST: Final = "collector.example"
"""Stands in a URL where the request names no host that could."""


def is_own(request: Request) -> bool:
    """Return whether a request was made by a page of this collector, or by no page at all.

    A browser says so in ``Sec-Fetch-Site``, or, where it does not trust the connection, in
    ``Origin``. A client that sends neither is not a browser of today, and has no session of one.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return True
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return netloc.lower() == (_host(request) or "").lower() != ""


def base_url(request: Request) -> str:
    """Return the collector's URL as the client has it, without a slash at its end."""
    return f"{request['scheme']}://{_host(request) or UNKNOWN_HOST}"


def _host(request: Request) -> str | None:
    given = request.headers.get("host", "")
    return given if _HOST.fullmatch(given) else None
