"""The live page in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.collector.live_page import views
from tap_vero_segment.collector.live_page.routes import EVENT_STREAM
from tap_vero_segment.collector.live_page.views import STATIC_FILES
from tap_vero_segment.collector.responses import JSON
from tap_vero_segment.limits import MAX_FORM

_HTML: Final = views.HTML.decode()
_TEXT: Final[dict[str, Any]] = {"schema": {"type": "string"}}

OPEN: Final[list[dict[str, list[str]]]] = []
SESSION: Final[list[dict[str, list[str]]]] = [{"session": []}]

SECURITY_SCHEME: Final = {
    "type": "apiKey",
    "in": "cookie",
    "name": "vero-collector",
    "description": "The session of the live page; over TLS, `__Host-` stands before the name.",
}


def paths(everywhere: tuple[int, ...]) -> dict[str, Any]:
    """Return the page's paths.

    Args:
        everywhere: What any endpoint of the collector can answer.
    """
    return {
        "/": _looked_at("page", "The live page, or the form to log in.", OPEN, everywhere),
        "/login": {"post": _login(everywhere)},
        "/logout": {"post": _form("logout", "End the session.", {}, everywhere)},
        "/live": _looked_at(
            "live",
            "What changes, as it changes, as server-sent events.",
            SESSION,
            (*everywhere, 401),
            _watching(),
            EVENT_STREAM.decode(),
        ),
        "/event/{loaded_at}": _looked_at(
            "event",
            "An event, as a page or, where JSON is asked for, as it is.",
            SESSION,
            (*everywhere, 401),
            [_in_path("loaded_at", {"type": "string", "format": "date-time"})],
            _HTML,
            JSON.decode(),
        ),
        "/dead-letter/{number}": _looked_at(
            "deadLetter",
            "A quarantined body.",
            SESSION,
            (*everywhere, 401),
            [_in_path("number", {"type": "integer", "minimum": 1})],
        ),
        "/replay": {
            "post": _form(
                "replay",
                "Read a quarantined body again.",
                {"number": {"type": "integer", "minimum": 1}},
                everywhere,
            )
        },
        "/test-event": {
            "post": _form("sendTestEvent", "Take a webhook that says it is a test.", {}, everywhere)
        },
        "/static/{name}": _looked_at(
            "static",
            "What the pages are made of.",
            OPEN,
            everywhere,
            [_in_path("name", {"enum": list(STATIC_FILES)})],
            *(kind.decode() for kind in STATIC_FILES.values()),
        ),
    }


def _looked_at(
    name: str,
    summary: str,
    security: list[dict[str, list[str]]],
    statuses: tuple[int, ...],
    parameters: Any = (),
    *kinds: str,
) -> dict[str, Any]:
    content = dict.fromkeys(kinds or (_HTML,), _TEXT)
    operation = {
        "summary": summary,
        "security": security,
        "parameters": list(parameters),
        "responses": {"200": {"description": "Here.", "content": content}, **_refusals(statuses)},
    }
    return {
        "get": {"operationId": name, **operation},
        "head": {"operationId": f"{name}Head", **operation},
    }


def _login(everywhere: tuple[int, ...]) -> dict[str, Any]:
    return {
        "operationId": "login",
        "summary": "Begin a session of the live page.",
        "security": OPEN,
        "requestBody": _fields({"token": {"type": "string", "format": "password"}}),
        "responses": {"303": _see_other(), **_refusals((*everywhere, 401, 413, 429))},
    }


def _form(
    name: str, summary: str, fields: dict[str, Any], everywhere: tuple[int, ...]
) -> dict[str, Any]:
    token = {
        "type": "string",
        "description": "In the forms of the session's own pages; no other site can know it.",
    }
    return {
        "operationId": name,
        "summary": summary,
        "security": SESSION,
        "requestBody": _fields({"form_token": token, **fields}),
        "responses": {"303": _see_other(), **_refusals((*everywhere, 401, 413))},
    }


def _fields(fields: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": list(fields), "properties": fields}
    return {
        "required": True,
        "description": f"At most {MAX_FORM} bytes.",
        "content": {"application/x-www-form-urlencoded": {"schema": schema}},
    }


def _see_other() -> dict[str, Any]:
    location = {"required": True, "schema": {"type": "string", "pattern": "^/"}}
    return {
        "description": "Done: the live page shows it.",
        "headers": {"Location": location},
        "content": {_HTML: _TEXT},
    }


def _watching() -> list[dict[str, Any]]:
    cursor = {"type": "string", "pattern": "^[0-9TZ:.-]*~[0-9]+$"}
    return [
        {
            "name": "collection",
            "in": "query",
            "description": "Whose events are told; unset or empty: those of all.",
            "schema": {"enum": ["", *(collection.stream for collection in COLLECTIONS)]},
        },
        {
            "name": "since",
            "in": "query",
            "description": "The id of the last message that was seen; unset: from now on.",
            "schema": cursor,
        },
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The same; it comes first.",
            "schema": cursor,
        },
    ]


def _in_path(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _refusals(statuses: tuple[int, ...]) -> dict[str, Any]:
    """Return refusals as the other endpoints have them, and as pages for people."""
    return {str(status): _refusal(status) for status in sorted(statuses)}


def _refusal(status: int) -> dict[str, Any]:
    kinds = {_HTML: _TEXT, "text/plain": _TEXT}
    kinds[JSON.decode()] = {"schema": {"$ref": "#/components/schemas/Error"}}
    answer: dict[str, Any] = {
        "description": "A page or, before a page is known to be meant, as elsewhere.",
        "content": kinds,
    }
    if status in _HEADERS:
        name = _HEADERS[status]
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"}}
    return answer


_HEADERS: Final = {405: "Allow", 429: "Retry-After", 503: "Retry-After"}
