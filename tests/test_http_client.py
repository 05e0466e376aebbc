"""Why a server cannot be asked, told in plain words by the tap and by the target."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources import http
from tap_vero_segment.sources.http import HttpSource
from tap_vero_segment.targets.segment import client
from tap_vero_segment.targets.segment.calls import OutgoingCall
from tap_vero_segment.targets.segment.client import TrackingApi
from tests.support import event_server
from tests.support.collector import READ_TOKEN
from tests.support.event_server import EventServer
from tests.support.tls import Tls
from tests.support.tracking_server import WRITE_KEY, TrackingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CALL = OutgoingCall("e1", b'{"type":"track","messageId":"e1","event":"Tested","userId":"7"}')
SECRET = "word-of-pass"


def read(url: str) -> None:
    with HttpSource(url, READ_TOKEN) as source:
        list(source.pages(None, 10))


def deliver(url: str) -> None:
    api = TrackingApi(f"{url}/v1/batch", WRITE_KEY)
    try:
        assert api.deliver([CALL]) == []
    finally:
        api.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (http, client):
        monkeypatch.setattr(module, "CONNECT_TRIES", 1)
        monkeypatch.setattr(module, "TIMEOUT", (5.0, 0.2))
    monkeypatch.setattr(client, "BACKOFF", 0.001)
    monkeypatch.setattr(client, "BACKOFF_MAX", 0.005)
    monkeypatch.setattr(client, "JITTER", 0.001)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=[read, deliver], ids=["tap", "target"])
def ask(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Asks a server, as the tap or the target does."""
    found: Callable[[str], None] = request.param
    return found


@pytest.fixture
def server(ask: Callable[[str], None]) -> EventServer | TrackingServer:
    """One that answers, once it runs."""
    return EventServer([]) if ask is read else TrackingServer()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


def why(ask: Callable[[str], None], url: str) -> str:
    with pytest.raises(SettingError) as raised:
        ask(url)
    text = str(raised.value)
    assert "\n" not in text
    for unwanted in (READ_TOKEN, WRITE_KEY, SECRET, "Error"):
        assert unwanted not in text
    return text


def test_where_nobody_listens_the_connection_is_refused(ask, nowhere):
    assert why(ask, f"http://{nowhere}").endswith(": connection refused")


def test_a_name_that_is_not_known_is_said_to_be_so(ask):
    # By the standard, no name server knows it.
    assert why(ask, "http://collector.invalid").endswith(": its name is not known")


def test_a_proxy_is_told_from_the_server(ask, nowhere, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{SECRET}@{nowhere}")
    text = why(ask, "http://collector.example")
    assert "the proxy that the environment names fails: connection refused" in text


def test_a_server_that_says_nothing_is_told(ask, monkeypatch):
    for module in (http, client):
        monkeypatch.setattr(module, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert why(ask, url).endswith(": no answer in time")


def test_a_body_that_breaks_off_is_told(monkeypatch):
    monkeypatch.setattr(http, "TRIES", 1)
    with EventServer([b'{"loadedAt":"x"}']) as server:
        server.always = event_server.reset_amid
        assert why(read, server.url).endswith(": connection reset by peer")


# TLS


def test_a_certificate_that_nobody_vouches_for_is_told_at_once(ask, server, tmp_path: Path):
    tls = Tls(tmp_path)
    url = tls.before(server)
    with server:
        text = why(ask, url)
    assert "its certificate is not trusted: self-signed certificate" in text
    assert "set REQUESTS_CA_BUNDLE to a file" in text
    assert tls.connections == 1


def test_what_the_error_says_helps(ask, server, tmp_path: Path, monkeypatch):
    tls = Tls(tmp_path)
    url = tls.before(server)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.certificate))
    with server:
        ask(url)


def test_a_certificate_for_another_name_is_told_at_once(
    ask, server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tls = Tls(tmp_path, "DNS:elsewhere.example")
    url = tls.before(server)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.certificate))
    with server:
        text = why(ask, url)
    assert "its certificate is not trusted: IP address mismatch" in text
    assert "REQUESTS_CA_BUNDLE" not in text
    assert tls.connections == 1


def test_a_file_of_authorities_that_is_not_there_is_told(ask, server, tmp_path, monkeypatch: Any):
    url = Tls(tmp_path).before(server)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with server:
        assert "none.pem" in why(ask, url)


def test_a_server_without_tls_is_told_at_once(ask, server):
    with server:
        text = why(ask, server.url.replace("http://", "https://"))
    assert "it speaks no TLS: should the URL begin with http://?" in text
