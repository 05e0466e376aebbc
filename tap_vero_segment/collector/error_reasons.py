"""Why a request was refused or a connection cut off: for metrics, ``status`` and the live page."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class ErrorReason(StrEnum):
    """The reason for a response that is not a success, as the metrics name it."""

    RESPONSE_NOT_READ = "response_not_read"
    BAD_REQUEST = "bad_request"
    FAULT = "fault"
    FORBIDDEN = "forbidden"
    HEADERS_TOO_LARGE = "headers_too_large"
    METHOD = "method"
    NO_SESSION = "no_session"
    NOT_FOUND = "not_found"
    NOT_HTTP = "not_http"
    NOT_JSON = "not_json"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    STORE_BROKEN = "store_broken"
    STORE_FAILED = "store_failed"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_GUESSES = "too_many_guesses"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    WRONG_SECRET = "wrong_secret"  # noqa: S105  # a word for the metrics


REASON_BY_STATUS: Final = {
    400: ErrorReason.BAD_REQUEST,
    401: ErrorReason.WRONG_SECRET,
    403: ErrorReason.FORBIDDEN,
    404: ErrorReason.NOT_FOUND,
    405: ErrorReason.METHOD,
    408: ErrorReason.TIMEOUT,
    413: ErrorReason.TOO_LARGE,
    415: ErrorReason.UNSUPPORTED_ENCODING,
    429: ErrorReason.TOO_MANY_GUESSES,
    431: ErrorReason.HEADERS_TOO_LARGE,
    500: ErrorReason.FAULT,
    503: ErrorReason.OVERLOADED,
}
"""What a status means where nothing says it more exactly."""

STATUSES: Final[dict[str, str]] = {
    **{reason: str(status) for status, reason in REASON_BY_STATUS.items()},
    ErrorReason.NO_SESSION: "401",
    ErrorReason.NOT_HTTP: "400",
    ErrorReason.NOT_JSON: "400",
    ErrorReason.SHUTTING_DOWN: "503",
    ErrorReason.STORE_BROKEN: "503",
    ErrorReason.STORE_FAILED: "503",
    ErrorReason.TOO_MANY_CONNECTIONS: "503",
    ErrorReason.WRONG_SECRET: "401, 404",
}
"""The statuses that a reason comes with; one that is missing comes with none."""
