"""``GET /live``: what changes, as it changes, as server-sent events.

One task reads the store for all open pages, and only while there is one. There is no queue: a page
that is ready for more gets the state of that moment, compared with what it has shown. A slow page
skips events, shows how many, and costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.collector.live_page import snapshot
from tap_vero_segment.collector.live_page.snapshot import Cursor, Snapshot
from tap_vero_segment.collector.responses import RETRY_AFTER, HTTPError
from tap_vero_segment.errors import UserError, describe_fault
from tap_vero_segment.limits import MAX_WATCHERS
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tap_vero_segment.collector.live_page.snapshot import LetterEntry
    from tap_vero_segment.collector.reader_pool import ReaderPool


logger = logging.getLogger("vero-collector")
TICK_SECONDS: Final = 1.0
"""How often the store is read."""
STORE_SECONDS: Final = 5
"""How long the store may take, and still be called readable."""
HEARTBEAT_SECONDS: Final = 15.0
"""How long nothing may be sent: less than the 60 seconds after which proxies give up."""
MAX_EVENTS: Final = 20
"""Events in a message; those before them are only counted."""
RETRY: Final = b"retry: 2000\n\n"
"""Milliseconds after which a browser comes again when the stream has ended."""
_CURSOR: Final = re.compile(r"([0-9TZ:.-]{27})?~([0-9]{1,15})")


def encode_cursor(cursor: Cursor) -> str:
    """Write a cursor as the id of a message, which the browser brings back."""
    return f"{cursor.at}~{cursor.events}"


def decode_cursor(text: str) -> Cursor | None:
    """Read a cursor; None: it is not a cursor."""
    found = _CURSOR.fullmatch(text)
    return Cursor(found[1] or "", int(found[2])) if found else None


class Feed:
    """Sends what comes to the open pages.

    Args:
        reader_pool: Read the store.
        accepts_writes: Returns whether the store does.
    """

    def __init__(
        self, reader_pool: ReaderPool, accepts_writes: Callable[[], Awaitable[bool]]
    ) -> None:
        self._reader_pool = reader_pool
        self._accepts_writes = accepts_writes
        self._watchers: list[str] = []  # the collection that each of them looks at
        self._poller: asyncio.Task[None] | None = None
        self._latest: Snapshot | None = None
        self._readable = True
        self._changed = asyncio.Event()
        self._closed = False

    def watch(
        self, collection: str, cursor: Cursor | None, holds: Callable[[], bool]
    ) -> tuple[AsyncGenerator[bytes], Callable[[], None]]:
        """Return what is sent to an open page, and what must be called when that has ended.

        The page has its place from now on, before anything is sent.

        Args:
            collection: Whose events it shows.
            cursor: How far it has them; None: from now on.
            holds: Whether its session goes on.

        Raises:
            HTTPError: 503, too many pages are open.
        """
        if self._closed or len(self._watchers) >= MAX_WATCHERS:
            # Not overload: what comes in is taken all the same.
            reason = ErrorReason.TOO_MANY_CONNECTIONS
            raise HTTPError(503, "too many watch already", RETRY_AFTER, reason=reason)
        self._watchers.append(collection)
        if self._poller is None:
            self._latest = None  # it can be hours old
            self._poller = asyncio.create_task(self._poll())
        return self._parts(collection, cursor, holds), lambda: self._leave(collection)

    def _leave(self, collection: str) -> None:
        self._watchers.remove(collection)
        if not self._watchers and self._poller is not None:
            self._poller.cancel()
            self._poller = None

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        if self._poller is not None:
            self._poller.cancel()
        self.wake()

    async def _parts(
        self, collection: str, cursor: Cursor | None, holds: Callable[[], bool]
    ) -> AsyncGenerator[bytes]:
        watcher = _Watcher(collection, cursor)
        yield RETRY
        while not self._closed and holds():
            changed = self._changed
            if not self._readable:
                yield _message("trouble", {})
            elif self._latest is not None and (news := watcher.news(self._latest)):
                yield news
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                yield b":\n\n"

    async def _poll(self) -> None:
        while True:
            try:
                latest = await self._read()
            except (StoreError, UserError, OSError) as error:
                self._cannot_read(str(error))
            except Exception as error:  # noqa: BLE001  # whose text could name recipients
                self._cannot_read(f"unexpected {describe_fault(error)}")
            else:
                if latest is not self._latest or not self._readable:
                    self._readable = True
                    self._latest = latest
                    self.wake()
            await asyncio.sleep(TICK_SECONDS)

    async def _read(self) -> Snapshot:
        """Read the store; where that takes long, say so and go on waiting."""
        before, shown = self._latest, {snapshot.EVERYTHING, *self._watchers}
        writable = await self._accepts_writes()
        reading = asyncio.ensure_future(
            self._reader_pool.read(
                lambda reader: snapshot.read(
                    reader, times.now(), shown, MAX_EVENTS, before, writable=writable
                )
            )
        )
        try:
            done, _ = await asyncio.wait({reading}, timeout=STORE_SECONDS)
            if not done:
                self._cannot_read(f"no response within {STORE_SECONDS} seconds")
            return await reading
        finally:
            reading.cancel()

    def _cannot_read(self, why: str) -> None:
        if self._readable:
            logger.error("the store cannot be read: %s", why)
            self._readable = False
            self.wake()

    def wake(self) -> None:
        """Let all open pages look again at what there is, and whether they still may."""
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()


class _Watcher:
    """Knows what an open page has shown.

    Args:
        collection: Whose events it shows.
        cursor: How far it has them; None: from now on.
    """

    def __init__(self, collection: str, cursor: Cursor | None) -> None:
        self._collection = collection
        self._cursor = cursor
        self._counts: dict[str, Any] = {}
        self._letters: list[LetterEntry] | None = None

    def news(self, latest: Snapshot) -> bytes:
        """Return what it has not shown yet."""
        messages = []
        counts = {
            "rows": latest.rows,
            "refused": latest.refused,
            "writable": latest.writable,
        }
        if counts != self._counts:
            self._counts = counts
            messages.append(_message("counts", {"now": latest.now // 1_000, **counts}))
        if latest.letters is not self._letters:
            self._letters = latest.letters
            letters = {"count": latest.summary.dead_letters, "letters": latest.letters}
            messages.append(_message("letters", letters))
        if self._collection in latest.newest:
            messages.append(self._events(latest))
        return b"".join(messages)

    def _events(self, latest: Snapshot) -> bytes:
        seen, self._cursor = self._cursor, latest.cursor(self._collection)
        if seen is None:
            return b"id: %b\n" % encode_cursor(self._cursor).encode() + _message("seen", {})
        if seen == self._cursor:
            return b""
        self._cursor = self._cursor._replace(at=max(self._cursor.at, seen.at))
        fresh = [entry for entry in latest.newest[self._collection] if entry.at > seen.at]
        missed = max(0, self._cursor.events - seen.events - len(fresh))
        if not fresh and not missed:
            return b""
        news = _message("events", {"events": fresh, "missed": missed})
        return b"id: %b\n" % encode_cursor(self._cursor).encode() + news


def _message(name: str, content: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(content))
