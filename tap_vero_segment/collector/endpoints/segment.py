"""``POST /segment``: Segment's Webhooks destinations, the classic one and the one of Actions.

Their format is documented at segment.com/docs/connections/destinations/catalog/webhooks and
``…/actions-webhook``: one call a request, or an array of calls, signed with a shared secret.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.endpoints.storing import keep, keep_dead_letter, read_in_thread
from tap_vero_segment.collector.request import is_one_of
from tap_vero_segment.collector.responses import SUCCESS, HTTPError
from tap_vero_segment.inputs.body import BOM, BodyError, NotJSONError, unzip
from tap_vero_segment.inputs.intake import SEGMENT, read_webhook
from tap_vero_segment.stores.base import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.responses import Response

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.request import Request

_SIGNATURE: Final = b"x-signature"
_WHOLE_SIGNATURE: Final = b"x-segment-signature"


async def receive(
    request: Request,
    committer: Committer,
    secrets: Sequence[str],
    erase: Callable[[Sequence[str]], Awaitable[None]] | None,
    *,
    legacy_batches: bool,
) -> Response:
    """Store what Segment delivers, and respond when it is synced to disk.

    Notices other than calls are acknowledged.

    Args:
        request: The request.
        committer: Takes the calls.
        secrets: The shared secret, and the one before it.
        erase: Erases the users of ``delete`` notices, or returns when it is sure to be done; None:
            these notices are ignored.
        legacy_batches: Whether an array is taken whose signature covers its first call only, as
            the Actions destination signs by default. Anyone who sees one such request can add
            calls behind the first.

    Raises:
        HTTPError: 401, a wrong signature; 413, the body is too long.
        BodyError: It is no JSON object and no array, or too long when unzipped.
    """
    if not any(request.header(name) for name in (_SIGNATURE, _WHOLE_SIGNATURE)):
        raise _wrong_signature()
    body = await request.body()
    received_at = times.now()
    if not _is_signed(request, body, secrets, legacy_batches=legacy_batches):
        raise _wrong_signature()
    request.admit()
    try:
        content = unzip(body)
        calls = await read_in_thread(
            len(content), lambda: read_webhook(content, received_at), committer
        )
    except NotJSONError as error:
        await keep_dead_letter(DeadLetter(received_at, SEGMENT, str(error), body), committer)
        raise
    await keep(calls, committer)
    if erase is not None and calls.deleted:
        await erase(calls.deleted)
    return SUCCESS


def _is_signed(
    request: Request, body: bytes, secrets: Sequence[str], *, legacy_batches: bool
) -> bool:
    whole = request.header(_WHOLE_SIGNATURE)
    if whole is not None and _matches(whole, body, secrets):
        return True
    signature = request.header(_SIGNATURE)
    if signature is None:
        return False
    if _matches(signature, body, secrets):
        return True
    first = _first_call(body) if legacy_batches else None
    return first is not None and _matches(signature, first, secrets)


def _wrong_signature() -> HTTPError:
    return HTTPError(401, "a wrong signature, or none")


def _matches(signature: bytes, content: bytes, secrets: Sequence[str]) -> bool:
    """Compare in constant time with the HMAC of each secret, SHA-1 as documented."""
    expected = [hmac.new(secret.encode(), content, "sha1").hexdigest() for secret in secrets]
    return is_one_of(signature.strip().lower(), expected)


def _first_call(body: bytes) -> bytes | None:
    """Return the bytes of an array's first call: what ``JSON.stringify`` has made of it."""
    try:
        calls = msgspec.json.decode(unzip(body).removeprefix(BOM), type=list[msgspec.Raw])
    except (BodyError, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return bytes(calls[0]) if calls else None
