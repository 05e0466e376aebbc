"""``vero-collector serve``: the application in its server, from start to stop."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

import uvicorn

from tap_vero_segment.collector.allow_list import AllowList
from tap_vero_segment.collector.app import App
from tap_vero_segment.collector.committer import Committer
from tap_vero_segment.collector.connection_limits import (
    SPARE,
    ConnectionLimits,
    LimitedProtocol,
    Limits,
)
from tap_vero_segment.collector.destinations import read_destinations
from tap_vero_segment.collector.eraser import Eraser
from tap_vero_segment.collector.forwarding import Forwarding, Manner
from tap_vero_segment.collector.indexer import Indexer
from tap_vero_segment.collector.logs import (
    FirstEvents,
    announce_address,
    announce_endpoints,
    announce_store,
)
from tap_vero_segment.collector.metrics import Metrics
from tap_vero_segment.collector.notify import START_SECONDS, Notifier
from tap_vero_segment.collector.reader_pool import ReaderPool
from tap_vero_segment.collector.settings import FORWARD_HEADERS
from tap_vero_segment.errors import SettingError, UserError, describe_fault
from tap_vero_segment.limits import MAX_PENDING_BYTES
from tap_vero_segment.stores.open import location_of, open_reader, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from tap_vero_segment.collector.committer import Commit
    from tap_vero_segment.collector.settings import Secrets, Settings


logger = logging.getLogger("vero-collector")
BACKLOG: Final = 2048
ACCEPTS: Final = 64
"""Connections that are taken at once. uvloop's own servers take one in a turn of the loop, and a
turn is long when there is much to do: new clients would wait for seconds."""
ACCEPT_PAUSE_SECONDS: Final = 1.0
"""How long no connection is taken after that has failed, as without a free descriptor."""
KEEP_ALIVE_SECONDS: Final = 65
"""Longer than the 60 seconds of the usual reverse proxies, so that they close first."""
REFUSED_SECONDS: Final = 1.0
"""How often the store counts what was refused, at most."""
OTHER_FILES: Final = 128
"""Descriptors for what is no connection."""
# The end, whose parts come one after the other: under 10 seconds together.
CLIENTS_SECONDS: Final = 4
"""How long clients may take to send what they have begun, and the store to take it."""
WRITER_SECONDS: Final = 2.5
READERS_SECONDS: Final = 0.5
INDEXER_SECONDS: Final = 0.3
FORWARDERS_SECONDS: Final = 0.5
"""In addition to the time since the end began: they learn of it at once."""


def serve(settings: Settings, secrets: Secrets, reload: Callable[[], Secrets]) -> None:
    """Serve until SIGTERM or SIGINT; then write what waits, and return.

    Args:
        settings: What is served, and how.
        secrets: Who may do what.
        reload: Reads the secrets again, at SIGHUP.

    Raises:
        SettingError: The store cannot be opened, or nothing can listen at the address.
        SystemExit: Status 1: the store failed in a way that only a fresh start can mend, or did
            not take in time what had come in.
    """
    destinations = read_destinations(
        settings.forward, os.environ.get(FORWARD_HEADERS, ""), "--forward"
    )
    manner = Manner(settings.forward_from, settings.forward_skip_refused)
    metrics = Metrics()
    first_events = FirstEvents()

    def on_commit(commit: Commit) -> None:
        metrics.committed(commit)
        first_events.committed(commit)

    committer = Committer(
        lambda: open_writer(settings.store, "store"),
        max_pending=settings.max_pending,
        max_pending_bytes=MAX_PENDING_BYTES,
        on_broken=lambda: server.stop(status=1),
        on_commit=on_commit,
    )
    reader_pool = ReaderPool(lambda: open_reader(settings.store, "store"))
    eraser = Eraser(settings.store) if settings.segment_deletes else None
    app = App(
        secrets,
        committer,
        reader_pool,
        metrics,
        legacy_batches=settings.legacy_batches,
        public_url=settings.url,
        eraser=eraser,
    )
    limits = Limits(_connections(settings.max_connections), settings.client_seconds)
    connection_limits = ConnectionLimits(limits, metrics.refused)
    protocol: Any = functools.partial(LimitedProtocol, connection_limits)
    application: Any = app
    if settings.allow_from:
        application = AllowList(app, settings.allow_from, metrics.refused)
    config = uvicorn.Config(
        application,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,  # a request's path holds the webhook token
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=CLIENTS_SECONDS,
    )
    server = _Server(
        config,
        _Threads(
            committer,
            reader_pool,
            Forwarding(settings.store, destinations, manner),
            eraser,
            Indexer(settings.store),
        ),
        metrics,
        connection_limits,
        _SecretsReloader(app, secrets, reload),
        settings,
    )
    listening = _listen(settings.host, settings.port)
    # A body of half a megabyte can be a hundred thousand arrays, and Python would spend most of
    # the time for reading them on looking for garbage, in which no other thread can run.
    gc.freeze()
    gc.set_threshold(10_000)
    server.run(sockets=[listening])
    server.exit()


def _connections(wanted: int) -> int:
    """Return how many connections can be served, having asked for the descriptors they need.

    Raises:
        UserError: Not even one.
    """
    needed = wanted + wanted // SPARE + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    with suppress(OSError, ValueError):
        more = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return wanted
    if soft <= OTHER_FILES:
        msg = (
            f"open files are limited to {soft}, which is too few to start: allow {needed} "
            "(ulimit -n, or LimitNOFILE of systemd)"
        )
        raise UserError(msg)
    possible = max(1, (soft - OTHER_FILES) * SPARE // (SPARE + 1))
    logger.warning("open files are limited to %d: %d connections are served", soft, possible)
    return possible


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual
        )
    except OSError as error:
        setting = "port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "host"
        reason = str(error.strerror).partition(" (while")[0]
        raise SettingError(setting, f"cannot listen on {host}:{port}: {reason}") from error


class _SecretsReloader:
    """Changes the secrets of a running application.

    Args:
        app: Whose secrets they are.
        secrets: Those that it has.
        reload: Reads them again.

    Attributes:
        app: The application.
        secrets: Those that it has now.
    """

    def __init__(self, app: App, secrets: Secrets, reload: Callable[[], Secrets]) -> None:
        self.app = app
        self.secrets = secrets
        self._reload = reload
        _warn_of_short(secrets)

    def change(self) -> None:
        """Read the secrets again; where that fails, those before stay."""
        try:
            secrets = self._reload()
        except UserError as error:
            logger.warning("the secrets stay as they were: %s", error)
            return
        _warn_of_short(secrets)
        changed = ", ".join(secrets.changed(self.secrets)) or "none"
        logger.info("the secrets were read again; changed: %s", changed)
        self.secrets = secrets
        self.app.use(secrets)


def _warn_of_short(secrets: Secrets) -> None:
    for name in secrets.short():
        logger.warning("%s is so short that it can be guessed: take 32 random bytes", name)


class _Threads(NamedTuple):
    """What works with the store in threads, from before the first request until after the last."""

    committer: Committer
    reader_pool: ReaderPool
    forwarding: Forwarding
    eraser: Eraser | None
    indexer: Indexer


class _Server(uvicorn.Server):
    """Starts what the application works with before the first request, stops it after the last.

    Args:
        config: The server's own settings.
        threads: Started and stopped.
        metrics: What it counts as refused is stored.
        connection_limits: Looks after the connections.
        reloader: Changes the secrets at SIGHUP.
        settings: What is served, for the log.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        threads: _Threads,
        metrics: Metrics,
        connection_limits: ConnectionLimits,
        reloader: _SecretsReloader,
        settings: Settings,
    ) -> None:
        super().__init__(config)
        self._committer, self._reader_pool, self._forwarding, self._eraser, self._indexer = threads
        self._metrics = metrics
        self._storing_refused: asyncio.Task[None] | None = None
        self._accepting: set[asyncio.Task[Any]] = set()
        self._next_storing = 0.0
        self._connection_limits = connection_limits
        self._reloader = reloader
        self._location = location_of(settings.store, "store")
        self._public_url = settings.url
        self._notifier = Notifier()
        self._status = 0
        self._threads_ended = True

    def stop(self, status: int = 0) -> None:
        """Begin the end.

        Args:
            status: What to exit with.
        """
        self._status = self._status or status
        self.should_exit = True
        self._reloader.app.stop()

    def exit(self) -> None:
        """Exit with the status that the end has come to; return where it is 0.

        Raises:
            SystemExit: It is another.
        """
        if self._status:
            logger.error("stopped, with exit status %d", self._status)
        else:
            logger.info("stopped: all that had come in was written")
        if not self._threads_ended:
            # Python would wait for threads that wait for a store.
            _exit_at_once(self._status)
        if self._status:
            sys.exit(self._status)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_fault)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        await self._open_store()
        if self._eraser is not None:
            self._eraser.start()
        try:
            await super().serve(sockets)
        finally:
            if not await self._committer.stop(WRITER_SECONDS):
                logger.error("the store did not take in time what had come in: not acknowledged")
                self._status = 1
                self._threads_ended = False
            self._threads_ended &= self._reader_pool.close(READERS_SECONDS)
            self._forwarding.stop()
            self._threads_ended &= self._forwarding.join(FORWARDERS_SECONDS)
            self._indexer.stop()
            self._threads_ended &= self._indexer.join(INDEXER_SECONDS)

    async def _open_store(self) -> None:
        """Start the committer, which takes minutes where the whole store has to be checked."""
        opening = asyncio.ensure_future(self._committer.start())
        while not opening.done():
            self._notifier.starting()
            await asyncio.wait([opening], timeout=START_SECONDS / 4)
        await opening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        if self.started and sockets:
            sockets[0].settimeout(0)
            self._accept_from(sockets[0])
            host, port = sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            announce_store(self._location)
            announce_endpoints(self._reloader.secrets)
            announce_address(url, self._public_url, self._reloader.secrets)
            self._forwarding.start()
            self._indexer.start()
            self._notifier.ready()

    def _accept_from(self, listening: socket.socket) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Take the connections that wait."""
        loop = asyncio.get_running_loop()
        try:
            for _ in range(ACCEPTS):
                connection, _ = listening.accept()
                connection.settimeout(0)
                task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
                self._accepting.add(task)
                task.add_done_callback(self._accepting.discard)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.error("no connection can be taken: %s", error.strerror)  # noqa: TRY400
            loop.remove_reader(listening)
            loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_from, listening)

    def _protocol(self) -> LimitedProtocol:
        protocol: LimitedProtocol = cast("Any", self.config.http_protocol_class)(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        self._connection_limits.sweep(self._connections(), now)
        if now >= self._next_storing and self._metrics.has_unstored:
            self._store_refused(now)
        # A writer that hangs is a collector that hangs, though the event loop goes round.
        if self._committer.busy_seconds < self._notifier.watchdog_seconds:
            self._notifier.alive(now)
        return await super().on_tick(counter)

    def _store_refused(self, now: float) -> None:
        """Have the store count what was refused, unless it is still at that."""
        self._next_storing = now + REFUSED_SECONDS
        if self._storing_refused is None or self._storing_refused.done():
            work = self._metrics.store_refused(self._committer)
            self._storing_refused = asyncio.create_task(work)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("shutting down")
        self._store_refused(0.0)
        self._notifier.stopping()
        for listening in sockets or ():
            asyncio.get_running_loop().remove_reader(listening)
        self._forwarding.stop()
        self._indexer.stop()
        self._reloader.app.stop()
        self._reloader.app.end_streams()
        # Just before the requests are given up: what waits for such a client cannot get a response.
        asyncio.get_running_loop().call_later(
            CLIENTS_SECONDS - 0.1, self._connection_limits.abort_unread, self._connections()
        )
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._reloader.app.stop()
        super().handle_exit(sig, frame)

    def _connections(self) -> set[LimitedProtocol]:
        return cast("set[LimitedProtocol]", self.server_state.connections)

    def _reload(self) -> None:
        self._notifier.reloading()
        self._reloader.change()
        self._notifier.ready()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop on a signal and then exit with status 0; the base class would die of the signal."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _log_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that nobody waited for, without the values that asyncio would log."""
    error = context.get("exception")
    logger.error("a fault in the event loop: %s", describe_fault(error) if error else "no error")


def _exit_at_once(status: int) -> NoReturn:
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
