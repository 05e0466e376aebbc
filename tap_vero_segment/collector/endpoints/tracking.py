"""``POST /v1/track``, ``/v1/batch``, ``/v1/import``: Segment's HTTP Tracking API.

Its behaviour is that of segment.com/docs/connections/sources/catalog/libraries/server/http-api, so
that Segment's and RudderStack's own clients work against the collector.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.calls import (
    MAX_IN_LOOP,
    Calls,
    keep,
    map_calls,
    read_calls,
    read_object,
)
from tap_vero_segment.collector.http import HTTPError, Response, is_one_of, not_gzip, unzip
from tap_vero_segment.collector.quarantine import quarantine
from tap_vero_segment.collector.refusals import Refusal
from tap_vero_segment.inputs.body import BOM, clean
from tap_vero_segment.inputs.ids import canonical_json
from tap_vero_segment.inputs.segment import from_client, is_dropped
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.track import MAX_CALL, MAX_CALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.http import Request

INPUT: Final = "tracking"

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
ALLOW_ORIGIN: Final = (b"access-control-allow-origin", b"*")
"""On each response: without it a browser sees no status, and sends again what was refused."""
CORS: Final = (
    ALLOW_ORIGIN,
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding"),
    (b"access-control-max-age", b"86400"),
)
SUCCESS: Final = Response(200, b'{"success":true}')
PREFLIGHT: Final = Response(200, b"", headers=CORS[1:])

MAX_SHARED: Final = 4 * 1024 * 1024
"""Bytes of what a batch says for all its calls, counted for each: a kilobyte and a half in each of
the most calls that it may have."""


async def receive(request: Request, committer: Committer, write_keys: Sequence[str]) -> Response:
    """Store a call or a batch, whole or not at all, and answer when it is synced to disk.

    Raises:
        HTTPError: 400, the body is none of these or too large for Segment; 401, a wrong write key;
            413, the body is too long; 415, it has another ``Content-Encoding`` than gzip.
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
        content = await read_calls(len(body), lambda: read_object(body), committer)
    except HTTPError as error:
        if basic is not None and error.status == HTTPStatus.BAD_REQUEST:
            await quarantine(DeadLetter(received_at, INPUT, error.message, body), committer)
        raise
    _check_key_in_body(content, basic, write_keys)
    request.admit()
    kind = PATHS[request.path]
    size = len(body)
    if kind == BATCH and size <= MAX_IN_LOOP:
        size += min(_shared_size(content), MAX_SHARED)
    calls = await read_calls(size, lambda: _read(content, kind, body, received_at), committer)
    await keep(calls, committer)
    return SUCCESS


def _read(content: dict[str, Any], kind: str, body: bytes, received_at: int) -> Calls:
    """Turn a request's content into what the store keeps.

    Raises:
        HTTPError: 400, it is more than Segment would take.
    """
    if kind == BATCH:
        _check_batch(content, body)
        return _map_batch(content, received_at)
    if len(body) > MAX_CALL:
        message = f"a call longer than {MAX_CALL} bytes"
        raise HTTPError(400, message, reason=Refusal.TOO_LARGE)
    return _map([{**content, "type": kind}], received_at, {})


def read_kept(body: bytes, received_at: int) -> Calls:
    """Turn a body that a store has kept as a dead letter into what it is today.

    It is a call, a batch, or what could not be read when it came, of which no one knows any more
    where it was posted to. Segment's limits do not count: calls grow by what their batch says.

    Raises:
        HTTPError: 400, the body is neither.
    """
    content = read_object(unzip(body))
    # A call can have a field of that name, and a batch whatever a call has, but for its type.
    is_call = "event" in content and (
        "type" in content or not isinstance(content.get("batch"), list)
    )
    if "batch" in content and not is_call:
        return _map_batch(content, received_at)
    # A call that was posted to /v1/track need not say what it is, and no other kind has an event.
    return _map([{"type": "track", **content}], received_at, {})


def _map_batch(content: dict[str, Any], received_at: int) -> Calls:
    """Map a batch's calls, each with what the batch says for all of them.

    Raises:
        HTTPError: 400, it is no batch, or the calls would become too much.
    """
    batch = _calls(content)
    if _shared_size(content) > MAX_SHARED:
        _too_much(
            f"what is said for all calls, counted for each, is longer than {MAX_SHARED} bytes; "
            "send fewer calls in a batch"
        )
    shared = content.get("context")
    calls = [_with_context(call, shared) for call in batch] if isinstance(shared, dict) else batch
    return _map(calls, received_at, _beside(content))


def _map(calls: list[Any], received_at: int, batch: dict[str, Any]) -> Calls:
    def body_of(calls: list[Any]) -> Any:
        return {**batch, "batch": calls} if batch or not isinstance(calls[0], dict) else calls[0]

    cleaned = clean(batch)
    return map_calls(
        calls, lambda fields: from_client(fields, received_at, cleaned), received_at, INPUT, body_of
    )


def _shared_size(content: dict[str, Any]) -> int:
    """Return the bytes of what a batch says for all its calls, counted for each of them."""
    batch = content.get("batch")
    return len(_shared(content)) * len(batch) if isinstance(batch, list) else 0


def _shared(content: dict[str, Any]) -> bytes:
    shared = content.get("context")
    return canonical_json({**_beside(content), "context": shared})


def _beside(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a batch says beside its calls, and beside the context that is merged into them.

    ``sentAt``, and whatever a client adds: the batch's number, an id of its own.
    """
    rest = {name: value for name, value in content.items() if not is_dropped(name)}
    rest.pop("batch", None)
    if rest.get("context") is None or isinstance(rest["context"], dict):
        rest.pop("context", None)
    return rest


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
        HTTPError: 400, it is not what it says; 413, it is longer than it may be; 415, it is of
            another kind.
    """
    encoding = (request.header(b"content-encoding") or b"identity").strip().lower()
    if encoding not in {b"identity", b"gzip", b"x-gzip"}:
        raise HTTPError(415, "a content-encoding other than gzip")
    content = unzip(body)
    if content is body and encoding != b"identity":
        raise not_gzip()
    return content


def _check_batch(content: dict[str, Any], body: bytes) -> None:
    """Refuse a batch that Segment would refuse.

    Raises:
        HTTPError: 400, it is none or too large.
    """
    batch = _calls(content)
    if len(batch) > MAX_CALLS:
        _too_much(f"more than {MAX_CALLS} calls")
    if len(_shared(content)) > MAX_CALL:
        _too_much(f"what is said for all calls is longer than {MAX_CALL} bytes")
    if any(len(canonical_json(call)) > MAX_CALL for call in batch):
        for number, size in enumerate(_sizes_as_sent(body, batch), start=1):
            if size > MAX_CALL:
                _too_much(f"call {number} is longer than {MAX_CALL} bytes")


def _too_much(problem: str) -> NoReturn:
    raise HTTPError(400, f"batch: {problem}", reason=Refusal.TOO_LARGE)


class _Sent(msgspec.Struct):
    """A batch whose calls are left as they came."""

    batch: list[msgspec.Raw]


def _sizes_as_sent(body: bytes, batch: list[Any]) -> list[int]:
    """Return the bytes of each call as it came: written anew, ``1e9`` is four times as long."""
    try:
        sent = msgspec.json.decode(body.removeprefix(BOM), type=_Sent)
        return [len(bytes(call)) for call in sent.batch]
    except msgspec.MsgspecError:  # half of a surrogate pair, say, of which only the text is known
        texts = (json.dumps(call, ensure_ascii=False, separators=(",", ":")) for call in batch)
        return [len(text.encode(errors="surrogatepass")) for text in texts]


def _calls(content: dict[str, Any]) -> list[Any]:
    batch = content.get("batch")
    if not isinstance(batch, list):
        raise HTTPError(400, "batch: an array of objects")
    return batch


def _with_context(call: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(call, dict):
        return call
    own = call.get("context")
    if own is None:
        own = {}
    elif not isinstance(own, dict):
        own = {"context": own}  # where it would be without a batch
    return {**call, "context": {**shared, **own}}
