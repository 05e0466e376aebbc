"""``vero-collector serve``: the application in its server, from start to stop."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from tap_vero_segment.collector.app import App
from tap_vero_segment.collector.committer import Committer
from tap_vero_segment.collector.metrics import Metrics
from tap_vero_segment.collector.reading import Readers
from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.readers import open_reader
from tap_vero_segment.stores.writers import open_writer

if TYPE_CHECKING:
    from collections.abc import Generator

    from tap_vero_segment.collector.settings import Secrets

logger = logging.getLogger("vero-collector")

MAX_PENDING: Final = 10_000
"""Requests that wait for their commit; the next one is answered with 503."""
MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Bytes of bodies that wait for their commit."""
BACKLOG: Final = 2048
SHUTDOWN_SECONDS: Final = 10
KEEP_ALIVE_SECONDS: Final = 65
"""Longer than the 60 seconds of the usual reverse proxies, so that they close first."""


def serve(
    store: str, host: str, port: int, secrets: Secrets, *, legacy_batches: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT; then write what waits, and return.

    Args:
        store: The store's URL.
        host: The address to listen on.
        port: The port; 0 takes a free one, which the log names.
        secrets: Who may do what.
        legacy_batches: Whether batches of Segment's webhooks are taken that are signed in part.

    Raises:
        SettingError: The store cannot be opened, or nothing can listen at the address.
        SystemExit: Status 1: the store failed in a way that only a fresh start can mend.
    """
    broken: list[bool] = []

    def on_broken() -> None:
        broken.append(True)
        server.should_exit = True

    metrics = Metrics()
    committer = Committer(
        lambda: open_writer(store, "store"),
        max_pending=MAX_PENDING,
        max_pending_bytes=MAX_PENDING_BYTES,
        on_broken=on_broken,
        on_commit=metrics.committed,
    )
    readers = Readers(lambda: open_reader(store, "store"))
    config = uvicorn.Config(
        App(secrets, committer, readers, metrics, legacy_batches=legacy_batches),
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,  # a request's path holds the webhook token
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config, committer, readers)
    server.run(sockets=[_listen(host, port)])
    if broken:
        sys.exit(1)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual
        )
    except OSError as error:
        setting = "port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "host"
        raise SettingError(setting, f"cannot listen on {host}:{port}: {error.strerror}") from error


class _Server(uvicorn.Server):
    """Starts what the application works with before the first request, stops it after the last.

    Args:
        config: The server's own settings.
        committer: Started and stopped.
        readers: Closed.
    """

    def __init__(self, config: uvicorn.Config, committer: Committer, readers: Readers) -> None:
        super().__init__(config)
        self._committer = committer
        self._readers = readers

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._committer.start()
        try:
            await super().serve(sockets)
        finally:
            await self._committer.stop()
            self._readers.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            logger.info("listening on %s", url, extra={"url": url})

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
