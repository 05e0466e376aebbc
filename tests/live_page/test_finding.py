"""Finding events on the live page, and the page of one event."""

from __future__ import annotations

import html
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tap_vero_segment.collector.live_page.finding import (
    MAX_INDENTED,
    MAX_TYPED,
    PAGE,
    Asked,
    search_page,
)
from tap_vero_segment.collector.searching import span_in_words
from tap_vero_segment.stores.base import SearchPage
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, WRITE_KEY, Collector
from tests.support.events import parse, read_events
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import EMAIL_TYPES, documented
from tests.support.watching import Visitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.stores.base import Search

ADDRESS = "Ann+news@Example.com"


@pytest.fixture(params=["sqlite", "postgres"])
def any_collector(request, tmp_path) -> Iterator[Collector]:
    url = str(request.getfixturevalue("database")) if request.param == "postgres" else ""
    with Collector(tmp_path, store_url=url) as running:
        yield running
    assert_tells_nothing(running.log())


def of(vero_type: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    """A webhook of Ann's, of the message of a number."""
    payload = documented(vero_type) | {f"{vero_type}_at": 1_435_016_000 + 100 * number} | fields
    payload["user"] = {"id": f"u{number}", "email": ADDRESS}
    payload["message_id"] = f"{number}@veromail.com"
    payload["campaign"]["sent_to"] = ADDRESS
    return payload


def rows(page: str) -> list[str]:
    """The paths of the events in the table."""
    return re.findall(r'<th scope="row"><a class="kind \w+" href="(/event/[^"]+)"', page)


def find(visitor: Visitor, **fields: str) -> requests.Response:
    """Send the form, and follow it to what it has found."""
    sent = visitor.press("/search", **fields)
    assert sent.status_code == 303, sent.text
    return visitor.see(sent.headers["Location"])


def test_one_box_finds_events_and_no_url_has_what_was_typed(any_collector):
    for number, vero_type in enumerate(("sent", "opened", "clicked")):
        assert any_collector.post(of(vero_type, number)).status_code == 200
    sent, opened, clicked = (f"/event/{each['loadedAt']}" for each in read_events(any_collector))
    visitor = Visitor(any_collector).log_in()
    assert "Search events" in visitor.see("/search").text

    for text, paths in (
        ("ann+NEWS@example.com", [clicked, opened, sent]),
        ("u1", [opened]),
        ("2@veromail.com", [clicked]),
        ("Order confirmation", [clicked, opened, sent]),
        (" 987 ", [clicked, opened, sent]),
        (read_events(any_collector)[0]["messageId"], [sent]),
        ("nobody@example.com", []),
        ("", [clicked, opened, sent]),
    ):
        response = find(visitor, text=text)
        assert response.status_code == 200
        assert rows(response.text) == paths
        assert re.fullmatch(r".*/search\?s=[\w-]{43}", response.url)
        assert visitor.see(response.url.removeprefix(visitor.url)).text == response.text

    assert rows(find(visitor, text=ADDRESS, collection="email_opened").text) == [opened]
    # The last day is one of them.
    assert rows(find(visitor, since="2015-06-22", until="2015-06-22").text) == [
        clicked,
        opened,
        sent,
    ]
    assert rows(find(visitor, since="2015-06-23").text) == []
    assert "No event was found" in find(visitor, until="2015-06-21").text


def test_pages_go_older_and_newer(collector):
    for number in range(2 * PAGE + 1):
        assert collector.post(of("sent", number)).status_code == 200
    paths = [f"/event/{each['loadedAt']}" for each in read_events(collector)][::-1]
    visitor = Visitor(collector).log_in()

    page = find(visitor, text=ADDRESS).text
    seen = [rows(page)]
    assert "Newer" not in page
    while older := re.search(r'href="([^"]+)">Older', page):
        page = visitor.see(html.unescape(older[1])).text
        seen.append(rows(page))
    assert [path for page in seen for path in page] == paths
    newer = re.search(r'href="([^"]+)">← Newer', page)
    assert newer
    assert rows(visitor.see(html.unescape(newer[1])).text) == seen[1]
    assert ADDRESS not in older_links(page)


def older_links(page: str) -> str:
    return " ".join(re.findall(r'href="([^"]+)"', page))


class Scanning:
    """A store whose searches break off, as where no index leads."""

    def search(self, search: Search, *, before: Any, after: Any, limit: int) -> SearchPage:
        del search, before, limit
        return SearchPage([], 40, 40, searched_to=40) if after is None else SearchPage([], 9, 9, 9)


def test_a_page_says_where_a_search_broke_off_and_goes_on():
    store: Any = Scanning()
    asked = Asked("token", "mark", {"collection": "email_sent"})

    back = search_page(store, asked).body.decode()
    up = search_page(store, asked._replace(after=5)).body.decode()

    assert "Nothing was found so far" in back
    at = '<time datetime="1970-01-01T00:00:00.0000{}Z">1970-01-01 00:00:00</time>'
    assert f"Searched back to {at.format('40')}" in back
    assert re.search(r'before=1970-01-01T00:00:00.000040Z#results">Search on →', back)
    assert f"Searched up to {at.format('09')}" in up
    assert re.search(r'after=1970-01-01T00:00:00.000009Z#results">← Search on', up)


def test_a_search_that_is_no_longer_known_says_so(collector):
    """Another one was made in another tab, or somebody has logged in again."""
    collector.post(of("sent"))
    visitor = Visitor(collector).log_in()
    first = find(visitor, text="u0").url.removeprefix(visitor.url)
    find(visitor, text="nobody")

    page = visitor.see(first).text

    assert "no longer known here" in page
    assert rows(page) == []
    # What one has searched for goes with the session.
    find(visitor, text=ADDRESS)
    out = visitor.press("/logout")
    assert re.search("vero-collector-search=[^;,]*; .*Max-Age=0", out.headers["Set-Cookie"])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"text": "x" * 1_001}, "Search for: it is longer than"),
        ({"text": "a\0b"}, "Search for: it contains a character"),
        ({"since": "secret"}, "First day: it is not a date"),
        ({"until": "2026-13-01"}, "Last day: it is not a date"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "Last day: it is not later"),
        ({"collection": "secrets"}, "Collection: it is not a collection"),
    ],
    ids=str,
)
def test_a_form_that_cannot_be_used_says_what_is_wrong(shared, fields, problem):
    response = find(Visitor(shared).log_in(), **fields)
    assert response.status_code == 400
    assert problem in html.unescape(response.text)
    assert "that did not work" not in response.text.lower()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.mark.parametrize("cookie", ["x", "e30", "bnVsbA=="])
def test_a_cookie_of_somebody_else_is_not_read(shared, cookie):
    visitor = Visitor(shared).log_in()
    visitor.cookies.set("vero-collector-search", cookie)
    response = visitor.see("/search?s=0123456789abcdef")
    assert response.status_code == 200
    assert "no longer known here" in response.text


def test_too_long_for_a_cookie_is_refused(shared):
    refused = Visitor(shared).log_in().press("/search", text="漢" * 880)
    assert refused.status_code == 400
    assert "longer than" in refused.text


# An event's page


def shown(page: str, name: str) -> str:
    found = re.search(rf'<pre class="\w+" id="{name}".*?>(.*?)</pre>', page, re.DOTALL)
    assert found
    return html.unescape(found[1])


def run(command: str) -> bytes:
    """Run a command that was copied, with the secrets that it leaves to the environment."""
    secrets = {
        "VERO_COLLECTOR_READ_TOKEN": READ_TOKEN,
        "VERO_COLLECTOR_WEBHOOK_TOKEN": WEBHOOK_TOKEN,
    }
    done = subprocess.run(
        ["bash", "-c", f"{command} --silent --show-error --fail-with-body"],
        env=secrets, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_event_has_all_that_is_known_of_it(any_collector):
    body = json.dumps(of("opened", note="it's $HOME `id` \\ ü"), indent=1).encode()
    for each in (of("sent"), of("delivered"), body, of("sent", 1)):
        assert any_collector.post(each).status_code == 200
    events = read_events(any_collector)
    event = events[2]
    visitor = Visitor(any_collector).log_in()

    page = visitor.see(f"/event/{event['loadedAt']}").text

    assert json.loads(shown(page, "call")) == event
    assert shown(page, "verbatim").encode() == body
    columns = dict(re.findall(r"<dt>(\w+)</dt><dd><bdi>(.*?)</bdi></dd>", page))
    assert columns["email_id"] == "0@veromail.com"
    assert columns["context_user_agent"].startswith("Mozilla/5.0")
    assert re.search(r"<p class=\"small\">Null: [^<]*anonymous_id", page)
    assert re.search(r"<dt>Arrived</dt><dd>.* UTC, \d+ d( \d+ h)? later</dd>", page)
    assert "Vero's webhook" in html.unescape(page)
    # What is copied does what it says.
    assert parse(run(shown(page, "read"))) == [event]
    assert json.loads(run(shown(page, "post"))) == {"success": True}
    assert read_events(any_collector) == events
    for secret in (READ_TOKEN, WEBHOOK_TOKEN):
        assert secret not in page


def story(page: str, title: str) -> list[str]:
    """The paths of the events of a story; of the one that is shown, an empty one."""
    section = re.search(rf">{title}</h2>(.*?)</section>", page, re.DOTALL)
    assert section
    items = re.findall(r"<li.*?</li>", section[1], re.DOTALL)
    paths = [re.search(r'href="([^"]+)"', item) for item in items]
    return [path[1] if path else "" for path in paths]


def test_an_event_is_shown_among_the_others_of_its_message_and_recipient(any_collector):
    post = [("clicked", 0, 300), ("sent", 0, 0), ("opened", 0, 200), ("sent", 1, 100)]
    post += [("sent", number, -number) for number in range(2, 20)]
    for vero_type, number, at in post:
        payload = of(vero_type, number) | {f"{vero_type}_at": 1_435_016_000 + at}
        assert any_collector.post(payload).status_code == 200
    at = [f"/event/{each['loadedAt']}" for each in read_events(any_collector)]
    visitor = Visitor(any_collector).log_in()

    page = visitor.see(at[2]).text

    # In the order in which they happened, however they came.
    assert story(page, "This message") == [at[1], "", at[0]]
    assert story(page, "This recipient") == [*at[12:3:-1], at[1], at[3], "", at[0]]
    assert page.count("there are more") == 1
    assert "1 min 40 s later" in page
    # Its button leads to all of them.
    button = re.search(r'name="recipient" value="([^"]+)"', page)
    assert button
    assert html.unescape(button[1]) == ADDRESS
    everything = find(visitor, recipient=ADDRESS).text
    assert len(rows(everything)) == len(post)
    assert f"Recipient: <bdi>{ADDRESS}</bdi>" in html.unescape(everything)


def test_what_came_as_a_track_call_has_no_other_body(collector):
    call = {"event": "Email Opened", "userId": "7", "messageId": "a/b ?&'\"", "writeKey": WRITE_KEY}
    answer = requests.post(f"{collector.url}/v1/track", json=call, auth=(WRITE_KEY, ""), timeout=20)
    assert answer.status_code == 200
    [event] = read_events(collector)
    page = Visitor(collector).log_in().see(f"/event/{event['loadedAt']}").text

    assert "It came as a track call" in page
    assert "the Tracking API" in page
    assert WRITE_KEY not in page
    assert "It has no time of its own".lower() in page.lower()
    assert story(page, "This user") == [""]
    assert "This message" not in page
    assert parse(run(shown(page, "read"))) == [event]


def test_a_body_shows_no_secret(collector):
    body = of("sent", note=f"{READ_TOKEN} and {WEBHOOK_TOKEN}", writeKey="a-live-key")
    assert collector.post(body).status_code == 200
    [event] = read_events(collector)
    page = Visitor(collector).log_in().see(f"/event/{event['loadedAt']}").text

    body_of_it = page.partition('<h2 id="body-title"')[2].partition("</section>")[0]
    for secret in (READ_TOKEN, WEBHOOK_TOKEN, "a-live-key"):
        assert secret not in body_of_it
    assert 'id="post"' not in page  # it would not be the same body
    assert 'id="verbatim"' in page


@pytest.mark.parametrize("size", [MAX_INDENTED, MAX_TYPED, 500_000])
def test_a_long_body_does_not_make_a_page_without_measure(collector, size):
    deep: Any = [0] * (size // 3)
    for _ in range(90):
        deep = [deep]
    body = json.dumps(of("sent", deep=deep), separators=(",", ":")).encode()
    assert collector.post(body).status_code == 200
    [event] = read_events(collector)
    response = Visitor(collector).log_in().see(f"/event/{event['loadedAt']}")

    assert response.status_code == 200
    assert len(response.content) < 6 * len(body) + 2 * MAX_INDENTED + 100_000
    assert ('id="post"' in response.text) is (len(body) <= MAX_TYPED)


@pytest.mark.parametrize("value", ["   ", "a\u202eb", "x" * 1_001, "<b>", "\x7f\n"], ids=ascii)
def test_odd_values_cost_no_page(collector, value):
    payload = of("sent")
    payload |= {"message_id": value, "user": {"id": value, "email": value}}
    payload["campaign"] |= {"sent_to": value, "name": value}
    assert collector.post(payload).status_code == 200
    [event] = read_events(collector)
    visitor = Visitor(collector).log_in()
    assert visitor.see(f"/event/{event['loadedAt']}").status_code == 200
    assert len(rows(find(visitor).text)) == 1


def test_every_collection_has_a_page(collector):
    for vero_type in EMAIL_TYPES:
        assert collector.post(documented(vero_type)).status_code == 200
    visitor = Visitor(collector).log_in()
    for event in read_events(collector):
        page = visitor.see(f"/event/{event['loadedAt']}")
        assert page.status_code == 200
        assert f"<title>{event['event']}" in page.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.9, "less than a second"),
        (1, "1 s"),
        (60, "1 min"),
        (7_500, "2 h 5 min"),
        (7_201, "2 h"),
        (86_400 * 400 + 3_600, "400 d 1 h"),
    ],
)
def test_a_span_is_said_in_its_two_greatest_units(seconds, words):
    assert span_in_words(int(seconds * 1_000_000)) == words
