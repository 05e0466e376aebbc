"""The live page's responses: HTML that may load nothing except its own style and script."""

from __future__ import annotations

import hashlib
import mimetypes
import shlex
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from tap_vero_segment import times
from tap_vero_segment.collection import BY_STREAM, COLLECTIONS
from tap_vero_segment.collector.commands.repair_clock import clock_warning
from tap_vero_segment.collector.live_page import chart, snapshot, sparkline
from tap_vero_segment.collector.live_page.actions import TEST
from tap_vero_segment.collector.live_page.feed import encode_cursor
from tap_vero_segment.collector.responses import NO_STORE, HTTPError
from tap_vero_segment.collector.settings import url_warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from tap_vero_segment.collector.error_reasons import ErrorReason
    from tap_vero_segment.collector.live_page.dead_letters import Listing, Progress
    from tap_vero_segment.collector.live_page.snapshot import RefusedEntry, Snapshot
    from tap_vero_segment.stores.base import Reader


# Python's own table differs from one version to the next, and a system's may be older.
mimetypes.add_type("text/javascript", ".js")

STATIC_PATH: Final = "/static"
STATIC_FILES: Final = ("page.css", "page.js", "icon.svg")


class Static(StaticFiles):
    """The files that pages load: a browser keeps them for ever."""

    def __init__(self) -> None:
        super().__init__(packages=[(__package__, "static")])

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        """Return a file, or that it is still the same."""
        response = super().file_response(*arguments, **more)
        response.headers["x-content-type-options"] = "nosniff"
        # Whoever asks for another content asks for another URL.
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response


@cache
def static_urls() -> Mapping[str, str]:
    """Return the files' URLs by their names; another content has another URL."""
    directory = files(__package__).joinpath("static")
    contents = {name: directory.joinpath(name).read_bytes() for name in STATIC_FILES}
    return {
        name: f"{STATIC_PATH}/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
        for name, content in contents.items()
    }


_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    # A script that would make HTML of text is stopped.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
POLICY: Final = "; ".join(f"{name} {value}" for name, value in _POLICY.items())

HEADERS: Final = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    **NO_STORE,
}

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader(__package__, "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.globals["static"] = static_urls()


def html(name: str, status: int = 200, **context: Any) -> Response:
    """Return a page.

    Args:
        name: The template.
        status: The HTTP status.
        context: What the template shows; all of it is text.
    """
    return HTMLResponse(_ENVIRONMENT.get_template(name).render(context), status, HEADERS)


@cache
def login_form(*, again: bool) -> Response:
    """Return the form to log in, which everybody may have, so that it must cost nothing.

    Args:
        again: Whether the browser shall come again by itself.
    """
    return html("login.html", message=None, again=again)


def redirect(path: str) -> Response:
    """Return the response to a form that was taken: look there."""
    return RedirectResponse(path, 303, HEADERS)


class PageError(HTTPError):
    """A response that ends the handling of a request, as a page that a person can read.

    Args:
        status: The HTTP status.
        message: What went wrong; it repeats nothing of the request.
        headers: Further headers of the response.
        reason: What the metrics count it as; None: what the status means.
        login: Whether the page asks for the read token.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: ErrorReason | None = None,
        login: bool = False,
    ) -> None:
        super().__init__(status, message, headers, reason=reason)
        self._login = login

    def response(self) -> Response:
        """Return the page."""
        template = "login.html" if self._login else "error.html"
        page = html(template, self.status, message=self.message, again=False)
        page.headers.update(self.headers)
        return page


MAX_EVENTS: Final = 20
"""Events in the list when the page is loaded."""

ARRIVING_SECONDS: Final = 15 * 60
"""How old the last event may be, and events still be said to arrive."""

FUTURE: Final = 60_000
"""Milliseconds that the last event may be in the future, as not all machines' clocks agree."""

_VERSION: Final = version("tap-vero-segment")

DONE: Final = {
    "test": "A test event was sent the way of a webhook, and has arrived.",
    "stored": "The dead letter is an event now.",
    "known": "The dead letter held nothing new, and is gone.",
    "stays": "The dead letter still cannot be mapped, and stays.",
    "gone": "That dead letter is no longer there.",
    "deleted": "The dead letter was deleted.",
    "busy": "Dead letters are being replayed or deleted already. Wait until that has ended.",
}
"""What is said of what a button has done."""


class Shown(NamedTuple):
    """What a request wants to see, and may.

    Attributes:
        base_url: The collector's URL: the public one, or as the client has it.
        is_public: Whether it is the public one.
        webhook_token: What Vero's URL ends with; None: its endpoint is disabled.
        form_token: What this session's forms bring along.
        collection: Whose events are listed; ``EVERYTHING``: those of all.
        done: What a button has done, a key of ``DONE``; anything else: nothing.
        range: How far back the chart goes, a key of ``chart.RANGES``.
        writable: Whether the store accepts writes.
    """

    base_url: str
    is_public: bool
    webhook_token: str | None
    form_token: str
    collection: str
    done: str
    range: str
    writable: bool


def home(reader: Reader, shown: Shown, now: int) -> Response:
    """Return the page.

    Raises:
        StoreError: The store cannot be read.
    """
    seen = snapshot.read(
        reader, now, {snapshot.EVERYTHING, shown.collection}, MAX_EVENTS, writable=shown.writable
    )
    webhook_url = (
        None
        if shown.webhook_token is None
        else f"{shown.base_url}/vero/{quote(shown.webhook_token, safe='')}"
    )
    last = seen.last
    return html(
        "home.html",
        form_token=shown.form_token,
        done=DONE.get(shown.done),
        warning=clock_warning(reader.clock_behind()),
        now=now // 1_000,
        today=times.to_text(now)[:10],
        time_of=lambda at: times.to_text(at * 1_000),
        refusing=next((each for each in seen.refused if _is_recent(each, now)), None),
        state=state(last, now, writable=seen.writable),
        is_set_up=_is_real(seen),
        chart=chart.read(reader, shown.range, shown.collection, now),
        chart_box=f"0 0 {chart.WIDTH} {chart.HEIGHT}",
        ranges=chart.RANGES,
        range=shown.range,
        last_age=age(last, now),
        last=last,
        seen=seen,
        names={collection.stream: collection.event for collection in COLLECTIONS},
        groups=_groups(seen),
        ages={row.collection: age(row.last, now) for row in seen.rows},
        box=f"0 0 {sparkline.WIDTH} {sparkline.HEIGHT}",
        collection=shown.collection,
        cursor=encode_cursor(seen.cursor(shown.collection)),
        base_url=shown.base_url,
        is_public=shown.is_public,
        url_warning=url_warning(shown.base_url),
        webhook_url=webhook_url,
        source=shlex.quote(shown.base_url),
        version=_VERSION,
    )


def _groups(seen: Snapshot) -> list[tuple[str, list[snapshot.Row]]]:
    """Part the rows into those that a tap loads by itself and the others."""
    emails = [row for row in seen.rows if BY_STREAM[row.collection].email]
    others = [row for row in seen.rows if not BY_STREAM[row.collection].email]
    return [("", emails), ("loaded only when selected", others)]


def dead_letters(
    listing: Listing, progress: Progress | None, form_token: str, done: str
) -> Response:
    """Return the page of the dead letters.

    Args:
        listing: What it shows.
        progress: What was done to many of them, or is being done.
        form_token: What this session's forms bring along.
        done: What a button has done, as in :class:`Shown`.
    """
    running = progress is not None and not progress.result
    return html(
        "dead_letters.html",
        listing=listing,
        progress=progress if running or done == "many" else None,
        done=DONE.get(done),
        form_token=form_token,
    )


def _is_real(seen: Snapshot) -> bool:
    """Return whether something else than test events has come."""
    newest = seen.newest[snapshot.EVERYTHING]
    return seen.events() > len(newest) or any(entry.what != TEST for entry in newest)


def _is_recent(refused: RefusedEntry, now: int) -> bool:
    return refused.alarms and now // 1_000 - refused.at < ARRIVING_SECONDS * 1_000


def state(last: int | None, now: int, *, writable: bool) -> str:
    """Return how things are.

    The store accepts no writes (``unwritable``), ``nothing`` has come yet, events are
    ``arriving``, it is ``quiet``, or the last event is ``ahead`` of the clock, so that nothing can
    be said.

    Args:
        last: When the last event came, in milliseconds since 1970.
        now: Microseconds since 1970.
        writable: Whether the store accepts writes.
    """
    if not writable:
        return "unwritable"
    if last is None:
        return "nothing"
    since = now // 1_000 - last
    if since < -FUTURE:
        return "ahead"
    return "arriving" if since < ARRIVING_SECONDS * 1_000 else "quiet"


def age(last: int | None, now: int) -> str:
    """Return how long ago something was, in the greatest unit; empty: never; ``?``: in the future.

    Args:
        last: Milliseconds since 1970.
        now: Microseconds since 1970.
    """
    if last is None:
        return ""
    if now // 1_000 - last < -FUTURE:
        return "?"
    seconds = max(0, now // 1_000 - last) // 1_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
