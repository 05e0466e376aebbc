"""A server that speaks Segment's Tracking API, keeps what it accepts, and misbehaves to order."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable

WRITE_KEY = "write-key-of-the-tests"

MAX_BODY = 500 * 1024
MAX_CALLS = 2_500
MAX_CALL = 32 * 1024

FORBIDDEN = {"sentAt", "receivedAt", "loadedAt", "writeKey"}
"""What a client that sends again has no business to say."""


class Asked(NamedTuple):
    """A request as it came.

    Attributes:
        at: When it had been read, on the monotonic clock.
        port: The client's port: one for each connection.
        zipped: Whether it came as gzip.
        size: The bytes of its body, unzipped.
        calls: How many calls it has; 0 where it is no batch.
        status: What it was answered with; 0 where it was not.
    """

    at: float
    port: int
    zipped: bool
    size: int
    calls: int
    status: int


class TrackingServer:
    """A Tracking API on a free port; usable as a context manager.

    Attributes:
        faults: What the next requests meet, one each.
        fault_of: Chooses what a request meets when those are used up; None: nothing.
        poison: Ids of calls that make a batch a bad request.
        accepted: The calls that were accepted, by ``messageId``.
        calls: The same in the order in which they came, with repetition.
        asked: The requests so far.
        wrongs: What no client should do.
    """

    def __init__(self, *, reads_gzip: bool = True) -> None:
        self.reads_gzip = reads_gzip
        self.faults: deque[Fault] = deque()
        self.fault_of: Callable[[], Fault | None] = lambda: None
        self.poison: set[str] = set()
        self.accepted: dict[str, dict[str, Any]] = {}
        self.calls: list[dict[str, Any]] = []
        self.asked: list[Asked] = []
        self.wrongs: list[str] = []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        server = self

        class Handler(_Handler):
            tracking = server

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def config(self, **settings: Any) -> dict[str, Any]:
        """Return a target's configuration for this server."""
        return {"write_key": WRITE_KEY, "endpoint": self.url, **settings}

    def statuses(self) -> list[int]:
        return [asked.status for asked in self.asked]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Go away: who comes now is refused, and who is connected is let down."""
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()

    def __exit__(self, *error: object) -> None:
        if not self.ending.is_set():
            self.stop()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for the client to acknowledge its head
    tracking: TrackingServer

    def do_POST(self) -> None:
        tracking = self.tracking
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.zipped = self.headers.get("Content-Encoding") == "gzip"
        self.unzipped = gzip.decompress(body) if self.zipped else body
        self.batch = self.read_batch()
        with tracking.lock:
            fault = tracking.faults.popleft() if tracking.faults else tracking.fault_of()
        if fault is None:
            self.answer(self.store())
        else:
            fault(self)

    def do_GET(self) -> None:
        self.tracking.wrongs.append("a GET")
        self.close_connection = True

    def store(self) -> int:
        """Do what the API does with a batch, apart from answering; return the status."""
        tracking = self.tracking
        if self.path != "/v1/batch":
            return 404
        expected = base64.b64encode(f"{WRITE_KEY}:".encode()).decode()
        if self.headers["Authorization"] != f"Basic {expected}":
            return 401
        if self.zipped and not tracking.reads_gzip:
            return 415
        batch = self.batch
        if batch is None or len(self.unzipped) > MAX_BODY or len(batch) > MAX_CALLS:
            return 400
        with tracking.lock:
            for call in batch:
                tracking.wrongs += self.wrongs(call)
                if call["messageId"] in tracking.poison or len(encoded(call)) > MAX_CALL:
                    return 400
            tracking.calls += batch
            tracking.accepted |= {call["messageId"]: call for call in batch}
        return 200

    def read_batch(self) -> list[dict[str, Any]] | None:
        with suppress(ValueError, KeyError):
            content = json.loads(self.unzipped)
            self.tracking.wrongs += sorted(content.keys() - {"batch"})
            batch: list[dict[str, Any]] = content["batch"]
            return batch
        return None

    def wrongs(self, call: dict[str, Any]) -> list[str]:
        wrongs = sorted(FORBIDDEN & call.keys())
        if call.get("type") != "track" or not call.get("event"):
            wrongs.append("no track call")
        if not (call.get("userId") or call.get("anonymousId")):
            wrongs.append("no identity")
        return wrongs

    def note(self, status: int) -> None:
        self.tracking.asked.append(
            Asked(
                time.monotonic(),
                self.client_address[1],
                self.zipped,
                len(self.unzipped),
                len(self.batch or []),
                status,
            )
        )

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.note(status)
        body = body or json.dumps({"success": status < 300}).encode()
        with suppress(BrokenPipeError, ConnectionResetError):  # the target may have gone away
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def reset(self) -> None:
        """Reset the connection instead of an answer."""
        self.note(0)
        # A linger of zero seconds: the kernel sends a reset instead of an orderly end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def hang(self) -> None:
        """Say nothing until the client has gone away."""
        self.note(0)
        self.tracking.ending.wait(30)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


Fault = "Callable[[_Handler], None]"


def encoded(call: dict[str, Any]) -> bytes:
    """Write a call as short as JSON can be."""
    return json.dumps(call, ensure_ascii=False, separators=(",", ":")).encode()


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with a status and keep nothing; a header's name is given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(code, named, body)


def reset(handler: _Handler) -> None:
    """Reset the connection and keep nothing."""
    handler.reset()


def stored_then_reset(handler: _Handler) -> None:
    """Keep the batch, then reset the connection instead of saying so."""
    handler.store()
    handler.reset()


def stored_then_error(handler: _Handler) -> None:
    """Keep the batch, then say that this failed."""
    handler.store()
    handler.answer(502)


def going_away(handler: _Handler) -> None:
    """Keep nothing, and take no connection from now on."""
    handler.tracking.stop()
    handler.reset()


def hang(handler: _Handler) -> None:
    """Keep nothing, and say nothing."""
    handler.hang()


def stored_then_hang(handler: _Handler) -> None:
    """Keep the batch, and say nothing."""
    handler.store()
    handler.hang()


def echo(code: int) -> Fault:
    """Answer with a status and with all that the client has said of itself."""

    def fault(handler: _Handler) -> None:
        told = str(handler.headers).encode()
        key = base64.b64decode(handler.headers["Authorization"].removeprefix("Basic "))
        handler.answer(code, {"X-Echo": key.decode()}, told + key + handler.unzipped)

    return fault
