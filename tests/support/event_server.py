"""A small HTTP server that speaks the read API over a list of lines, and misbehaves to order."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.collector import READ_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterable

NDJSON = "application/x-ndjson"


class Asked(NamedTuple):
    """A request as it came, and when, on the monotonic clock."""

    path: str
    after: str | None
    limit: int
    authorization: str | None
    at: float


class EventServer:
    """Serves lines in the order of their ``loadedAt``; usable as a context manager.

    Attributes:
        faults: What the next requests meet instead of a page, one each.
        always: What every further request meets, when the faults are used up.
        marks: Whether pages say how far the server has got.
        asked: The requests so far.
        served: The lines that were sent, in whole pages, with repetition.
    """

    def __init__(self, lines: Iterable[bytes], *, prefix: str = "", marks: bool = True) -> None:
        self.lines = [(json.loads(line).get("loadedAt", ""), line) for line in lines]
        self.path = f"{prefix}/v1/events"
        self.marks = marks
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.asked: list[Asked] = []
        self.served: list[bytes] = []
        server = self

        class Handler(_Handler):
            events = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    events: EventServer

    def do_GET(self) -> None:
        events = self.events
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        after = query.get("after")
        limit = int(query.get("limit", "1000"))
        authorization = self.headers.get("Authorization")
        events.asked.append(Asked(parts.path, after, limit, authorization, time.monotonic()))
        fault = events.faults.popleft() if events.faults else events.always
        if fault is not None:
            fault(self)
        elif parts.path != events.path:
            answer(self, 404)
        elif authorization != f"Bearer {READ_TOKEN}":
            answer(self, 401)
        else:
            self.page(after or "", limit)

    def page(self, after: str, limit: int) -> None:
        body = self.body(after, limit)
        self.events.served.extend(body.splitlines())
        answer(self, 200, body, self.page_headers())

    def body(self, after: str, limit: int) -> bytes:
        lines = [line for loaded_at, line in self.events.lines if loaded_at > after][:limit]
        return b"".join(line + b"\n" for line in lines)

    def page_headers(self) -> dict[str, str]:
        headers = {"Content-Type": NDJSON}
        if self.events.marks and self.events.lines:
            headers["High-Water-Mark"] = self.events.lines[-1][0]
        return headers

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


Fault = "Callable[[_Handler], None]"


def answer(
    handler: _Handler,
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    *,
    length: int | None = None,
) -> None:
    """Answer, with the body's true length or one that it has not."""
    with suppress(BrokenPipeError, ConnectionResetError):  # the tap may have gone away
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with a status; a header's name is given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: answer(handler, code, body, named)


def reset(handler: _Handler) -> None:
    """Reset the connection before a byte of the answer."""
    _reset(handler)


def reset_amid(handler: _Handler) -> None:
    """Reset the connection in the middle of a page's body."""
    body = handler.body("", 100)
    answer(handler, 200, body[: len(body) // 2], handler.page_headers(), length=len(body))
    handler.wfile.flush()
    _reset(handler)


def truncated(handler: _Handler) -> None:
    """Close the connection in the middle of a line, as if all had been said."""
    body = handler.body("", 100)
    answer(handler, 200, body[:-20], handler.page_headers(), length=len(body))
    handler.close_connection = True


def answered(handler: _Handler) -> None:
    """Answer as asked: no fault at all, between others."""
    query = parse_qs(urlsplit(handler.path).query)
    handler.page(query.get("after", [""])[0], int(query["limit"][0]))


def trickle(*, pieces: int, pause: float) -> Fault:
    """Answer with everything, a piece at a time."""

    def fault(handler: _Handler) -> None:
        body = handler.body("", len(handler.events.lines))
        size = len(body) // pieces + 1
        answer(handler, 200, b"", handler.page_headers(), length=len(body))
        for start in range(0, len(body), size):
            time.sleep(pause)
            handler.wfile.write(body[start : start + size])

    return fault


def late(seconds: float) -> Fault:
    """Answer after a while, and not at all well."""

    def fault(handler: _Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return fault


def lines(*given: bytes) -> Fault:
    """Answer with lines whatever was asked for, and without a mark."""
    return lambda handler: answer(
        handler, 200, b"".join(line + b"\n" for line in given), {"Content-Type": NDJSON}
    )


def _reset(handler: _Handler) -> None:
    # A linger of zero seconds: the kernel sends a reset instead of an orderly end.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
