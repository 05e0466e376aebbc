"""A small object store over HTTP that speaks as much of S3 as a reader needs, and fails to order.

Google Cloud Storage speaks the same to a reader, but for what it unzips on the way.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.s3 import ACCESS_KEY, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.support.archive import ArchiveObject

    Fault = Callable[["Handler"], bool]
    """Meets a request; returns whether it has answered it."""

BUCKET = "bucket"
LISTING = ""
"""What a listing is a request of."""

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Held(NamedTuple):
    content: bytes
    modified_at: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class Asked(NamedTuple):
    """A request: of an object, by its path, or a listing, and its query and headers."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class FaultyS3:
    """Serves objects; usable as a context manager.

    Attributes:
        objects: What it holds, by path.
        faults: What the next requests of an object, or of a listing, meet.
        always: What all requests meet for which no other fault is left.
        unzips: Whether it unzips for readers that do not say that they can, as Google does.
        asked: The requests so far.
    """

    def __init__(
        self, objects: Iterable[ArchiveObject], *, page: int = 1_000, unzips: bool = False
    ) -> None:
        self.objects = {made.path: Held(made.content, made.modified_at) for made in objects}
        self.page = page
        self.unzips = unzips
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.always: Fault | None = None
        self.asked: list[Asked] = []
        store = self

        class _Handler(Handler):
            held = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def options(self) -> dict[str, Any]:
        """What ``storage_options`` need to say to get here."""
        return {
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "region": "eu-west-1",
            "endpoint": self.endpoint,
            "allow_http": True,
        }

    def asked_of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: FaultyS3

    def handle(self) -> None:
        with suppress(ConnectionError):  # the tap may have gone away
            super().handle()

    def do_PUT(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        bucket, _, self.key = unquote(parts.path).removeprefix("/").partition("/")
        self.held.asked.append(
            Asked(self.key, self.query, {k.lower(): v for k, v in self.headers.items()})
        )
        waiting = self.held.faults[self.key]
        fault = waiting.popleft() if waiting else self.held.always
        if fault is not None and fault(self):
            return
        if bucket != BUCKET:
            self.refuse(404, "NoSuchBucket")
        elif self.command == "PUT":
            self.put()
        elif self.key == LISTING:
            self.list()
        else:
            self.get()

    def put(self) -> None:
        """Keep an object, unless it is there and must not be."""
        if self.headers.get("If-None-Match") == "*" and self.key in self.held.objects:
            self.refuse(412, "PreconditionFailed")
            return
        held = Held(self.body, datetime.now(UTC))
        self.held.objects[self.key] = held
        self.answer(200, b"", {"ETag": held.etag})

    def get(self, *, cut: float = 1, wait: float = 0) -> None:
        """Answer with an object.

        Args:
            cut: How much of the answer's body is sent before the connection is reset.
            wait: Seconds between two of the hundred pieces that the body is sent in.
        """
        held = self.held.objects.get(self.key)
        if held is None:
            self.refuse(404, "NoSuchKey")
            return
        if self.headers.get("If-Match", held.etag) != held.etag:
            self.refuse(412, "PreconditionFailed")
            return
        if self.held.unzips and self.headers.get("Accept-Encoding") != "gzip":
            self._get_unzipped(held)
            return
        body, status = held.content, 200
        headers = {
            "ETag": held.etag,
            "Last-Modified": format_datetime(held.modified_at, usegmt=True),
        }
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        if found:
            first, last = int(found[1]), int(found[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
            body, status = body[first : last + 1], 206
        self.answer(status, body, headers, cut=cut, wait=wait)

    def _get_unzipped(self, held: Held) -> None:
        """Answer without a length, whatever range was asked for."""
        self.send_response(200)
        self.send_header("ETag", held.etag)
        self.send_header("Last-Modified", format_datetime(held.modified_at, usegmt=True))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        content = gzip.decompress(held.content)
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))

    def list(self) -> None:
        """Answer with a page of a listing."""
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        entries: dict[str, str] = {}
        for path, held in sorted(self.held.objects.items()):
            if not path.startswith(prefix):
                continue
            folder, found, _ = path.removeprefix(prefix).partition(delimiter or "\n")
            if found:
                name = f"{prefix}{folder}{found}"
                entries[name] = f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"
            else:
                entries[path] = (
                    f"<Contents><Key>{escape(path)}</Key><Size>{len(held.content)}</Size>"
                    f"<LastModified>{held.modified_at:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
                    f"<ETag>{escape(held.etag)}</ETag></Contents>"
                )
        after = self.query.get("continuation-token", "")
        names = [name for name in sorted(entries) if name > after]
        shown = names[: self.held.page]
        more = f"<NextContinuationToken>{shown[-1]}</NextContinuationToken>" if shown else ""
        body = (
            '<?xml version="1.0"?><ListBucketResult>'
            f"<Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(shown)}</KeyCount>"
            f"<IsTruncated>{str(len(names) > len(shown)).lower()}</IsTruncated>"
            f"{more if len(names) > len(shown) else ''}"
            f"{''.join(entries[name] for name in shown)}</ListBucketResult>"
        )
        self.answer(200, body.encode(), {"Content-Type": "application/xml"})

    def refuse(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>No.</Message></Error>"
        self.answer(status, body.encode(), {"Content-Type": "application/xml"})

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str],
        *,
        cut: float = 1,
        wait: float = 0,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body[: int(len(body) * cut)]
        step = max(len(sent) // 100, 1) if wait else len(sent) or 1
        for start in range(0, len(sent), step):
            self.wfile.write(sent[start : start + step])
            time.sleep(wait)
        if cut < 1:
            self.reset()

    def reset(self) -> None:
        """Reset the connection."""
        # A linger of zero seconds: the kernel sends a reset instead of an orderly end.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def refused(status: int, code: str) -> Fault:
    def fault(handler: Handler) -> bool:
        handler.refuse(status, code)
        return True

    return fault


def reset(handler: Handler) -> bool:
    """Reset the connection before a byte of the answer."""
    handler.reset()
    return True


def cut(part: float) -> Fault:
    """Send a part of an object, then reset the connection."""

    def fault(handler: Handler) -> bool:
        handler.get(cut=part)
        return True

    return fault


def slow(wait: float) -> Fault:
    """Send an object in a hundred pieces, with a pause after each."""

    def fault(handler: Handler) -> bool:
        handler.get(wait=wait)
        return True

    return fault


def deleted(handler: Handler) -> bool:
    """Delete the object, just before it is read."""
    del handler.held.objects[handler.key]
    return False


def overwritten(content: bytes, modified_at: datetime) -> Fault:
    """Overwrite the object, just before it is read."""

    def fault(handler: Handler) -> bool:
        handler.held.objects[handler.key] = Held(content, modified_at)
        return False

    return fault
