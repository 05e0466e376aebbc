"""The live page as its template sees it."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from tap_vero_segment import times
from tap_vero_segment.collection import BY_STREAM, COLLECTIONS
from tap_vero_segment.collector.commands.repair_clock import clock_warning
from tap_vero_segment.collector.page import snapshot, sparkline
from tap_vero_segment.collector.page.answers import html
from tap_vero_segment.collector.page.feed import encode_cursor

if TYPE_CHECKING:
    from tap_vero_segment.collector.page.snapshot import Snapshot
    from tap_vero_segment.collector.responses import Response
    from tap_vero_segment.stores.base import Reader

MAX_EVENTS: Final = 20
"""Events in the list when the page is loaded."""

ARRIVING_SECONDS: Final = 15 * 60
"""How old the last event may be, and events still be said to arrive."""

FUTURE: Final = 60_000
"""Milliseconds that the last event may be in the future, as not all machines' clocks agree."""

_VERSION: Final = version("tap-vero-segment")

DONE: Final = {
    "test": "A test event was sent the way of a webhook, and has arrived.",
    "stored": "The quarantined body is an event now.",
    "known": "The quarantined body held nothing new, and is gone.",
    "stays": "The quarantined body still cannot be mapped, and stays.",
    "gone": "That quarantined body is no longer there.",
}
"""What is said of what a button has done."""


class Shown(NamedTuple):
    """What a request wants to see, and may.

    Attributes:
        base_url: The collector's URL as the client has it.
        webhook_token: What Vero's URL ends with; None: its door is shut.
        form_token: What this session's forms bring along.
        collection: Whose events are listed; ``EVERYTHING``: those of all.
        done: What a button has done, a key of ``DONE``; anything else: nothing.
    """

    base_url: str
    webhook_token: str | None
    form_token: str
    collection: str
    done: str


def home(reader: Reader, shown: Shown, now: int) -> Response:
    """Return the page.

    Raises:
        StoreError: The store cannot be read.
    """
    seen = snapshot.read(reader, now, {shown.collection}, MAX_EVENTS)
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
        state=state(last, now),
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
        webhook_url=webhook_url,
        source=shlex.quote(shown.base_url),
        version=_VERSION,
    )


def _groups(seen: Snapshot) -> list[tuple[str, list[snapshot.Row]]]:
    """Part the rows into those that a tap loads by itself and the others."""
    emails = [row for row in seen.rows if BY_STREAM[row.collection].email]
    others = [row for row in seen.rows if not BY_STREAM[row.collection].email]
    return [("Loaded by default", emails), ("Loaded when selected", others)]


def state(last: int | None, now: int) -> str:
    """Return how things are: ``nothing`` has come yet, events are ``arriving``, or it is ``quiet``.

    Args:
        last: When the last event came, in milliseconds since 1970.
        now: Microseconds since 1970.
    """
    if last is None:
        return "nothing"
    since = now // 1_000 - last
    return "arriving" if -FUTURE <= since < ARRIVING_SECONDS * 1_000 else "quiet"


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
