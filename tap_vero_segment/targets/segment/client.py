"""Segment's HTTP Tracking API, as a client sees it."""

from __future__ import annotations

import gzip
import logging
import random
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from urllib3.exceptions import InvalidHeader

from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.http_client import RetryPolicy, TooLargeError, read_body, reason_of
from tap_vero_segment.inputs.body import read_json
from tap_vero_segment.targets.segment.calls import DeadCall, batch_body, batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from urllib3.response import BaseHTTPResponse

    from tap_vero_segment.targets.segment.calls import OutgoingCall

logger = logging.getLogger("target-segment")

IN_FLIGHT: Final = 4
"""Requests at once."""
TIMEOUT: Final = (10.0, 60.0)
"""Seconds to connect, and between two pieces of an answer."""
TRIES: Final = 10
CONNECT_TRIES: Final = 6
BACKOFF: Final = 0.5
"""Seconds before the third try; each further one waits twice as long."""
BACKOFF_MAX: Final = 60
JITTER: Final = 1.0
"""Seconds that a pause is longer by chance, so that requests do not come back all at once."""
RETRY_AFTER_MAX: Final = 600
"""Seconds to wait at most, whatever a server asks for."""
MAX_RESPONSE: Final = 1024 * 1024
"""Bytes of a response, unzipped, that are read."""
HOPELESS: Final = 100
"""Calls refused without a single one accepted: it is not the calls that are wrong."""

_PASSING: Final = frozenset({408, 429, *range(500, 600)})
"""Statuses that a later try may not meet again."""
_FALSE: Final = (False, None, "false")
_REFUSED: Final = frozenset({400, 413})
"""Statuses that mean the body: one of its calls, or all of them together."""


class TrackingApi:
    """A server that speaks Segment's HTTP Tracking API.

    Args:
        url: Where batches are posted to.
        write_key: The write key.

    Attributes:
        accepted: How many calls the server has accepted.
        requests: How many requests that took.
    """

    def __init__(self, url: str, write_key: str) -> None:
        self.accepted = 0
        self.requests = 0
        self._refused = 0
        self._url = url
        self._auth = HTTPBasicAuth(write_key, "")
        self._gzip: bool | None = None  # until an answer has told whether the server reads it
        self._lock = threading.Lock()
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="sender")

    def deliver(self, calls: Sequence[OutgoingCall]) -> list[DeadCall]:
        """Deliver calls, several batches at once; return when each is accepted or refused.

        Returns:
            The calls that the server refuses.

        Raises:
            UserError: They could not be delivered. Some of them may have been.
        """
        futures = [self._pool.submit(self._send, batch) for batch in batches(calls)]
        done, under_way = wait(futures, return_when=FIRST_EXCEPTION)
        for future in under_way:
            future.cancel()
        for future in done:
            future.result()
        return [dead for future in futures for dead in future.result()]

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(cancel_futures=True)

    def _send(self, batch: Sequence[OutgoingCall]) -> list[DeadCall]:
        """Deliver a batch, or all of it but the calls that the server refuses, which it returns."""
        status = self._post(batch)
        if _is_success(status):
            with self._lock:
                self.accepted += len(batch)
            return []
        if status not in _REFUSED:
            raise self._failure(status)
        if len(batch) > 1:
            middle = len(batch) // 2
            return [*self._send(batch[:middle]), *self._send(batch[middle:])]
        with self._lock:
            self._refused += 1
            if self._refused >= HOPELESS and not self.accepted:
                problem = f"{self._url} refuses whatever it is sent (HTTP {status})"
                raise SettingError("endpoint", problem)
        return [DeadCall(batch[0], f"refused with HTTP {status}")]

    def _post(self, batch: Sequence[OutgoingCall]) -> int:
        """Post a batch, zipped where the server reads that; return the status."""
        body = batch_body(batch)
        if self._gzip is False:
            return self._request(body)
        zipped = gzip.compress(body, mtime=0)
        status = self._request(zipped, {"Content-Encoding": "gzip"})
        if _is_success(status):
            self._gzip = True
        may_be_the_zipping = status == requests.codes.unsupported_media_type or (
            status == requests.codes.bad_request and self._gzip is None
        )
        if not may_be_the_zipping:
            return status
        status = self._request(body)
        if _is_success(status):
            self._gzip = False
            logger.info("%s reads no gzip: going on without", self._url)
        return status

    def _request(self, body: bytes, headers: dict[str, str] | None = None) -> int:
        """Post a body; return the status, that of the last try where it was one that passes.

        Raises:
            SettingError: The server cannot be reached.
        """
        try:
            with self._session().post(
                self._url,
                data=body,
                headers=headers,
                timeout=TIMEOUT,
                stream=True,
                allow_redirects=False,  # which would turn it into a GET
            ) as response:
                retries = response.raw.retries
                with self._lock:
                    self.requests += 1 + (len(retries.history) if retries else 0)
                self._read(response)
                return response.status_code
        except OSError as error:  # a certificate file that is not there is no RequestException
            # What the server echoes and what requests itself says may hold a secret.
            problem = f"{self._url} cannot be reached: {reason_of(error)}"
            raise SettingError("endpoint", problem) from error

    def _read(self, response: requests.Response) -> None:
        """Read a response to its end, so that the connection can be kept.

        Raises:
            SettingError: Its status is one of success, but not what it says.
        """
        try:
            problem = _denial(read_body(response, MAX_RESPONSE))
        except TooLargeError:
            problem = "its response is longer than a Tracking API's: check the URL"
        except OSError as error:
            problem = f"its response cannot be read: {reason_of(error)}"
        if problem and _is_success(response.status_code):
            problem = f"{self._url} answers HTTP {response.status_code}, but {problem}"
            raise SettingError("endpoint", problem)

    def _session(self) -> requests.Session:
        """Return this thread's session: a session is for one thread."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.auth = self._auth
            session.headers["User-Agent"] = "target-segment"
            session.headers["Content-Type"] = "application/json"
            adapter = HTTPAdapter(
                max_retries=_RetryPolicy(
                    total=TRIES - 1,
                    connect=CONNECT_TRIES - 1,
                    status_forcelist=_PASSING,
                    # Segment drops what it has seen, by the messageId.
                    allowed_methods=("POST",),
                    backoff_factor=BACKOFF,
                    backoff_max=BACKOFF_MAX,
                    backoff_jitter=JITTER,
                    raise_on_status=False,
                    retry_after_max=RETRY_AFTER_MAX,
                )
            )
            session.mount("http://", adapter)
            session.mount("https://", adapter)
        return session

    def _failure(self, status: int) -> UserError:
        if status in {401, 403}:
            return SettingError("write_key", f"{self._url} refuses it (HTTP {status})")
        tries = f", at the last of {TRIES} tries" if status in _PASSING else ""
        return SettingError("endpoint", f"{self._url} answers HTTP {status}{tries}")


class _RetryPolicy(RetryPolicy):
    """Waits as long as the server asks for, and a little longer by chance."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except InvalidHeader:
            return None  # the usual pause, then
        return seconds and seconds + random.uniform(0, JITTER)  # noqa: S311  # no secret


def _denial(content: bytes) -> str:
    """Say why a response does not mean that calls were accepted; nothing if it can mean that.

    Segment says ``{"success": true}``; other servers say ``OK``, ``{"ok": true}``, or nothing.
    """
    text = content.strip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return "its response is a web page: check the URL"
    with suppress(ValueError, RecursionError):
        fields = read_json(text)
        if isinstance(fields, dict):
            said = {name.lower(): value for name, value in fields.items()}
            if any(said.get(name, True) in _FALSE for name in ("success", "ok")):
                return "its response says that the events were not accepted"
            if any(said.get(name) for name in ("error", "errors", "rejected")):
                return "its response names an error"
    return ""


def _is_success(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004
