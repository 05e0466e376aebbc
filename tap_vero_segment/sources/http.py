"""A collector's read API: its events over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from tap_vero_segment import times
from tap_vero_segment.closing import Closing
from tap_vero_segment.errors import SettingError
from tap_vero_segment.http_client import RetryPolicy, TooLargeError, read_body, reason_of
from tap_vero_segment.sources.base import SETTING, Page, decode_lines, erasure_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tap_vero_segment.record import Record
    from tap_vero_segment.track import TrackCall

MAX_PAGE: Final = 10_000
"""Events in a page, at most: the read API's own limit."""
TIMEOUT: Final = (10.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
TRIES: Final = 6
CONNECT_TRIES: Final = 4
RETRY_AFTER_MAX: Final = 120
"""Seconds to wait at most, whatever a server asks for."""
MAX_BODY: Final = 64_000_000
"""Bytes of a page, unzipped; a collector's pages end at about 8 MB, or after one event."""

_NDJSON: Final = "application/x-ndjson"
_HIGH_WATER: Final = "High-Water-Mark"
_PATH: Final = "/v1/events"
_ERASURES: Final = "/v1/erasures"


class _Erasure(msgspec.Struct, rename="camel"):
    """A line of that."""

    id: str
    erased_at: str
    loaded_at: str


class HttpSource(Closing):
    """Events of a collector's read API.

    Args:
        url: The collector's URL, with or without ``/v1/events``.
        token: The collector's read token.

    Raises:
        SettingError: It cannot be reached, is no collector, or refuses the token.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise SettingError(SETTING, "an http(s) URL names a host: https://collector.example")
        path = parts.path.rstrip("/").removesuffix(_PATH) + _PATH
        self._url = parts._replace(path=path, query="", fragment="").geturl()
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
        self._origin = self._shown.removesuffix(_PATH)
        self._session = requests.Session()
        self._session.trust_env = True
        self._session.headers["User-Agent"] = "tap-vero-segment"
        self._session.headers["Accept-Encoding"] = "gzip"
        self._session.hooks["response"].append(_unread_redirect)
        self._session.auth = _Bearer(token)
        adapter = HTTPAdapter(
            max_retries=RetryPolicy(
                total=TRIES - 1,
                connect=CONNECT_TRIES - 1,
                backoff_factor=0.5,
                backoff_jitter=0.5,
                status_forcelist=(429, 500, 502, 503, 504),
                allowed_methods=("GET",),
                raise_on_status=False,
                retry_after_max=RETRY_AFTER_MAX,
            )
        )
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        # The mark is what the collector says with any page. A server that says nothing is read
        # until it has nothing more.
        body, self._mark = self._page(None, limit=1)
        lines = body.splitlines()
        list(self._decode(lines, None))
        self._empty = self._mark is None and not lines

    def check(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`: the first answer has shown it."""

    def resume_from(self, bookmark: str) -> str:
        """See :class:`tap_vero_segment.sources.base.Source`: a collector shows nothing late."""
        return bookmark

    def has_reached(self, bookmark: str) -> bool:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        return not self._empty and (self._mark is None or bookmark <= self._mark)

    def pages(self, after: str | None, size: int) -> Iterator[Page]:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        mark = self._mark
        while mark is None or after is None or after < mark:
            body, _ = self._page(after, min(size, MAX_PAGE))
            lines = body.splitlines()
            if not lines:
                return
            for calls in self._decode(lines, after):
                after = calls[-1].loaded_at
                wanted = [call for call in calls if mark is None or (call.loaded_at or "") <= mark]
                if wanted:
                    yield Page(wanted, wanted[-1].loaded_at)

    def erasures(self, after: str | None, size: int) -> Iterator[list[Record]]:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        mark: str | None = None
        while True:
            body, found = self._page(after, min(size, MAX_PAGE), _ERASURES)
            mark = mark or found
            if mark is None:
                return
            if after is not None and after > mark:
                after = None  # the collector has not come as far: it was restored from a copy
                continue
            page = [self._erasure(line) for line in body.splitlines()]
            wanted = [record for record in page if (after or "") < record["loaded_at"] <= mark]
            if not wanted:
                return
            yield wanted
            after = wanted[-1]["loaded_at"]

    def _erasure(self, line: bytes) -> Record:
        try:
            found = msgspec.json.decode(line, type=_Erasure)
            moments = times.canonical(found.erased_at), times.canonical(found.loaded_at)
        except ValueError as error:  # msgspec's errors are ValueErrors
            problem = f"{self._origin}{_ERASURES}: a line is not an erasure"
            raise SettingError(SETTING, problem) from error
        return erasure_record(found.id, *moments)

    def _decode(self, lines: Sequence[bytes], after: str | None) -> Iterator[list[TrackCall]]:
        """Read a page's lines, which must rise from its cursor on: else reading might never end."""
        where = f"{self._shown} after {after or 'the beginning'}"
        last = after or ""
        for calls in decode_lines(lines, where):
            for call in calls:
                loaded_at = call.loaded_at or ""
                if loaded_at <= last:
                    raise SettingError(SETTING, f"{where}: the server repeats itself")
                last = loaded_at
            yield calls

    def _page(self, after: str | None, limit: int, path: str = _PATH) -> tuple[bytes, str | None]:
        """Get a page; a body that breaks off is asked for again from its start."""
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(requests.RequestException),
                stop=stop_after_attempt(TRIES),
                wait=wait_random_exponential(multiplier=0.5, max=30),
                reraise=True,
            ):
                with attempt, self._get(after, limit, path) as response:
                    return read_body(response, MAX_BODY), self._mark_of(response)
        except TooLargeError as error:
            problem = f"{self._shown} sends more than {MAX_BODY:,} bytes in a page of {limit}"
            raise SettingError(SETTING, f"{problem}: is it a collector?") from error
        except requests.RequestException as error:
            problem = f"{self._shown} breaks off its answers: {reason_of(error)}"
            raise SettingError(SETTING, problem) from error
        raise AssertionError  # pragma: no cover  # Retrying returns or raises

    def _get(self, after: str | None, limit: int, path: str) -> requests.Response:
        """Get the head of a page; what can pass is tried again, and all else is an error."""
        parameters: dict[str, str] = {"limit": str(limit)}
        if after is not None:
            parameters["after"] = after
        try:
            response = self._session.get(
                self._url.removesuffix(_PATH) + path,
                params=parameters,
                timeout=TIMEOUT,
                stream=True,
                allow_redirects=True,
            )
        except OSError as error:  # a certificate file that is not there is no RequestException
            # requests' own message may hold the URL with its user and password.
            problem = f"cannot reach {self._shown}: {reason_of(error)}"
            raise SettingError(SETTING, problem) from error
        if response.status_code != requests.codes.ok:
            with response:
                self._refused(response.status_code)
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() != _NDJSON:
            # A login page, or the empty page of a server that is not a collector: not "no events".
            redirected = " after a redirect" if response.history else ""
            with response:
                raise SettingError(
                    SETTING,
                    f"{self._shown} responds{redirected} with something other than {_NDJSON}, so "
                    "it is not a collector: check the URL, and what stands between",
                )
        return response

    def _mark_of(self, response: requests.Response) -> str | None:
        """Return the high-water mark that a response bears; None: it bears none."""
        mark = response.headers.get(_HIGH_WATER)
        try:
            return None if mark is None else times.canonical(mark)
        except ValueError as error:
            problem = f"{self._shown} sends a header {_HIGH_WATER} that is not a date or time"
            raise SettingError(SETTING, problem) from error

    def _refused(self, status: int) -> NoReturn:
        if status in {401, 403}:
            raise SettingError("token", f"{self._shown} refuses it (HTTP {status})")
        if status == requests.codes.not_found:
            raise SettingError(
                SETTING,
                f"{self._shown} is not there (HTTP 404): either the URL is not a collector's, or "
                "the collector runs without VERO_COLLECTOR_READ_TOKEN",
            )
        raise SettingError(SETTING, f"{self._shown} answers HTTP {status}")

    def close(self) -> None:
        """See :class:`tap_vero_segment.sources.base.Source`."""
        self._session.close()


def _unread_redirect(response: requests.Response, **_: object) -> None:
    """Close a redirect: requests would read its body, however long that is."""
    if response.is_redirect:
        response.close()


class _Bearer(requests.auth.AuthBase):
    """Sends the token, and keeps a ``.netrc`` from replacing it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request
