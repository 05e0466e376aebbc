"""What the responses of all endpoints share, and the errors that end the handling of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

from tap_vero_segment.collector.error_reasons import REASON_BY_STATUS, ErrorReason
from tap_vero_segment.inputs.body import NotJSONError, TooLargeError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tap_vero_segment.inputs.body import BodyError

JSON: Final = "application/json"

NDJSON: Final = "application/x-ndjson"

NO_STORE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
"""Headers of what nobody else may see, or take for something else."""

RETRY_AFTER: Final = {"retry-after": "1"}
"""Seconds: a full queue is empty again in less."""

SUCCESS: Final = Response(b'{"success":true}', media_type=JSON)


class HTTPError(Exception):
    """A response that ends the handling of a request.

    Args:
        status: The HTTP status.
        message: What went wrong, for the client; it repeats nothing of the request.
        headers: Further headers of the response.
        reason: What the metrics count it as; None: what the status means.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: ErrorReason | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.reason = reason or REASON_BY_STATUS[status]

    def response(self) -> Response:
        """Return the response, which the caller may add headers to."""
        body = msgspec.json.encode({"success": False, "error": self.message})
        return Response(body, self.status, NO_STORE | self.headers, JSON)


def too_large(limit: int) -> HTTPError:
    """Return the response to a body that is longer than ``limit`` bytes."""
    return HTTPError(413, f"the body is longer than {limit} bytes")


def error_of_body(error: BodyError) -> HTTPError:
    """Return the response to a body that is no use."""
    if isinstance(error, TooLongError):
        return HTTPError(413, str(error))
    reason = None
    if isinstance(error, NotJSONError):
        reason = ErrorReason.NOT_JSON
    elif isinstance(error, TooLargeError):
        reason = ErrorReason.TOO_LARGE
    return HTTPError(400, str(error), reason=reason)


def enabled(secrets: Sequence[str]) -> Sequence[str]:
    """Return the secrets of an endpoint; one without a secret is disabled.

    Raises:
        HTTPError: 404, it has none.
    """
    if not secrets:
        raise nothing_here()
    return secrets


def nothing_here(reason: ErrorReason = ErrorReason.NOT_FOUND) -> HTTPError:
    """Return the response to a request for what is not there, or not for this client."""
    return HTTPError(404, "there is nothing here", reason=reason)
