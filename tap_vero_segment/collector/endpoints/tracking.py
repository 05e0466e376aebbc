"""``POST /v1/track``, ``/v1/batch``, ``/v1/import``: Segment's HTTP Tracking API.

Its behaviour is that of segment.com/docs/connections/sources/catalog/libraries/server/http-api, so
that Segment's and RudderStack's own clients work against the collector.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.calls import Calls, keep, map_calls, read_object
from tap_vero_segment.collector.http import (
    MAX_BODY,
    HTTPError,
    Response,
    is_one_of,
    too_large,
)
from tap_vero_segment.collector.quarantine import quarantine
from tap_vero_segment.inputs.ids import canonical_json
from tap_vero_segment.inputs.segment import DROPPED, from_client
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.track import MAX_CALL, MAX_CALLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.http import Request

INPUT: Final = "tracking"

BATCHES: Final = frozenset({"/v1/batch", "/v1/import"})
SINGLES: Final = {
    f"/v1/{kind}": kind for kind in ("track", "identify", "page", "screen", "group", "alias")
}
PATHS: Final = BATCHES | SINGLES.keys()

# Browsers ask before they post JSON to another origin.
CORS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding"),
    (b"access-control-max-age", b"86400"),
)
SUCCESS: Final = Response(200, b'{"success":true}', headers=CORS[:1])
PREFLIGHT: Final = Response(200, b"", headers=CORS)

_GZIP_WINDOW: Final = 31  # zlib's way to say: with gzip's header


async def receive(request: Request, committer: Committer, write_keys: Sequence[str]) -> Response:
    """Store a call or a batch, whole or not at all, and answer when it is synced to disk.

    Raises:
        HTTPError: 400, the body is none of these or too large for Segment; 401, a wrong write key;
            413, the body is too long.
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
        content = read_object(body)
    except HTTPError as error:
        if basic is not None and error.status == HTTPStatus.BAD_REQUEST:
            await quarantine(DeadLetter(received_at, INPUT, error.message, body), committer)
        raise
    _check_key_in_body(content, basic, write_keys)
    request.admit()
    kind = SINGLES.get(request.path)
    if kind is None:
        calls = _map(_batch(content, body), received_at, _beside(content))
    else:
        calls = _map([_single(content, kind, len(body))], received_at, {})
    await keep(calls, committer)
    return SUCCESS


def read_kept(body: bytes, received_at: int) -> Calls:
    """Turn a body that a store has kept as a dead letter into what it is today.

    It is a call, a batch, or what could not be read when it came, of which no one knows any more
    where it was posted to. Segment's limits do not count: calls grow by what their batch says.

    Raises:
        HTTPError: 400, the body is neither.
    """
    content = read_object(body)
    # A call can have a field of that name, and a batch whatever a call has, but for its type.
    is_call = "event" in content and (
        "type" in content or not isinstance(content.get("batch"), list)
    )
    if "batch" in content and not is_call:
        return _map(_calls(content), received_at, _beside(content))
    # A call that was posted to /v1/track need not say what it is, and no other kind has an event.
    return _map([{"type": "track", **content}], received_at, {})


def _map(calls: list[Any], received_at: int, batch: dict[str, Any]) -> Calls:
    def body_of(calls: list[Any]) -> Any:
        return {**batch, "batch": calls} if batch or not isinstance(calls[0], dict) else calls[0]

    return map_calls(
        calls, lambda fields: from_client(fields, received_at, batch), received_at, INPUT, body_of
    )


def _beside(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a batch says beside its calls, and beside the context that is merged into them.

    ``sentAt``, and whatever a client adds: the batch's number, an id of its own.
    """
    rest = {name: value for name, value in content.items() if name not in DROPPED}
    del rest["batch"]
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
    return HTTPError(401, "a wrong write key, or none", *CORS[:1])


def _decoded(request: Request, body: bytes) -> bytes:
    """Undo the body's ``Content-Encoding``.

    Raises:
        HTTPError: 400, it is not what it says; 413, it is longer than it may be; 415, it is of
            another kind.
    """
    encoding = (request.header(b"content-encoding") or b"identity").strip().lower()
    if encoding == b"identity":
        return body
    if encoding != b"gzip":
        raise HTTPError(415, "a content-encoding other than gzip")
    unzip = zlib.decompressobj(_GZIP_WINDOW)
    try:
        # One byte more than it may be: a small body can unzip to gigabytes.
        content = unzip.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise HTTPError(400, "the body is not gzip") from error
    if len(content) > MAX_BODY:
        raise too_large(MAX_BODY)
    if not unzip.eof:
        raise HTTPError(400, "the body is not gzip")
    if unzip.unused_data:
        # Another one, maybe: thousands of them, each with nothing in it, would take long to read.
        raise HTTPError(400, "the body goes on behind its first gzip member")
    return content


def _single(content: dict[str, Any], kind: str, size: int) -> dict[str, Any]:
    if size > MAX_CALL:
        raise HTTPError(400, f"a call longer than {MAX_CALL} bytes")
    return {**content, "type": kind}


def _batch(content: dict[str, Any], body: bytes) -> list[Any]:
    """Return a batch's calls; refuse one that Segment would refuse."""
    calls = _calls(content)
    batch = content["batch"]
    if len(batch) > MAX_CALLS:
        raise HTTPError(400, f"batch: more than {MAX_CALLS} calls")
    if len(canonical_json({**_beside(content), "context": content.get("context")})) > MAX_CALL:
        # A few hundred kilobytes, in each of some thousand calls, are a gigabyte.
        raise HTTPError(400, f"batch: what is said for all calls is longer than {MAX_CALL} bytes")
    if any(len(canonical_json(call)) > MAX_CALL for call in batch):
        for number, size in enumerate(_sizes_as_sent(body, batch), start=1):
            if size > MAX_CALL:
                raise HTTPError(400, f"batch: call {number} is longer than {MAX_CALL} bytes")
    return calls


class _Sent(msgspec.Struct):
    """A batch whose calls are left as they came."""

    batch: list[msgspec.Raw]


def _sizes_as_sent(body: bytes, batch: list[Any]) -> list[int]:
    """Return the bytes of each call as it came: written anew, ``1e9`` is four times as long."""
    try:
        return [len(bytes(call)) for call in msgspec.json.decode(body, type=_Sent).batch]
    except msgspec.MsgspecError:  # half of a surrogate pair, say, of which only the text is known
        texts = (json.dumps(call, ensure_ascii=False, separators=(",", ":")) for call in batch)
        return [len(text.encode(errors="surrogatepass")) for text in texts]


def _calls(content: dict[str, Any]) -> list[Any]:
    """Return a batch's calls, each with what the batch says for all of them."""
    batch = content.get("batch")
    if not isinstance(batch, list):
        raise HTTPError(400, "batch: an array of objects")
    shared = content.get("context")
    if not isinstance(shared, dict):
        return batch
    return [_with_context(call, shared) for call in batch]


def _with_context(call: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(call, dict):
        return call
    own = call.get("context")
    if own is None:
        own = {}
    elif not isinstance(own, dict):
        own = {"context": own}  # where it would be without a batch
    return {**call, "context": {**shared, **own}}
