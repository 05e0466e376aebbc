"""Somebody who has logged in to the live page, and what the page sends to him."""

from __future__ import annotations

import http.client
import json
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

import requests

from tests.support.collector import READ_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.collector import Collector

SECONDS = 20
_FORM_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')
_SINCE = re.compile(r'data-since="([^"]*)"')


class Visitor(requests.Session):
    """A browser without a script, at one collector."""

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self.url = collector.url

    def log_in(self, token: str = READ_TOKEN) -> Self:
        response = self.send_form("/login", {"token": token})
        assert response.status_code == 303, response.text
        return self

    def see(self, path: str = "/", **arguments: Any) -> requests.Response:
        return self.get(f"{self.url}{path}", timeout=SECONDS, **arguments)

    def form_token(self) -> str:
        found = _FORM_TOKEN.search(self.see().text)
        assert found
        return found[1]

    def send_form(
        self, path: str, fields: dict[str, Any], headers: dict[str, str] | None = None
    ) -> requests.Response:
        return self.post(
            f"{self.url}{path}", fields, headers=headers, timeout=SECONDS, allow_redirects=False
        )

    def press(self, path: str, **fields: Any) -> requests.Response:
        """Send a form of the page."""
        return self.send_form(path, {"form_token": self.form_token(), **fields})

    def since(self) -> str:
        found = _SINCE.search(self.see().text)
        assert found
        return found[1]

    def cookie_header(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)


class Message(NamedTuple):
    event: str
    id: str
    data: Any


class Watching:
    """A stream of server-sent events, read as it comes; usable as a context manager.

    Attributes:
        status: The answer's.
    """

    def __init__(self, visitor: Visitor, last_event_id: str = "", **query: str) -> None:
        address = urlsplit(visitor.url)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=SECONDS
        )
        headers = {"Cookie": visitor.cookie_header()}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        self._connection.request("GET", f"/live?{urlencode(query)}", headers=headers)
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.content_type = self._response.getheader("content-type")

    def messages(self) -> Iterator[Message]:
        """Yield what comes, until the collector ends it."""
        fields: dict[str, str] = {}
        while line := self._response.readline():
            text = line.decode().rstrip("\n")
            if text:
                name, _, value = text.partition(":")
                fields[name] = value.removeprefix(" ")
            else:
                if "data" in fields:
                    data = json.loads(fields["data"])
                    yield Message(fields["event"], fields.get("id", ""), data)
                fields = {}

    def next(self, event: str) -> Message:
        """Return the next message of a kind."""
        deadline = time.monotonic() + SECONDS
        for message in self.messages():
            if message.event == event:
                return message
            assert time.monotonic() < deadline
        raise AssertionError("the stream has ended")  # noqa: TRY003

    def ended(self) -> bool:
        """Wait until the collector ends it, having said so."""
        for _ in self.messages():
            pass
        return True

    def close(self) -> None:
        self._connection.close()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
