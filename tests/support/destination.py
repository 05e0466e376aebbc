"""A server that gets copies of webhooks, keeps what it accepts, and misbehaves to order."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Posted(NamedTuple):
    """A request as it came; ``port`` is one for each connection."""

    port: int
    path: str
    headers: dict[str, str]
    body: bytes


class Destination:
    """A server on a free port; usable as a context manager, again and again.

    Attributes:
        faults: What the next requests meet, one each.
        fault_of: Chooses what a request meets when those are used up; None: nothing.
        posted: The requests so far, in the order in which they were read.
        accepted: The bodies that were answered with 200, or were to be.
    """

    def __init__(self) -> None:
        self.faults: deque[Fault] = deque()
        self.fault_of: Callable[[bytes], Fault | None] = lambda _: None
        self.posted: list[Posted] = []
        self.accepted: list[Posted] = []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.port = 0
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self) -> list[bytes]:
        return [each.body for each in self.accepted]

    def __enter__(self) -> Self:
        destination = self

        class Handler(_Handler):
            server_of_test = destination

        self.ending.clear()
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._thread is not None
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_of_test: Destination

    def do_POST(self) -> None:
        test = self.server_of_test
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        # A client that was killed amid a request, and a connection that was kept from before.
        if len(body) < size or test.ending.is_set():
            self.close_connection = True
            return
        self.post = Posted(self.client_address[1], self.path, dict(self.headers), body)
        with test.lock:
            test.posted.append(self.post)
            fault = test.faults.popleft() if test.faults else test.fault_of(body)
        with suppress(BrokenPipeError, ConnectionResetError):
            if fault is None:
                self.accept()
                self.respond(200)
            else:
                fault(self)

    def do_GET(self) -> None:
        self.server_of_test.posted.append(Posted(0, f"GET {self.path}", {}, b""))
        self.respond(200)

    def accept(self) -> None:
        with self.server_of_test.lock:
            self.server_of_test.accepted.append(self.post)

    def respond(self, status: int, body: bytes = b"ok", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


Fault = "Callable[[_Handler], None]"


def status(code: int, body: bytes = b"no", **headers: str) -> Fault:
    """Respond with a status and keep nothing; a header's name is given with underscores."""
    return lambda handler: handler.respond(code, body, **headers)


def reset(handler: _Handler) -> None:
    """Reset the connection instead of a response."""
    # A linger of zero seconds: the kernel sends a reset instead of an orderly end.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def accepted_then_reset(handler: _Handler) -> None:
    """Keep the body, then reset the connection instead of saying so."""
    handler.accept()
    reset(handler)


def half(handler: _Handler) -> None:
    """Respond with 200 and with half of what the response is to have."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    handler.close_connection = True


def cut_head(handler: _Handler) -> None:
    """Respond with half of a head."""
    handler.wfile.write(b"HTTP/1.1 200 O")
    handler.close_connection = True


def hang(handler: _Handler) -> None:
    """Say nothing until the test ends."""
    handler.server_of_test.ending.wait(60)
    handler.close_connection = True


def large(handler: _Handler) -> None:
    """Accept with a response that is longer than anybody reads."""
    handler.accept()
    handler.respond(200, b"x" * 5_000_000)


def firsts(bodies: Sequence[bytes]) -> list[bytes]:
    """Return bodies without what comes again."""
    return list(dict.fromkeys(bodies))


def by_connection(posted: Sequence[Posted]) -> list[list[bytes]]:
    """Return the bodies of each connection, in order."""
    found: dict[int, list[bytes]] = {}
    for each in posted:
        found.setdefault(each.port, []).append(each.body)
    return [*found.values()]
