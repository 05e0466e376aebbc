"""What stands before every endpoint: whether it is there, and with which method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment.collector.http import HTTPError
from tap_vero_segment.collector.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.collector.http import Request


def opened(secrets: Sequence[str]) -> Sequence[str]:
    """Return the secrets of a door; one without a secret is not there at all.

    Raises:
        HTTPError: 404, it has none.
    """
    if not secrets:
        raise nothing_here()
    return secrets


def nothing_here(reason: Refusal = Refusal.NOT_FOUND) -> HTTPError:
    """Return the answer to who asks for what is not there, or not for him."""
    return HTTPError(404, "there is nothing here", reason=reason)


def check_method(request: Request, method: str) -> None:
    """See that a request has the method that its endpoint wants; HEAD passes for GET.

    Raises:
        HTTPError: 405, it has not.
    """
    if request.method != method and not (method == "GET" and request.method == "HEAD"):
        allowed = b"GET, HEAD" if method == "GET" else method.encode()
        raise HTTPError(405, f"only {method} here", (b"allow", allowed))
