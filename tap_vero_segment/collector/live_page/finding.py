"""The page to find events by, and the page of one event.

What is searched for can be an address, which has no place in a URL: browsers remember those, and
proxies log them. So the form is posted, and a cookie of the session keeps it; the URL has a keyed
digest of it alone, so that a page that is loaded again shows its own search and no later one.
"""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
from itsdangerous.encoding import base64_decode, base64_encode

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT, COLLECTIONS
from tap_vero_segment.collection import columns as columns_of
from tap_vero_segment.collector.live_page.auth import LIFE_SECONDS
from tap_vero_segment.collector.live_page.snapshot import SHOWN
from tap_vero_segment.collector.live_page.views import PageError, html
from tap_vero_segment.collector.redaction import readable, without_secrets
from tap_vero_segment.collector.searching import (
    FIELDS,
    KEYS,
    MAX_VALUE,
    Hit,
    lag_in_words,
    read_search,
    span_in_words,
)
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.intake import IMPORT, SEGMENT, TRACKING, VERO
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from tap_vero_segment.stores.base import Body, Reader, Search

PAGE: Final = 50
"""Events on a page of results."""

AROUND: Final = 10
"""Events of a story before the one that is shown, and after it."""

MAX_COOKIE: Final = 3_500
"""Characters of the cookie; browsers drop one of more than 4,096 with all that belongs to it."""

MAX_TYPED: Final = 100_000
"""Bytes of a body that a command to copy can have: Linux takes 131,072 in an argument."""

MAX_INDENTED: Final = 256 * 1024
"""Characters of JSON that is shown indented: nested deeply, it is a hundred times as long."""

_MAX_TO_INDENT: Final = MAX_INDENTED // 4
"""Bytes of what is indented, to see how long it becomes."""

_COOKIE: Final = "vero-collector-search"
_DAY: Final = 86_400 * times.SECOND
_DATE: Final = len("2026-11-23")

CAME_BY: Final = {
    VERO: "Vero's webhook",
    TRACKING: "the Tracking API",
    SEGMENT: "Segment's webhook",
    IMPORT: "an import",
}
"""What the page calls an input."""

_LABELS: Final = {
    "recipient": "Recipient",
    "user_id": "User id",
    "email_id": "Message id",
    "campaign": "Campaign",
    "id": "Event id",
}


# The form


def encode_form(fields: Mapping[str, str]) -> str:
    """Return the cookie's value for a form that was sent.

    Raises:
        PageError: 400, it is too long.
    """
    given = {name: fields.get(name, "").strip() for name in ("text", *FIELDS)}
    typed = {name: value for name, value in given.items() if value}
    content = base64_encode(msgspec.json.encode(typed)).decode()
    if len(content) > MAX_COOKIE:
        raise PageError(400, f"That is longer than the {MAX_VALUE} characters to search for.")
    return content


def decode_form(content: str) -> dict[str, str]:
    """Return the form that a cookie keeps, whose digest was right."""
    fields: dict[str, str] = msgspec.json.decode(base64_decode(content))
    return fields


def remember(response: Response, request: Request, content: str) -> None:
    """Give the browser a search to keep; an empty one takes it away."""
    response.set_cookie(
        _COOKIE,
        content,
        max_age=LIFE_SECONDS if content else 0,
        path="/search",
        secure=request["scheme"] == "https",
        httponly=True,
        samesite="Strict",  # type: ignore[arg-type]  # as RFC 6265bis writes it
    )


def remembered(request: Request) -> str:
    """Return the value of the cookie; empty: the browser has none."""
    return request.cookies.get(_COOKIE, "")


def search_of(form: Mapping[str, str]) -> Search:
    """Return what a form asks for: its last day is part of it.

    Raises:
        SettingError: A field cannot be used.
    """
    fields = dict(form)
    if len(fields.get("until", "")) == _DATE:
        try:
            last = times.from_text(fields["until"])
        except ValueError:
            pass  # which is said below
        else:
            fields["until"] = times.to_text(min(last + _DAY, times.LATEST))
    return read_search(fields)


# The pages


class Asked(NamedTuple):
    """What a request wants to see of the search page.

    Attributes:
        form_token: What this session's forms bring along.
        mark: The search's digest; empty: nothing is searched for yet.
        form: The form that was sent; None: it is no longer known.
        before: Only events that were loaded earlier, in microseconds since 1970; None: all.
        after: The page of those that were loaded just later.
    """

    form_token: str
    mark: str
    form: Mapping[str, str] | None
    before: int | None = None
    after: int | None = None


def search_page(reader: Reader, asked: Asked) -> Response:
    """Return the form, and what it has found.

    Raises:
        StoreError: The store cannot be read.
    """
    problem = found = None
    hits: list[Hit] = []
    if asked.form is not None and asked.mark:
        try:
            search = search_of(asked.form)
        except SettingError as error:
            problem = _in_form(error)
        else:
            found = reader.search(search, before=asked.before, after=asked.after, limit=PAGE)
            hits = [Hit.of(line) for line in found.lines]
    form = asked.form or {}
    named = next((name for name in KEYS if name in form), "")
    return html(
        "search.html",
        400 if problem else 200,
        form_token=asked.form_token,
        forgotten=asked.form is None,
        problem=problem,
        text=form.get("text", form.get(named, "")),
        label=_LABELS.get(named, ""),
        form=form,
        collections=COLLECTIONS,
        found=found,
        rows=[_Row.of(hit) for hit in hits],
        link=f"/search?s={asked.mark}",
        older=_cursor(found and found.older),
        newer=_cursor(found and found.newer),
        searched_to=_cursor(found and found.searched_to),
        upwards=asked.after is not None,
    )


def _in_form(error: SettingError) -> str:
    """Say what is wrong in the words of the form."""
    labels = {"since": "First day", "until": "Last day", "text": "Search for", **_LABELS}
    return f"{labels.get(error.setting, error.setting.capitalize())}: {error.problem}."


def _cursor(moment: int | None) -> str:
    return "" if moment is None else times.to_text(moment)


class _Row(NamedTuple):
    """An event in a table or a story.

    Attributes:
        at: Its ``loadedAt``, which names it.
        event: The event's name.
        collection: Its slug.
        happened: When it happened.
        lag: How much later it came; empty: it has no time of its own.
        who: The recipient.
        what: The campaign.
        email: The message's id.
        gap: How long after the one before it happened; empty: it is the first.
    """

    at: str
    event: str
    collection: str
    happened: str
    lag: str
    who: str
    what: str
    email: str | None
    gap: str = ""

    @classmethod
    def of(cls, hit: Hit) -> _Row:
        call, record = hit.call, hit.record
        return cls(
            record["loaded_at"],
            call.event,
            record["event"],
            call.timestamp,
            lag_in_words(call),
            _short(hit.recipient),
            _short(hit.campaign),
            record["email_id"],
        )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


class _Story(NamedTuple):
    """Events that belong together, in the order in which they happened.

    Attributes:
        title: What they have in common.
        rows: The events, the one that is shown among them.
        name: The field of a search that finds all of them,
        value: and what it looks for.
        more: Whether there are more than these.
        searched_to: How far back it was looked; empty: everywhere.
    """

    title: str
    rows: list[_Row]
    name: str
    value: str
    more: bool
    searched_to: str


def _story(reader: Reader, title: str, hit: Hit, name: str, value: str) -> _Story | None:
    """Return the events around one that have a value in common with it.

    None: it is no value that anybody could search for, so that its form would not either.
    """
    try:
        search = read_search({name: value})
    except SettingError:
        return None
    at = times.from_text(hit.record["loaded_at"])
    older = reader.search(search, before=at, limit=AROUND)
    newer = reader.search(search, after=at, limit=AROUND)
    others = [Hit.of(line) for line in (*newer.lines, *older.lines)]
    rows = sorted(map(_Row.of, [hit, *others]), key=lambda row: (row.happened, row.at))
    return _Story(
        title,
        [*rows[:1], *(_after(one, row) for one, row in pairwise(rows))],
        name,
        value,
        more=older.older is not None or newer.newer is not None,
        searched_to=_cursor(older.searched_to),
    )


def _after(one: _Row, row: _Row) -> _Row:
    gap = times.from_text(row.happened) - times.from_text(one.happened)
    return row._replace(gap=span_in_words(gap))


def _stories(reader: Reader, hit: Hit) -> list[_Story]:
    record = hit.record
    sought = [("This message", "email_id", record["email_id"])]
    who = record["context_traits_email"] or record["campaign_sent_to"] or record["anonymous_id"]
    if who:
        sought.append(("This recipient", "recipient", who))
    else:
        sought.append(("This user", "user_id", record["user_id"]))
    found = [_story(reader, title, hit, name, value) for title, name, value in sought if value]
    return [story for story in found if story]


class ShownEvent(NamedTuple):
    """What a request for an event's page brings along.

    Attributes:
        form_token: What this session's forms bring along.
        base_url: The collector's URL: the public one, or as the client has it.
        is_public: Whether it is the public one.
        secrets: What is not shown, wherever it stands.
    """

    form_token: str
    base_url: str
    is_public: bool
    secrets: tuple[str, ...]


def event_page(reader: Reader, loaded_at: int, shown: ShownEvent) -> Response | None:
    """Return the page of an event; None: there is no such event.

    Args:
        reader: The store's reading half.
        loaded_at: The event's, in microseconds since 1970.
        shown: What the request brings along.

    Raises:
        StoreError: The store cannot be read.
    """
    line = reader.event(loaded_at)
    kept = next(iter(reader.bodies(loaded_at - 1, loaded_at, 1)), None)
    if line is None or kept is None:
        return None
    hit = Hit.of(line)
    path = f"/v1/events/search?id={quote(hit.call.message_id, safe='')}"
    columns = columns_of(BY_EVENT[hit.call.event])
    cells = [(column.name, _cell(hit.record[column.name])) for column in columns]
    return html(
        "event.html",
        form_token=shown.form_token,
        row=_Row.of(hit),
        received=hit.call.received_at,
        early=hit.call.received_at < hit.call.timestamp,
        came_by=_came_by(kept.input),
        rebuilt=kept.input.startswith(f"{IMPORT}-"),
        body=_body(kept, shown),
        text=_indented(line),
        record=[(name, value) for name, value in cells if value is not None],
        nulls=[name for name, value in cells if value is None],
        table=hit.record["event"],
        stories=_stories(reader, hit),
        read=(
            'curl -H "Authorization: Bearer $VERO_COLLECTOR_READ_TOKEN" '
            + shlex.quote(shown.base_url + path)
        ),
        base_url=shown.base_url,
        is_public=shown.is_public,
    )


def _came_by(name: str) -> str:
    return CAME_BY.get(name.partition("-")[0], name)


class _Body(NamedTuple):
    """The body of a request, for people.

    Attributes:
        verbatim: As it came.
        indented: Unzipped and indented; None: that would be the same, or too long.
        post: The command that posts it again; None: no command can.
        size: How many bytes it has.
    """

    verbatim: str
    indented: str | None
    post: str | None
    size: int


def _body(kept: Body, shown: ShownEvent) -> _Body | None:
    if not kept.body:
        return None
    text = kept.body.decode(errors="backslashreplace")
    verbatim = printable(without_secrets(text, shown.secrets))
    indented = posted = None
    if len(kept.body) <= _MAX_TO_INDENT:
        indented = printable(readable(kept.body, shown.secrets))
        if indented == verbatim or len(indented) > MAX_INDENTED:
            indented = None
    # What is not shown as it came cannot be copied as it came either.
    if len(kept.body) <= MAX_TYPED and verbatim.encode() == kept.body:
        posted = (
            "curl -X POST -H 'Content-Type: application/json' --data-raw "
            f"{shlex.quote(verbatim)} {shlex.quote(shown.base_url)}"
            '/vero/"$VERO_COLLECTOR_WEBHOOK_TOKEN"'
        )
    return _Body(verbatim, indented, posted, len(kept.body))


def _indented(line: bytes) -> str:
    text = line
    if len(line) <= _MAX_TO_INDENT:
        text = msgspec.json.format(line, indent=2)
    return printable((text if len(text) <= MAX_INDENTED else line).decode(), is_json=True)


def _cell(value: Any) -> str | None:
    """Return a column's value as the warehouse shows it; None: null."""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    return None if value is None else str(value)
