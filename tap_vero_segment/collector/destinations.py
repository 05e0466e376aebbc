"""Where copies of webhooks go: the URLs and headers of servers, and posting a body to one."""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import requests
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from tap_vero_segment.collector.settings import FORWARD_HEADERS as HEADERS
from tap_vero_segment.errors import SettingError, check_pasted
from tap_vero_segment.http_client import reason_of
from tap_vero_segment.inputs.body import BOM

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIMEOUT: Final = (10.0, 30.0)
"""Seconds to connect, and between two pieces of a response."""
RESPONSE_SECONDS: Final = 30.0
"""How long a response may take from its head to its end."""
MAX_RESPONSE: Final = 64 * 1024
"""Bytes of a response that are read. A longer one costs the connection, and nothing else."""

_REFUSED: Final = frozenset({400, 409, 413, 415, 422})
"""Statuses that mean the body, which a later try would not change (RFC 9110, section 15.5)."""
_CHECK: Final = f"check its URL and {HEADERS}"
_ADVICE: Final = {401: _CHECK, 403: _CHECK, 404: _CHECK, 405: _CHECK}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header (RFC 9110, section 5.6.2)."""
_OURS: Final = frozenset({"connection", "content-length", "host", "transfer-encoding"})
_NO_RETRIES: Final = Retry(0)


class Destination(NamedTuple):
    """A server that gets copies.

    Attributes:
        url: Where bodies are posted to; it can hold a secret.
        headers: The user's own.
    """

    url: str
    headers: dict[str, str]

    @property
    def key(self) -> str:
        """What tells it from all others in a store."""
        return hashlib.sha256(self.url.encode()).hexdigest()

    @property
    def shown(self) -> str:
        """Its scheme and host: a path or a query can be a secret."""
        return _origin(self.url)


def read_destinations(urls: Iterable[str], headers: str, setting: str) -> list[Destination]:
    """Read where copies go.

    Args:
        urls: The destinations; one that comes twice is one.
        headers: The user's own headers, as :data:`HEADERS` has them: ``Name: value``, one a line;
            or a JSON object of them; or a JSON object of such objects, by URL or by its scheme
            and host.
        setting: The setting that the URLs came from, for errors.

    Raises:
        SettingError: A URL or a header cannot be used. The message repeats neither.
    """
    found = list(dict.fromkeys(urls))
    for url in found:
        _check_url(url, setting)
    own = _read_headers(headers, found)
    return [Destination(url, {**own.get(_origin(url), {}), **own.get(url, {})}) for url in found]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _check_url(url: str, setting: str) -> None:
    check_pasted(setting, url)
    problem = "a destination is an http(s) URL that names a host: https://app.example/webhooks"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        requests.Request("POST", url).prepare()
    except (ValueError, requests.RequestException) as error:
        raise SettingError(setting, problem) from error
    if not usable:
        raise SettingError(setting, problem)


def _read_headers(text: str, urls: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return headers by URL, or by its scheme and host.

    Raises:
        SettingError: They cannot be used, or nothing says which destination they are for.
    """
    if not text.strip():
        return {}
    of_one, of_many = _parse_headers(text)
    if of_one:
        if of_many or len(urls) > 1:
            problem = (
                "with several destinations, say which one gets a header: "
                '{"https://app.example": {"Authorization": "Bearer …"}}'
            )
            raise SettingError(HEADERS, problem)
        of_many = dict.fromkeys(urls, of_one)
    unknown = of_many.keys() - {*urls, *map(_origin, urls)}
    if unknown and urls:
        problem = f"{len(unknown)} of its URLs belong to no destination: write each as it is there"
        raise SettingError(HEADERS, problem)
    for headers in of_many.values():
        for name, value in headers.items():
            _check_header(name, value)
    return of_many


def _parse_headers(text: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    if not text.lstrip().startswith("{"):
        lines = [line.partition(":") for line in text.splitlines() if line.strip()]
        return {name.strip(): value.strip() for name, _, value in lines}, {}
    try:
        found = msgspec.json.decode(text, type=dict[str, str | dict[str, str]])
    except msgspec.MsgspecError as error:
        problem = "not a JSON object of headers, or of such objects by URL; both hold text only"
        raise SettingError(HEADERS, problem) from error
    return (
        {name: value for name, value in found.items() if isinstance(value, str)},
        {name: value for name, value in found.items() if isinstance(value, dict)},
    )


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name) or not value:
        problem = "a header is written Name: value, one a line, or as a JSON object"
        raise SettingError(HEADERS, problem)
    if name.lower() in _OURS:
        raise SettingError(HEADERS, f"{name.lower()} is the connection's own and cannot be set")
    if not value.isprintable() or not value.isascii():
        problem = f"the value of {name} contains something other than printable ASCII"
        raise SettingError(HEADERS, problem)


def content_type(body: bytes) -> str:
    """Return what a body of Vero's says it is, by how it begins."""
    text = body.removeprefix(BOM).strip()
    if text[:1] in {b"{", b"[", b'"'}:
        return "application/json"
    if text.isascii() and (b"=" in text or b"%" in text) and not re.search(rb"[\s\0]", text):
        return "application/x-www-form-urlencoded"
    return "application/octet-stream"


class DeliveryError(Exception):
    """A body could not be posted. The message says why, without a URL.

    Args:
        reason: Why.
        refused: Whether the server will not have this body, whenever it is posted.
        retry_after: For how many seconds the server wants to be left alone.
    """

    def __init__(
        self, reason: str, *, refused: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.refused = refused
        self.retry_after = retry_after


class Client:
    """Posts bodies to a destination, one after the other, on one connection as far as it lasts.

    It may be used from one thread only.
    """

    def __init__(self, destination: Destination) -> None:
        ours = {"User-Agent": "vero-collector", "Accept": "*/*", "Accept-Encoding": "identity"}
        # Once for all bodies, which halves the work, and so that no .netrc replaces a header.
        # A user and a password in the URL become a header here.
        self._request = requests.Request("POST", destination.url, ours).prepare()
        self._request.headers.update(destination.headers)
        self._session = requests.Session()
        self._settings = self._session.merge_environment_settings(
            destination.url, {}, stream=True, verify=None, cert=None
        )

    def post(self, body: bytes) -> None:
        """Post a body; return when the server has accepted it and its response has ended.

        Raises:
            DeliveryError: It has not.
        """
        request = self._request.copy()
        request.prepare_body(body, None)
        request.headers.setdefault("Content-Type", content_type(body))
        try:
            with self._session.send(
                request,
                timeout=TIMEOUT,
                allow_redirects=False,  # which would turn it into a GET
                **self._settings,
            ) as response:
                _check(response)
                _read_to_end(response)
        # A certificate file that is not there is no RequestException, and urllib3's errors are
        # no OSErrors.
        except (OSError, HTTPError, ValueError) as error:
            raise DeliveryError(reason_of(error)) from error

    def close(self) -> None:
        """Let go of the connection."""
        self._session.close()


def _check(response: requests.Response) -> None:
    """See that the status is one of success.

    Raises:
        DeliveryError: It is not.
    """
    status = response.status_code
    if not response.headers:  # http.client takes what is cut off in its first line for a whole one
        msg = "its response is cut off"
        raise DeliveryError(msg)
    if 200 <= status < 300:  # noqa: PLR2004
        return
    reason = f"HTTP {status}"
    if 300 <= status < 400:  # noqa: PLR2004
        reason += ", a redirect, which is not followed: use the URL that it leads to"
    elif status in _ADVICE:
        reason += f": {_ADVICE[status]}"
    retry_after = None
    with suppress(InvalidHeader):
        retry_after = _NO_RETRIES.get_retry_after(response.raw)
    raise DeliveryError(reason, refused=status in _REFUSED, retry_after=retry_after)


def _read_to_end(response: requests.Response) -> None:
    """Read a response to its end, so that the connection can be kept; a long one is closed.

    Raises:
        DeliveryError: It takes too long.
    """
    size = 0
    end = time.monotonic() + RESPONSE_SECONDS
    while piece := response.raw.read1(MAX_RESPONSE, decode_content=False):
        size += len(piece)
        if size > MAX_RESPONSE:
            response.close()
            return
        if time.monotonic() > end:
            msg = "its response does not end"
            raise DeliveryError(msg)
