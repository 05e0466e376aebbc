"""``POST /v1/track``, ``/v1/batch``, ``/v1/import``: Segment's HTTP Tracking API.

Its behaviour is that of segment.com/docs/connections/sources/catalog/libraries/server/http-api, so
that Segment's and RudderStack's own clients work against the collector.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.storing import (
    MAX_IN_LOOP,
    keep,
    keep_dead_letter,
    read_in_thread,
)
from tap_vero_segment.collector.request import is_one_of
from tap_vero_segment.collector.responses import JSON, HTTPError
from tap_vero_segment.inputs.body import BOM, NotJSONError, not_gzip, unzip
from tap_vero_segment.inputs.intake import (
    TRACKING,
    Calls,
    read_batch,
    read_single,
    read_tracked,
    shared_size,
)
from tap_vero_segment.limits import MAX_CALLS, MAX_SHARED
from tap_vero_segment.stores.base import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.request import Request

BATCH: Final = "batch"
NAMES: Final = {
    **dict.fromkeys(("batch", "import", "b"), BATCH),
    **{
        name: kind
        for kind in ("track", "identify", "page", "screen", "group", "alias")
        for name in (kind, kind[0])
    },
}
"""Kinds of calls by what stands behind ``/v1/``: Segment's clients for C#, Kotlin and React Native
and its Analytics.js post to ``/v1/b`` and ``/v1/t``."""

PATHS: Final = {
    f"{start}v1/{name}{end}": kind
    for name, kind in NAMES.items()
    for start in ("/", "//")  # an older client for Node, whose host ends with a slash
    for end in ("", "/")  # the client for Java
}
"""The kinds of calls by all paths that Segment's clients post them to."""

# Browsers ask before they post JSON to another origin.
ALLOW_ORIGIN: Final = {"access-control-allow-origin": "*"}
"""On each response: without it a browser sees no status, and sends again what was refused."""
CORS: Final = ALLOW_ORIGIN | {
    "access-control-allow-methods": "POST, OPTIONS",
    "access-control-allow-headers": "authorization, content-type, content-encoding",
    "access-control-max-age": "86400",
}
SUCCESS: Final = Response(b'{"success":true}', headers=ALLOW_ORIGIN, media_type=JSON)
PREFLIGHT: Final = Response(headers=CORS)


async def receive(request: Request, committer: Committer, write_keys: Sequence[str]) -> Response:
    """Store a call or a batch, whole or not at all, and respond when it is synced to disk.

    Raises:
        HTTPError: 401, a wrong write key; 413, the body is too long; 415, it has another
            ``Content-Encoding`` than gzip.
        BodyError: The body is neither, is too large for Segment, or too long when unzipped.
    """
    basic = _basic_user(request)
    if basic is not None and not is_one_of(basic, write_keys):
        raise _wrong_key()
    if basic is not None:
        request.admit()
    body = await request.body()
    received_at = times.now()
    try:
        body = _decoded(request, body)
        if basic is None and len(body) > MAX_IN_LOOP:
            _check_key_shown(body, write_keys)
        content = await read_in_thread(len(body), lambda: read_tracked(body), committer)
    except NotJSONError as error:
        if basic is not None:
            await keep_dead_letter(DeadLetter(received_at, TRACKING, str(error), body), committer)
        raise
    _check_key_in_body(content, basic, write_keys)
    request.admit()
    kind = PATHS[request.path]
    size = len(body)
    if kind == BATCH and size <= MAX_IN_LOOP:
        size += min(shared_size(content), MAX_SHARED)

    def read() -> Calls:
        if kind == BATCH:
            return read_batch(content, body, received_at)
        return read_single(content, kind, body, received_at)

    calls = await read_in_thread(size, read, committer)
    await keep(calls, committer)
    return SUCCESS


def _basic_user(request: Request) -> bytes | None:
    """Return the user name of Basic authentication, where there is one."""
    scheme, _, given = (request.header(b"authorization") or b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(given.strip(), validate=True).partition(b":")[0]
    except binascii.Error as error:
        raise _wrong_key() from error


def _check_key_in_body(
    content: dict[str, Any], basic: bytes | None, write_keys: Sequence[str]
) -> None:
    """Make sure that a write key was given, and that each one that was given is right."""
    given = content.get("writeKey")
    if given is None and basic is not None:
        return
    if not isinstance(given, str) or not is_one_of(given.encode(errors="replace"), write_keys):
        raise _wrong_key()


def _wrong_key() -> HTTPError:
    return HTTPError(401, "a wrong write key, or none")


class _WithKey(msgspec.Struct):
    """As much of a body as shows its write key."""

    write_key: str = msgspec.field(default="", name="writeKey")


_with_key: Final = msgspec.json.Decoder(_WithKey)
_KEY: Final = re.compile(rb'"writeKey"[ ]{0,8}:[ ]{0,8}"([^"\\]{1,200})"')


def _check_key_shown(body: bytes, write_keys: Sequence[str]) -> None:
    """Refuse a long body without the right write key before work is spent on reading it.

    Raises:
        HTTPError: 401, it has no right one.
    """
    try:
        given = [_with_key.decode(body.removeprefix(BOM)).write_key.encode()]
    except msgspec.ValidationError:
        given = []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Half of a surrogate pair, say: it may be read with patience.
        found = itertools.islice(re.finditer(rb'"writeKey"', body), MAX_CALLS + 1)
        keys = (_KEY.match(body, each.start()) for each in found)
        given = [key[1] for key in keys if key]
    if not any([is_one_of(key, write_keys) for key in given]):  # noqa: C419  # as there
        raise _wrong_key()


def _decoded(request: Request, body: bytes) -> bytes:
    """Undo the body's ``Content-Encoding``.

    Raises:
        HTTPError: 415, it has another encoding than gzip.
        BodyError: It is not gzip, or longer than it may be.
    """
    encoding = (request.header(b"content-encoding") or b"identity").strip().lower()
    if encoding not in {b"identity", b"gzip", b"x-gzip"}:
        raise HTTPError(415, "a content-encoding other than gzip")
    content = unzip(body)
    if content is body and encoding != b"identity":
        raise not_gzip()
    return content
