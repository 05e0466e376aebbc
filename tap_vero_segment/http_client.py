"""What the tap and the target share as clients over HTTP: which faults pass, and their names."""

from __future__ import annotations

import socket
import ssl
from http.client import IncompleteRead
from typing import TYPE_CHECKING, Final, Self

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.util import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from urllib3.connectionpool import ConnectionPool
    from urllib3.response import BaseHTTPResponse

_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's numbers of what is wrong with a certificate that nobody vouches for."""

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST"})
"""OpenSSL's names of an answer that is no TLS at all."""

_PIECE: Final = 65_536
"""Bytes of a response that are unzipped at once."""


class TooLargeError(Exception):
    """A response has more bytes than it may have."""


def read_body(response: requests.Response, most: int) -> bytes:
    """Return a response's body, unzipped piece by piece.

    Args:
        response: A response that was asked for with ``stream=True``.
        most: The most bytes that it may have once unzipped; a megabyte of gzip can hold a
            gigabyte.

    Raises:
        TooLargeError: It has more; the connection is closed.
        requests.RequestException: It breaks off.
    """
    body = bytearray()
    for piece in response.iter_content(_PIECE):
        body += piece
        if len(body) > most:
            response.close()
            raise TooLargeError
    return bytes(body)


class RetryPolicy(Retry):
    """Tries again what can pass: not a certificate that is not trusted, and not what is no TLS."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """Return what is left of the tries.

        Raises:
            MaxRetryError: Nothing is left, or it would be of no use.
        """
        if response is not None:
            response.close()  # urllib3 would read it to its end, which need not come
        if error is not None and _pool is not None and _stays(error):
            raise MaxRetryError(_pool, url or "", error) from error
        return super().increment(method, url, response, error, _pool, _stacktrace)


def reason_of(error: Exception) -> str:
    """Say why a server could not be asked, without the URL: it can hold a secret.

    Args:
        error: What requests or urllib3 has raised.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause)
    words = _words(causes) or type(error).__name__
    if any(isinstance(cause, ProxyError) for cause in causes):
        return f"the proxy that the environment names fails: {words}"
    return words


def _words(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "its name is not known"
        if isinstance(cause, IncompleteRead):
            return "the rest is missing"
        if isinstance(cause, ReadTimeoutError):
            return "no answer in time"
        if isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
            return "no connection in time"
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException):
            words = cause.strerror or str(cause)
            return words[:1].lower() + words[1:]
    return ""


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        words = f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
        if error.verify_code in _UNKNOWN_AUTHORITY:
            words += "; set REQUESTS_CA_BUNDLE to a file with the certificate of its authority"
        return words
    if error.reason in _NO_TLS:
        return "it speaks no TLS: should the URL begin with http://?"
    return f"TLS fails: {(error.reason or 'an unknown reason').replace('_', ' ').lower()}"


def _stays(error: Exception) -> bool:
    return any(
        isinstance(cause, ssl.SSLCertVerificationError)
        or (isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS)
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was made of, which each library keeps in a place of its own."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        attributes = (getattr(cause, name, None) for name in ("reason", "original_error"))
        parts = (*cause.args, *attributes, cause.__cause__, cause.__context__)
        waiting += [part for part in parts if isinstance(part, BaseException)]
