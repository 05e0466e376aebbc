"""``vero-collector serve``: the application in its server, from start to stop."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from tap_vero_segment.collector.app import App
from tap_vero_segment.collector.committer import Committer
from tap_vero_segment.collector.endpoints.events import EventPages
from tap_vero_segment.stores.readers import open_reader
from tap_vero_segment.stores.writers import open_writer

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator

    from tap_vero_segment.collector.settings import Secrets
    from tap_vero_segment.errors import UserError

logger = logging.getLogger("vero-collector")

MAX_PENDING: Final = 10_000
"""Requests that wait for their commit; the next one is answered with 503."""
MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Bytes of bodies that wait for their commit."""
SHUTDOWN_SECONDS: Final = 10
KEEP_ALIVE_SECONDS: Final = 65
"""Longer than the 60 seconds of the usual reverse proxies, so that they close first."""


def serve(store: str, host: str, port: int, secrets: Secrets) -> None:
    """Serve until SIGTERM or SIGINT; then write what waits, and return.

    Args:
        store: The store's URL.
        host: The address to listen on.
        port: The port; 0 takes a free one, which the log names.
        secrets: Who may do what.

    Raises:
        UserError: The store cannot be opened.
        SystemExit: Status 1: the port is taken, or the store failed in a way that only a fresh
            start can mend.
    """
    failures: list[UserError] = []
    broken: list[bool] = []

    def on_broken() -> None:
        broken.append(True)
        server.should_exit = True

    committer = Committer(
        lambda: open_writer(store, "store"),
        max_pending=MAX_PENDING,
        max_pending_bytes=MAX_PENDING_BYTES,
        on_broken=on_broken,
    )
    pages = EventPages(lambda: open_reader(store, "store"))
    config = uvicorn.Config(
        App(secrets, committer, pages, failures.append),
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,  # a request's path holds the webhook token
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    server.run(sockets=[config.bind_socket()])
    if failures:
        raise failures[0]
    if broken or not server.started:
        sys.exit(1)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)

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
