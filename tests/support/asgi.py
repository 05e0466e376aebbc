"""The collector's application in the process of the test, where a test is about its writer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tap_vero_segment.collector.app import App
from tap_vero_segment.collector.committer import Committer
from tap_vero_segment.collector.metrics import Metrics
from tap_vero_segment.collector.reader_pool import ReaderPool
from tap_vero_segment.collector.settings import Secrets
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tap_vero_segment.stores.base import Reader, Writer


_SECRETS = Secrets((WEBHOOK_TOKEN,), (READ_TOKEN,))


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    app: App,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Answer:
    """Send a request, as a server would hand it on."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": headers or [(b"authorization", f"Bearer {READ_TOKEN}".encode())],
    }
    await app(scope, receive, send)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(part["body"] for part in sent[1:]))


async def post(app: App, body: bytes) -> Answer:
    return await ask(app, "POST", f"/vero/{WEBHOOK_TOKEN}", body)


def _no_reader() -> Reader:
    raise AssertionError


@asynccontextmanager
async def running(
    open_writer: Callable[[], Writer],
    open_reader: Callable[[], Reader] = _no_reader,
    *,
    max_pending: int = 1_000,
    max_pending_bytes: int = 1_000_000,
    on_broken: Callable[[], None] = lambda: None,
    secrets: Secrets = _SECRETS,
) -> AsyncIterator[App]:
    """The application with a writer of the test's choice, from start to stop."""
    metrics = Metrics()
    committer = Committer(
        open_writer,
        max_pending=max_pending,
        max_pending_bytes=max_pending_bytes,
        on_broken=on_broken,
        on_commit=metrics.committed,
    )
    readers = ReaderPool(open_reader)
    await committer.start()
    try:
        yield App(secrets, committer, readers, metrics)
    finally:
        await committer.stop()
        readers.close()
