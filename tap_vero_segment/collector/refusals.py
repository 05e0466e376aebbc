"""Why a request was refused: a fixed set of words, none of which comes from a request."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Refusal(StrEnum):
    """The reason for an answer that is no success, as the metrics name it."""

    ANSWER_NOT_READ = "answer_not_read"
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


BY_STATUS: Final = {
    400: Refusal.BAD_REQUEST,
    401: Refusal.WRONG_SECRET,
    403: Refusal.FORBIDDEN,
    404: Refusal.NOT_FOUND,
    405: Refusal.METHOD,
    408: Refusal.TIMEOUT,
    413: Refusal.TOO_LARGE,
    415: Refusal.UNSUPPORTED_ENCODING,
    429: Refusal.TOO_MANY_GUESSES,
    431: Refusal.HEADERS_TOO_LARGE,
    500: Refusal.FAULT,
    503: Refusal.OVERLOADED,
}
"""What a status means where nothing says it more exactly."""
