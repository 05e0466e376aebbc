"""The server's side of a connection: uvicorn's, with bounds on what a client may ask of it.

uvicorn has a limit of its own neither for the length of a head nor for the time that a request or
its response may take. What clients have begun is looked at once in a while, all connections
together: a timer for each request would cost more than the request.

Clients that have shown no secret must not use up the places of those that have: a connection that
waits for its client, without a secret, is dropped when its place is needed.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tap_vero_segment.collector.endpoints import tracking
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.collector.responses import RETRY_AFTER, HTTPError
from tap_vero_segment.limits import MAX_HEAD, MAX_PIPELINE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


logger = logging.getLogger("vero-collector")
LINGER_SECONDS: Final = 2.0
"""For how long a connection is still read after it was refused: a client that is cut off while
it sends may never see the response."""
IDLE_SECONDS: Final = 1.0
"""A connection that was not used for so long is given up where another client needs its place."""
SILENT_SECONDS: Final = 0.1
"""How long a new connection may be silent before it can lose its place: many that come at once are
all read before any of them is dropped."""
SPARE: Final = 4
"""A fourth more connections than are served are taken, to tell them so."""
# Bytes around what the parser tells: of a request's line, of a header and of a chunk.
_LINE: Final = 16
_HEADER: Final = 4
_CHUNK: Final = 8
_PIECE: Final = 2048
"""Bytes that are parsed at once. The parser does not stop between two requests, and a hundred of
the shortest fit in here."""


class Limits(NamedTuple):
    """What clients may ask of the server.

    Attributes:
        connections: The most connections that are served.
        seconds: How long a request may take to arrive, and a response to be read.
    """

    connections: int
    seconds: float


class ConnectionLimits:
    """Knows all connections of a server, and ends those that take too long.

    Args:
        limits: What clients may ask.
        count: Called with the reason of each connection that is refused or cut off.
    """

    def __init__(self, limits: Limits, count: Callable[[ErrorReason], None]) -> None:
        self.limits = limits
        self._counted = count
        self._refused: Counter[ErrorReason] = Counter()
        self._next = 0.0
        self._next_room = 0.0
        # By their addresses, those that waited longest first.
        self._strangers: defaultdict[str, dict[LimitedProtocol, None]] = defaultdict(dict)

    def count(self, reason: ErrorReason) -> None:
        """Count a connection that is refused or cut off."""
        self._refused[reason] += 1
        self._counted(reason)

    def sweep(self, connections: Iterable[LimitedProtocol], now: float) -> None:
        """Look at all connections, if it is time to: about once a second.

        Args:
            connections: The server's.
            now: The event loop's time.
        """
        if now < self._next:
            return
        self._next = now + min(1.0, self.limits.seconds / 10)
        for connection in list(connections):
            connection.check(now)
        self._tell()

    def enter(self, connection: LimitedProtocol) -> None:
        """Remember a connection that waits for its client, who has shown no secret."""
        self._strangers[connection.address][connection] = None

    def leave(self, connection: LimitedProtocol) -> None:
        """Forget that a connection waits."""
        waiting = self._strangers[connection.address]
        waiting.pop(connection, None)
        if not waiting:
            del self._strangers[connection.address]

    def make_room(
        self, newcomer: LimitedProtocol, connections: set[LimitedProtocol], now: float
    ) -> bool:
        """Find a place for a connection: a stranger's, or else the places of idle ones.

        The address that holds most of the strangers' places gives up the one that has waited
        longest. Behind a proxy all are of one address, and the oldest goes.

        Args:
            newcomer: The connection.
            connections: The server's.
            now: The event loop's time.

        Returns:
            Whether there is one.
        """
        for waiting in sorted(self._strangers.values(), key=len, reverse=True):
            for stranger in waiting:
                if stranger is not newcomer and not stranger.is_fresh(now):
                    stranger.drop()
                    return True
        if now < self._next_room:
            return False
        self._next_room = now + IDLE_SECONDS / 10
        idle = [one for one in connections if one.idle_seconds(now) > IDLE_SECONDS]
        for connection in idle:
            connection.transport.close()
        return bool(idle)

    def abort_unread(self, connections: Iterable[LimitedProtocol]) -> None:
        """Cut off the clients that have not taken what was sent to them."""
        for connection in list(connections):
            if connection.transport.get_write_buffer_size():
                connection.transport.abort()

    def _tell(self) -> None:
        """Log what was refused since the last time: a line for all, as there can be thousands."""
        if self._refused:
            counted = sorted(self._refused.items())
            counts = ", ".join(f"{count} {reason}" for reason, count in counted)
            logger.warning("connections refused or cut off: %s", counts)
            self._refused.clear()


class LimitedProtocol(HttpToolsProtocol):
    """A connection whose requests are bounded in size and time.

    Args:
        connection_limits: The server's, shared by its connections.
        arguments: uvicorn's own.
    """

    def __init__(self, connection_limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connection_limits = connection_limits
        self.url = b""  # uvicorn's has none before the first request begins
        self.address = ""
        """The client's, as far as it tells clients apart."""
        self._admitted = False  # the request that came last has shown a secret
        self._waits = False  # for its client, and has its place on sufferance
        self._refused = False
        self._problem: HTTPError | None = None
        self._problem_behind: HTTPError | None = None  # requests that get their responses first
        self._held = b""  # what came behind too many requests
        # Since when the client owes us something: a request, or the rest of one.
        self._since: float | None = None
        self._at_work: RequestResponseCycle | None = None
        self._is_new = True
        self._in_body = False
        self._upgrading = False
        self._head_size = 0
        self._silent_size = 0  # bytes of which the parser has told nothing yet
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Serve the client, or refuse it as there are too many."""
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._since = self.loop.time()
        if self.client:
            self.client = (unmapped(self.client[0]), self.client[1])
            self.address = network_of(self.client[0])
        self._note_waiting()
        allowed = self._connection_limits.limits.connections
        others = cast("set[LimitedProtocol]", self.connections)
        if len(others) > allowed and self._connection_limits.make_room(self, others, self._since):
            return
        if len(self.connections) > allowed + allowed // SPARE:
            self._connection_limits.count(ErrorReason.TOO_MANY_CONNECTIONS)
            transport.abort()
        elif len(self.connections) > allowed:
            self._refuse(_too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        super().connection_lost(exc)
        self._held = b""
        self._expect_no_response()
        if self._waits:
            self._connection_limits.leave(self)

    def on_response_complete(self) -> None:
        """Go on with the next request, where there is one."""
        if self.pipeline:
            self._at_work = self.pipeline[-1][0]
        super().on_response_complete()
        if self._problem_behind is not None and not self._is_at_work():
            error, self._problem_behind = self._problem_behind, None
            self._hang_up(error)
        elif self._held and len(self.pipeline) <= MAX_PIPELINE // 2:
            self.loop.call_soon(self._go_on)
        self._note_waiting()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and hang up where it is more than it may be."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._is_new = False
        if self._held:
            self._held += data
            return
        self._parse(data)
        self._note_waiting()

    def resume_writing(self) -> None:
        """Send on: the client has taken most of what was sent."""
        self._unsent = 0
        super().resume_writing()

    def _go_on(self) -> None:
        """Parse what was held back."""
        data, self._held = self._held, b""
        if not data or self._refused or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self.flow.held = False
        self._parse(data)
        self.flow.resume_reading()
        self._note_waiting()

    def _parse(self, data: bytes) -> None:
        for begin in range(0, len(data), _PIECE):
            if len(self.pipeline) >= MAX_PIPELINE:
                self._held = data[begin:]
                self.flow.pause_reading()
                self.flow.held = True
                break
            piece = data[begin : begin + _PIECE]
            self._silent_size += len(piece)
            try:
                self._feed(piece)
            except httptools.HttpParserError:
                self._refuse(
                    self._problem or HTTPError(400, "this is not HTTP", reason=ErrorReason.NOT_HTTP)
                )
                return
        self._silent_size = 0 if self._since is None else max(0, self._silent_size)
        if self._silent_size > MAX_HEAD:
            self._refuse(_head_too_long())
        elif self._since is None and self._owes_nothing():
            # Nothing but line ends, or the rest of a body that had its response: the time for a
            # kept connection to be idle was unset above, and nothing else will set it again.
            self._since = self.loop.time()

    def _feed(self, data: bytes) -> None:
        """Parse; a request to upgrade to another protocol is served as any other."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._upgrading = False
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        """Write the head again, so that the parser does not take the body for another protocol's.

        RFC 9110, 7.8: a server may ignore Upgrade.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"upgrade":
                continue
            kept = value
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = b", ".join(option for option in options if option.lower() != b"upgrade")
            lines.append(b"%b: %b" % (name, kept))
        return b"\r\n".join([*lines, b"", b""])

    # What the parser tells

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["state"]["connection"] = self
        self._since = self.loop.time()
        self._head_size = 0
        self._admitted = False
        if self._waits:  # as a newcomer does, from now on
            self._connection_limits.leave(self)
            self._waits = False

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        self.url += url
        self._count(len(url) + _LINE)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer could pretend to be one that a proxy has set, and is dropped."""
        if not self._in_body:
            super().on_header(name, value)
        self._count(len(name) + len(value) + _HEADER)

    def _count(self, size: int) -> None:
        self._silent_size -= size
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise self._as_problem(_head_too_long())

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless it waits for its turn."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise self._as_problem(HTTPError(405, "this is no proxy"))
            self._upgrading = True
            return
        super().on_headers_complete()
        self._in_body = True
        if not self.pipeline:
            self._at_work = self.cycle

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._silent_size -= len(body) + _CHUNK
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._upgrading:
            return
        super().on_message_complete()
        self._in_body = False
        self._since = None

    def _as_problem(self, error: HTTPError) -> HTTPError:
        """Note what the parser's error will mean that comes of raising this."""
        self._problem = error
        return error

    def shutdown(self) -> None:
        """Hang up as soon as all that has arrived has its response."""
        if not self._refused:
            super().shutdown()
        elif self._problem_behind is None:
            self.transport.close()

    # What takes too long

    def check(self, now: float) -> None:
        """End the connection if its client takes too long.

        Args:
            now: The event loop's time.
        """
        seconds = self._connection_limits.limits.seconds
        unsent = self.transport.get_write_buffer_size()
        if not unsent or not self._unsent or unsent < self._unsent:
            self._unsent_since = now
        elif now - self._unsent_since > seconds:
            self._connection_limits.count(ErrorReason.RESPONSE_NOT_READ)
            self.transport.abort()
            return
        self._unsent = unsent
        if self._since is None:
            return
        if self._refused:
            if self._problem_behind is None and now - self._since > LINGER_SECONDS:
                self.transport.abort()
        elif self.flow.read_paused:
            self._since = now  # we do not read it, so it is not the client who is slow
        elif now - self._since > seconds and not self.transport.is_closing():
            self._refuse(HTTPError(408, "the request took too long to arrive"))

    def idle_seconds(self, now: float) -> float:
        """Return how long ago the last response was sent, if nothing has come since; else 0."""
        timer = self.timeout_keep_alive_task
        return 0.0 if timer is None else now - (timer.when() - self.timeout_keep_alive)

    # Who has shown a secret

    def admit(self, scope: Any) -> None:
        """Note that a request has shown a secret, so that its connection keeps its place.

        Args:
            scope: The request's.
        """
        if scope is self.scope:  # no other one has begun behind it
            self._admitted = True
            self._note_waiting()

    def drop(self) -> None:
        """End a connection whose place is needed by another; in no more time than that takes."""
        if not self._refused:
            self._refuse(_too_many_connections())
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
        self.connections.discard(self)
        self._note_waiting()

    def give_up(self) -> None:
        """Refuse the request that is being read, as the memory for its body is needed by others."""
        if not self._refused:
            self._refuse(HTTPError(503, "overloaded", RETRY_AFTER))

    def is_fresh(self, now: float) -> bool:
        """Return whether a connection is so new that what was sent may not be read yet."""
        return self._is_new and self._since is not None and now - self._since < SILENT_SECONDS

    def _note_waiting(self) -> None:
        """Note where it has changed whether a client that showed no secret is awaited."""
        waits = not (self._admitted or self._is_at_work() or self.transport.is_closing())
        if waits is not self._waits:
            self._waits = waits
            (self._connection_limits.enter if waits else self._connection_limits.leave)(self)

    def _is_at_work(self) -> bool:
        """Return whether a whole request is being served."""
        at_work = self._at_work
        if at_work is None or at_work.response_complete:
            return False
        return not (self._in_body and at_work is self.cycle)

    # What ends a connection

    def _refuse(self, error: HTTPError) -> None:
        """Read no more requests; respond to those before, then to this one, and hang up."""
        self._refused = True
        self._admitted = False
        self.parser = None  # type: ignore[assignment]  # and what it holds
        self._held = b""
        self._connection_limits.count(error.reason)
        if not self._is_at_work():
            self._hang_up(error)
            return
        self._problem_behind = error
        if self._in_body:  # the request that has not come to its end gets no response by itself
            self.pipeline.popleft()
            self._in_body = False

    def _hang_up(self, error: HTTPError) -> None:
        """Respond and hang up; without a response where it would be taken for another request's."""
        self._since = self.loop.time()
        nothing_sent = self._is_new and error.status == 408  # noqa: PLR2004
        is_answered = self._in_body and self.cycle.response_started
        self._expect_no_response()
        if nothing_sent or self.transport.is_closing() or is_answered:
            self.transport.close()
            return
        response = error.response()
        response.headers["connection"] = "close"
        if self.url.partition(b"?")[0].decode("latin-1") in tracking.PATHS:
            response.headers.update(tracking.ALLOW_ORIGIN)
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", response.body]))
        self.flow.held = False
        self.flow.resume_reading()
        self.transport.write_eof()

    def _expect_no_response(self) -> None:
        """Let the application know that nobody waits for a response any more.

        uvicorn tells it of the request that came last; the one at work can be an earlier one.
        """
        if self._at_work is not None and not self._at_work.response_complete:
            self._at_work.disconnected = True
            self._at_work.message_event.set()

    def _owes_nothing(self) -> bool:
        """Return whether all requests that have arrived have their responses."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete


class _Flow(FlowControl):
    """uvicorn's, which reads on with each response; not while requests are held back, though."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


def network_of(host: str) -> str:
    """Return what tells clients apart: an IPv4 address, or the /64 that is one client's in IPv6.

    Empty: it is no address, as what a proxy has forwarded can be anything.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))


def unmapped(host: str) -> str:
    """Return an IPv4 address that is written as IPv6 (``::ffff:192.0.2.1``) as IPv4."""
    if not host.startswith("::"):
        return host
    try:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return host if mapped is None else str(mapped)


def _too_many_connections() -> HTTPError:
    reason = ErrorReason.TOO_MANY_CONNECTIONS
    return HTTPError(503, "too many connections", RETRY_AFTER, reason=reason)


def _head_too_long() -> HTTPError:
    return HTTPError(431, f"a head longer than {MAX_HEAD} bytes")
