"""``GET /openapi.json``: the collector's endpoints as an OpenAPI document.

It is made from the constants that the endpoints themselves use, so that it cannot tell otherwise.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.collector.endpoints import events, tracking
from tap_vero_segment.collector.live_page import described
from tap_vero_segment.collector.responses import JSON, NDJSON, NO_STORE, RETRY_AFTER, Response
from tap_vero_segment.limits import MAX_BODY, MAX_CALL, MAX_CALLS

_JSON: Final = JSON.decode()
_TEXT: Final = "text/plain"
_OPENMETRICS: Final = "application/openmetrics-text"

_OPEN: Final[list[dict[str, list[str]]]] = []
_BEARER: Final[list[dict[str, list[str]]]] = [{"readToken": []}]
_SIGNED: Final[list[dict[str, list[str]]]] = [{"signature": []}, {"wholeSignature": []}]
# The write key may come as the user name, or in the body alone.
_WRITE_KEY: Final[list[dict[str, list[str]]]] = [{"writeKey": []}, {}]


@cache
def response() -> Response:
    """Return the answer."""
    return Response(200, msgspec.json.encode(document()), headers=NO_STORE)


def document() -> dict[str, Any]:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vero-collector",
            "description": (
                "Catches the events that Vero pushes, and hands them on. A 2xx means: on disk and "
                "synced. An input whose secret is not set is not there (404)."
            ),
            "version": version("tap-vero-segment"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/vero/{webhook_token}": {"post": _vero()},
            **{f"/v1/{name}": _tracking(name) for name in sorted(tracking.NAMES)},
            "/segment": {"post": _segment()},
            "/v1/events": _readable("readEvents", _events()),
            "/health": _readable("health", _probe("Whether the collector runs.")),
            "/ready": _readable("ready", _probe("Whether the store accepts writes.", "warning")),
            "/metrics": _readable("metrics", _metrics()),
            "/openapi.json": _readable("openapi", _openapi()),
            **described.paths(_EVERYWHERE),
        },
        "components": {
            "securitySchemes": _security_schemes(),
            "headers": _headers(),
            "responses": _refusals(),
            "schemas": _schemas(),
        },
    }


def _vero() -> dict[str, Any]:
    return {
        "operationId": "receiveVero",
        "summary": "A webhook of Vero: one event.",
        "description": (
            "Any JSON object is acknowledged; one that cannot be mapped is quarantined. The body's "
            "content type does not matter, and percent-encoded JSON is read too. A wrong token is "
            "answered with 404."
        ),
        "security": _OPEN,
        "parameters": [
            {
                "name": "webhook_token",
                "in": "path",
                "required": True,
                "description": "The secret of the URL.",
                "schema": {"type": "string", "minLength": 1, "format": "password"},
            }
        ],
        "requestBody": _body(_schema("Webhook")),
        "responses": _answers(_success(), 413),
    }


def _tracking(name: str) -> dict[str, Any]:
    kind = tracking.NAMES[name]
    batch = kind == tracking.BATCH
    description = (
        f"At most {MAX_CALLS} calls, none longer than {MAX_CALL} bytes, nor what is said for all "
        f"of them. Whole or not at all."
        if batch
        else f"At most {MAX_CALL} bytes."
    )
    return {
        "post": {
            "operationId": f"receive{name.capitalize()}",
            "summary": "A batch of Segment's calls." if batch else f"Segment's call {kind}.",
            "description": (
                f"{description} Calls that are none of the collections are counted and not kept. "
                "The write key comes as the user name, in the body, or both."
            ),
            "security": _WRITE_KEY,
            "parameters": [
                {
                    "name": "Content-Encoding",
                    "in": "header",
                    "schema": {"type": "string", "enum": ["identity", "gzip", "x-gzip"]},
                }
            ],
            "requestBody": _body(_schema("Batch" if batch else "Call")),
            "responses": _answers(_success(_cors("allow-origin")), 401, 413, 415),
        },
        "options": {
            "operationId": f"preflight{name.capitalize()}",
            "summary": "What browsers ask before they post from another origin.",
            "security": _OPEN,
            "responses": _answers(
                {
                    "description": "What is allowed.",
                    "headers": _cors("allow-origin", "allow-methods", "allow-headers", "max-age"),
                }
            ),
        },
    }


def _segment() -> dict[str, Any]:
    return {
        "operationId": "receiveSegment",
        "summary": "What Segment's Webhooks destinations deliver: a call, or an array of them.",
        "security": _SIGNED,
        "requestBody": _body(
            {"oneOf": [_schema("Call"), {"type": "array", "items": _schema("Call")}]}
        ),
        "responses": _answers(_success(), 401, 413),
    }


def _events() -> dict[str, Any]:
    return {
        "summary": "Events in the order of loadedAt: NDJSON, a track call a line.",
        "description": "Each line is an Event. An empty body: there is nothing more.",
        "security": _BEARER,
        "parameters": [
            {
                "name": "after",
                "in": "query",
                "description": "Only events with a later loadedAt; ISO 8601, else from the first.",
                "schema": {"type": "string"},
                "example": "2026-11-23T09:24:00.000000Z",
            },
            {
                "name": "limit",
                "in": "query",
                "description": (
                    "The most events to return. A page ends at 8 MB, so that it can have fewer: "
                    "only an empty one says that there are no more."
                ),
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": events.MAX_LIMIT,
                    "default": events.DEFAULT_LIMIT,
                },
            },
        ],
        "responses": _answers(
            {
                "description": "A page.",
                "headers": {
                    events.HIGH_WATER.decode(): {
                        "description": (
                            "How far the store went when the page was read; absent while it is "
                            "empty."
                        ),
                        "schema": _schema("Instant"),
                    }
                },
                "content": {NDJSON.decode(): {"schema": {"type": "string"}}},
            },
            401,
        ),
    }


def _probe(summary: str, *texts: str) -> dict[str, Any]:
    status = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"const": "ok"}, **{text: {"type": "string"} for text in texts}},
        "additionalProperties": False,
    }
    answer = {"description": "Yes.", "content": {_JSON: {"schema": status}}}
    return {"summary": summary, "security": _OPEN, "responses": _answers(answer)}


def _metrics() -> dict[str, Any]:
    answer = {
        "description": "In the text format of Prometheus, or in OpenMetrics when asked for.",
        "content": {kind: {"schema": {"type": "string"}} for kind in (_TEXT, _OPENMETRICS)},
    }
    return {
        "summary": "The collector's metrics.",
        "security": _OPEN,
        "responses": _answers(answer),
    }


def _openapi() -> dict[str, Any]:
    answer = {
        "description": "The document.",
        "content": {_JSON: {"schema": {"type": "object", "required": ["openapi", "paths"]}}},
    }
    return {"summary": "This document.", "security": _OPEN, "responses": _answers(answer)}


def _readable(name: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return what can be asked for with GET, and with HEAD for its headers only."""
    return {
        "get": {"operationId": name, **operation},
        "head": {"operationId": f"{name}Head", **operation},
    }


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "required": True,
        "description": f"At most {MAX_BODY} bytes, unzipped.",
        "content": {_JSON: {"schema": schema}},
    }


def _success(headers: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": "On disk, synced. What was stored already is not stored again.",
        "content": {_JSON: {"schema": _schema("Success")}},
    }
    return answer | ({"headers": headers} if headers else {})


def _cors(*names: str) -> dict[str, Any]:
    values = dict(tracking.CORS)
    headers = {}
    for name in names:
        header = f"access-control-{name}"
        value = values[header.encode()].decode()
        headers[header] = {"required": True, "schema": {"type": "string", "examples": [value]}}
    return headers


_EVERYWHERE: Final = (400, 403, 404, 405, 408, 431, 500, 503)
"""What any endpoint can answer; some of it before it knows which endpoint is meant."""


def _answers(success: dict[str, Any], *statuses: int) -> dict[str, Any]:
    refusals = {
        str(status): {"$ref": f"#/components/responses/{status}"}
        for status in sorted((*_EVERYWHERE, *statuses))
    }
    return {"200": success, **refusals}


def _refusals() -> dict[str, Any]:
    return {
        "400": _refusal("The request or its body cannot be read.", server=True),
        "401": _refusal("A wrong secret, or none.", "WWW-Authenticate"),
        "403": _refusal("The client's address is not allowed.", server=True),
        "404": _refusal("There is nothing here, or the secret in the URL is wrong."),
        "405": _refusal("Another method is needed.", "Allow"),
        "408": _refusal("The request took too long to come in.", server=True),
        "413": _refusal(f"The body is longer than {MAX_BODY} bytes."),
        "415": _refusal("The body has a content-encoding other than gzip."),
        "431": _refusal("The request's headers are too large.", server=True),
        "500": _refusal("A fault of the collector."),
        "503": _refusal(
            "Overloaded, out of disk, or shutting down: nothing was kept. Come again.",
            "Retry-After",
            server=True,
        ),
    }


def _refusal(description: str, *headers: str, server: bool = False) -> dict[str, Any]:
    """Return an answer that is no success.

    Args:
        description: What has gone wrong.
        headers: The headers that it can have.
        server: Whether it can come before the application has seen the request: as plain text.
    """
    content: dict[str, Any] = {_JSON: {"schema": _schema("Error")}}
    if server:
        content[_TEXT] = {"schema": {"type": "string"}}
    answer: dict[str, Any] = {"description": description, "content": content}
    if headers:
        answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return answer


def _headers() -> dict[str, Any]:
    seconds = int(RETRY_AFTER[1])
    return {
        "Allow": {
            "description": "The methods that there are.",
            "required": True,
            "schema": {"type": "string", "enum": ["POST", "GET, HEAD"]},
        },
        "Retry-After": {
            "description": "Seconds.",
            "required": True,
            "schema": {"type": "integer", "minimum": 0, "examples": [seconds]},
        },
        "WWW-Authenticate": {
            "description": "Where a bearer token is asked for.",
            "schema": {"type": "string", "const": "Bearer"},
        },
    }


def _security_schemes() -> dict[str, Any]:
    return {
        "readToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "VERO_COLLECTOR_READ_TOKEN.",
        },
        "writeKey": {
            "type": "http",
            "scheme": "basic",
            "description": "VERO_COLLECTOR_WRITE_KEY as the user name, without a password.",
        },
        "signature": {
            "type": "apiKey",
            "in": "header",
            "name": "X-Signature",
            "description": (
                "The hexadecimal HMAC-SHA1 of the body with VERO_COLLECTOR_SEGMENT_SECRET."
            ),
        },
        "wholeSignature": {
            "type": "apiKey",
            "in": "header",
            "name": "X-Segment-Signature",
            "description": "The same, from Segment's newer destinations.",
        },
        "session": described.SECURITY_SCHEME,
    }


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    tree = {"type": ["object", "null"]}
    call = {
        "type": {"type": "string", "examples": ["track"]},
        "event": {
            "type": "string",
            "examples": [collection.event for collection in COLLECTIONS],
        },
        "messageId": {**text, "description": "Delivered twice, stored once."},
        "userId": text,
        "anonymousId": text,
        "timestamp": text,
        "originalTimestamp": text,
        "sentAt": text,
        "properties": tree,
        "context": tree,
    }
    batch = {
        "batch": {
            "type": "array",
            "items": _schema("Call"),
            "maxItems": MAX_CALLS,
        },
        "context": {**tree, "description": "For all calls, where a call says nothing else."},
        "sentAt": text,
        "writeKey": {"type": "string", "description": "Instead of the user name."},
    }
    webhook = {
        "type": {
            "type": "string",
            "examples": [collection.vero_type for collection in COLLECTIONS],
        },
        "user": tree,
        "campaign": tree,
        "message_id": text,
    }
    instant = {
        "type": "string",
        "format": "date-time",
        "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
    }
    return {
        "Webhook": {
            "description": "A payload of Vero. Other fields, and other types, are kept as well.",
            "type": "object",
            "required": ["type"],
            "properties": webhook,
        },
        "Call": {
            "description": "A call of Segment's. Other fields are kept as well.",
            "type": "object",
            "properties": {**call, "writeKey": {"type": "string"}},
        },
        "Batch": {"type": "object", "required": ["batch"], "properties": batch},
        "Event": {
            "description": "A track call, as the read API returns it.",
            "type": "object",
            "required": ["type", "event", "messageId", "timestamp", "receivedAt", "loadedAt"],
            "properties": {
                **call,
                "receivedAt": {**_schema("Instant"), "description": "When it came."},
                "loadedAt": {**_schema("Instant"), "description": "Rises from event to event."},
            },
            "additionalProperties": False,
        },
        "Instant": instant,
        "Success": {
            "type": "object",
            "required": ["success"],
            "properties": {"success": {"const": True}},
            "additionalProperties": False,
        },
        "Error": {
            "type": "object",
            "required": ["success", "error"],
            "properties": {"success": {"const": False}, "error": {"type": "string"}},
            "additionalProperties": False,
        },
    }
