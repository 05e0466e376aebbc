"""Who sees the live page: who knows the read token, for as long as it is valid."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment.collector.live_page.auth import LIFE_SECONDS, MAX_ENDED, Sessions, begin
from tap_vero_segment.collector.live_page.feed import HEARTBEAT_SECONDS
from tap_vero_segment.limits import MAX_WATCHERS
from tests.support.collector import READ_TOKEN, SECRETS, WEBHOOK_TOKEN, Collector
from tests.support.exposition import scrape
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented
from tests.support.raw import connect, request
from tests.support.watching import Visitor, Watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import Response

BEHIND_LOGIN = (
    "/live",
    "/event/2026-11-23T09:24:00.000000Z",
    "/dead-letter/1",
    "/dead-letters",
    "/dead-letters/delete",
    "/chart",
    "/search",
)
FORMS = ("/logout", "/replay", "/delete", "/test-event", "/search")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        assert running.post(documented()).status_code == 200
        assert running.post(b"no JSON").status_code == 400
        yield running


def assert_is_guarded(response: Response) -> None:
    """The browser is told to load nothing from elsewhere, to show it nowhere, to keep nothing."""
    policy = dict(
        directive.split(" ", 1)
        for directive in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["form-action"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == policy["trusted-types"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert not re.search(r"<script(?! src=)|<style|\son\w+=|\sstyle=|javascript:", response.text)


def assert_shows_nothing(response: Response) -> None:
    for secret in (READ_TOKEN, WEBHOOK_TOKEN, "steve", "Email Sent", "form_token"):
        assert secret not in response.text


def test_a_stranger_sees_a_form_and_nothing_else(shared):
    response = Visitor(shared).see()

    assert response.status_code == 200
    assert 'action="/login"' in response.text
    assert_shows_nothing(response)
    assert_is_guarded(response)


@pytest.mark.parametrize("path", BEHIND_LOGIN)
def test_a_stranger_gets_nothing_of_what_is_behind_it(shared, path):
    response = Visitor(shared).see(path)

    assert response.status_code == 401
    assert_shows_nothing(response)
    assert_is_guarded(response)


def test_the_token_opens_the_page(shared):
    visitor = Visitor(shared)

    response = visitor.send_form("/login", {"token": f" {READ_TOKEN}\n"})

    assert (response.status_code, response.headers["Location"]) == (303, "/")
    cookie, *attributes = response.headers["Set-Cookie"].split("; ")
    assert cookie.startswith("vero-collector=")
    assert READ_TOKEN not in cookie
    assert set(attributes) == {
        *("HttpOnly", "SameSite=Strict", "Path=/"),
        f"Max-Age={LIFE_SECONDS}",
    }
    page = visitor.see()
    assert "Email Sent" in page.text
    assert_is_guarded(page)
    assert READ_TOKEN not in page.text


@pytest.mark.parametrize("token", ["", "wrong", READ_TOKEN[:-1], f"{READ_TOKEN}x", "\ud800"])
def test_a_wrong_token_opens_nothing_and_is_counted(shared, token):
    name = 'requests_refused_total{reason="wrong_secret"}'
    before = scrape(shared)[name]

    response = Visitor(shared).send_form("/login", {"token": token.encode(errors="surrogatepass")})

    assert response.status_code == 401
    assert "That is not the read token" in response.text
    assert "Set-Cookie" not in response.headers
    assert_is_guarded(response)
    assert scrape(shared)[name] == before + 1


def test_a_login_from_another_site_is_refused(shared):
    fields = {"token": READ_TOKEN}
    response = Visitor(shared).send_form("/login", fields, {"Origin": "https://evil.example"})
    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers


def cookie(token: str = READ_TOKEN, age: float = 0) -> str:
    """A cookie that was made so many seconds ago."""
    session = begin(token, [token], time.time() - age)
    assert session
    return session.cookie


def with_cookie(collector: Collector, value: str) -> Response:
    headers = {"Cookie": f"a=b; vero-collector={value}; c=d"}
    return requests.get(f"{collector.url}{BEHIND_LOGIN[1]}", headers=headers, timeout=30)


def test_a_cookie_is_believed_by_every_collector_with_the_token(shared):
    assert with_cookie(shared, cookie()).status_code == 404  # logged in, but no such event


def test_a_cookie_from_before_the_start_is_not_believed(tmp_path):
    """The collector cannot know whether its session was logged out of."""
    with Collector(tmp_path) as collector:
        visitor = Visitor(collector).log_in()
        value = visitor.cookie_header().partition("=")[2]
        assert with_cookie(collector, value).status_code == 404
        visitor.press("/logout")
        assert with_cookie(collector, value).status_code == 401
        collector.stop()
        collector.start()
        assert with_cookie(collector, value).status_code == 401
        assert Visitor(collector).log_in().see(BEHIND_LOGIN[1]).status_code == 404


FORGED = {
    "empty": lambda: "",
    "no parts": lambda: "x",
    "empty parts": lambda: "..",
    "ended": lambda: cookie(age=LIFE_SECONDS + 1),
    "of another token": lambda: cookie(token="another"),
    "longer": lambda: f"9{cookie()}",
    "another random part": lambda: cookie().replace(".", ".0", 1),
    "cut": lambda: cookie()[:-1],
    "not ASCII": lambda: f"{cookie()[:-1]}\xe9",
    "made up": lambda: f"{int(time.time()) + 60}.{'0' * 32}.{'0' * 64}",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_cookie_that_is_old_or_forged_is_none(shared, name):
    assert with_cookie(shared, FORGED[name]()).status_code == 401


def test_logging_out_takes_the_cookie_away(shared):
    visitor = Visitor(shared).log_in()

    response = visitor.press("/logout")

    assert response.status_code == 303
    assert "Max-Age=0" in response.headers["Set-Cookie"]
    assert not visitor.cookies
    assert 'action="/login"' in visitor.see().text


def test_logging_out_ends_the_session_and_no_other(shared):
    visitor, another = (Visitor(shared).log_in() for _ in range(2))
    _, value = visitor.cookie_header().split("=")
    with Watching(visitor) as watching:
        watching.next("counts")
        began = time.monotonic()
        visitor.press("/logout")
        assert watching.ended()
        assert time.monotonic() - began < HEARTBEAT_SECONDS / 2  # at once, that is

    assert with_cookie(shared, value).status_code == 401
    assert another.see(BEHIND_LOGIN[1]).status_code == 404


@pytest.mark.slow
def test_what_is_remembered_of_ended_sessions_has_a_limit():
    now = 0.0
    sessions = Sessions(lambda: [READ_TOKEN], lambda: now)
    ended = [sessions.begin(READ_TOKEN) for _ in range(MAX_ENDED + 1)]
    for session in ended:
        sessions.end(session)

    assert [sessions.holds(session) for session in ended] == [True] + [False] * MAX_ENDED

    now = LIFE_SECONDS + 1.0
    latest = sessions.begin(READ_TOKEN)
    sessions.end(latest)
    assert not sessions.holds(latest)
    assert len(sessions._ended) == 1  # noqa: SLF001  # nobody else can tell


def test_pages_that_open_at_once_are_limited_too(shared):
    """Each has its place before anything is sent to it."""
    visitor = Visitor(shared).log_in()
    asked = request(b"", f"Cookie: {visitor.cookie_header()}", method="GET", path="/live")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(shared)) for _ in range(3 * MAX_WATCHERS)]
        for client in clients:
            client.sendall(asked)
        statuses = [client.recv(12) for client in clients]

    assert statuses.count(b"HTTP/1.1 200") == MAX_WATCHERS
    assert statuses.count(b"HTTP/1.1 503") == 2 * MAX_WATCHERS
    deadline = time.monotonic() + 30
    status = 503
    while status != 200:  # until the collector has seen that they are gone
        assert time.monotonic() < deadline
        with Watching(visitor) as again:
            status = again.status


@pytest.mark.parametrize("path", ["/v1/events", "/metrics", "/ready", "/openapi.json", "/nothing"])
def test_what_can_hold_personal_data_is_kept_by_nobody(shared, path):
    for response in (shared.get(path), shared.get(path, headers={})):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("token", "headers"),
    [
        (None, {}),
        ("wrong", {}),
        ("another's", {}),
        ("right", {"Origin": "https://evil.example"}),
        ("right", {"Origin": "null"}),
        ("right", {"Sec-Fetch-Site": "cross-site"}),
        ("right", {"Sec-Fetch-Site": "same-site"}),
    ],
)
def test_a_form_of_another_site_does_nothing(shared, path, token, headers):
    visitor, another = (Visitor(shared).log_in() for _ in range(2))
    tokens = {"right": visitor.form_token, "another's": another.form_token}
    fields = {"number": "1"}
    if token:
        fields["form_token"] = tokens.get(token, lambda: token)()

    response = visitor.send_form(path, fields, headers)

    assert response.status_code == 403
    assert "Set-Cookie" not in response.headers
    assert_is_guarded(response)
    page = visitor.see().text  # still logged in, and nothing was done
    assert "/dead-letter/1" in page
    assert "Test event of the live page</bdi>" not in page


@pytest.mark.parametrize("path", FORMS)
def test_a_form_of_a_stranger_does_nothing(shared, path):
    stranger = Visitor(shared).send_form(path, {"form_token": "0" * 64})
    assert stranger.status_code == 401


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "OWN"}, {}])
def test_a_form_of_the_page_itself_is_taken(shared, headers):
    visitor = Visitor(shared).log_in()
    headers = {key: value.replace("OWN", shared.url) for key, value in headers.items()}
    form = {"form_token": visitor.form_token()}
    assert visitor.send_form("/logout", form, headers).status_code == 303


@pytest.mark.parametrize(
    ("proxies", "secure"), [({"VERO_COLLECTOR_TRUST_PROXY": "127.0.0.1"}, True), ({}, False)]
)
def test_over_tls_the_cookie_is_for_tls_and_this_host_only(tmp_path, proxies, secure):
    """Who is no trusted proxy cannot say that it is."""
    headers = {"X-Forwarded-Proto": "https", "Host": "collector.example"}
    with Collector(tmp_path, env=SECRETS | proxies) as collector:
        response = Visitor(collector).send_form("/login", {"token": READ_TOKEN}, headers)
        given = response.headers["Set-Cookie"]
        sent = {"Cookie": given.partition(";")[0]} | headers
        page = Visitor(collector).see(headers=sent).text

    assert given.startswith("__Host-" if secure else "vero-collector=")
    assert ("; Secure" in given) is secure
    scheme = "https" if secure else "http"
    assert f"{scheme}://collector.example/vero/{WEBHOOK_TOKEN}" in page
    assert f"export TAP_VERO_SEGMENT_SOURCE={scheme}://collector.example\n" in page


@pytest.mark.parametrize("host", ['"><b>', "a b", "x/y", "user@host", "-", "a" * 300])
def test_a_host_that_is_none_gets_into_no_url(shared, host):
    visitor = Visitor(shared).log_in()
    page = visitor.see(headers={"Host": host, "Cookie": visitor.cookie_header()}).text
    assert f"http://collector.example/vero/{WEBHOOK_TOKEN}" in page
    assert "<b>" not in page


def test_without_a_read_token_there_is_no_page(tmp_path):
    secrets = {"VERO_COLLECTOR_WEBHOOK_TOKEN": WEBHOOK_TOKEN}
    with Collector(tmp_path, env=secrets) as collector:
        visitor = Visitor(collector)
        for path in ("/", *BEHIND_LOGIN, "/static/page.css"):
            assert visitor.see(path).status_code == 404
        for path in ("/login", *FORMS):
            assert visitor.send_form(path, {"token": ""}).status_code == 404


def test_sessions_end_with_the_token_they_were_begun_with(tmp_path):
    (tmp_path / ".env").write_text(
        "VERO_COLLECTOR_READ_TOKEN=newer-read-token\n"
        "VERO_COLLECTOR_READ_TOKEN_PREVIOUS=older-read-token\n",
        encoding="utf-8",
    )
    with Collector(tmp_path, env={}) as collector:
        older, newer = (
            Visitor(collector).log_in(f"{age}-read-token") for age in ("older", "newer")
        )
        with Watching(older) as watching:
            watching.next("counts")
            (tmp_path / ".env").write_text(
                "VERO_COLLECTOR_READ_TOKEN=newer-read-token\n", encoding="utf-8"
            )
            assert collector.process is not None
            collector.process.send_signal(signal.SIGHUP)
            began = time.monotonic()
            assert watching.ended()
            assert time.monotonic() - began < HEARTBEAT_SECONDS / 2  # at once, that is
            assert older.see(BEHIND_LOGIN[1]).status_code == 401
        assert newer.see(BEHIND_LOGIN[1]).status_code == 404
        assert "form_token" in newer.see().text
    assert_tells_nothing(collector.log())
