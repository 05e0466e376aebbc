"""What the live page shows and does, in both stores."""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.collector.live_page import feed
from tap_vero_segment.collector.live_page.auth import begin
from tap_vero_segment.collector.live_page.feed import MAX_EVENTS
from tap_vero_segment.collector.serve import CLIENTS_SECONDS
from tap_vero_segment.limits import MAX_WATCHERS
from tap_vero_segment.stores.base import DeadLetter, StoreError, StoreFullError
from tap_vero_segment.stores.open import open_writer
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.asgi import ask, running
from tests.support.collector import READ_TOKEN, SECRETS, WEBHOOK_TOKEN, Collector
from tests.support.events import read_events
from tests.support.exposition import scrape
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented, many
from tests.support.watching import Visitor, Watching

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e"


@pytest.fixture(params=["sqlite", "postgres"])
def any_store(request, tmp_path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("database"))
    return f"sqlite:///{tmp_path}/vero-events.db"


@pytest.fixture
def collector(tmp_path) -> Iterator[Collector]:
    with Collector(tmp_path) as running:
        yield running
    assert_tells_nothing(running.log())


def test_a_store_that_cannot_be_read_is_told(tmp_path, monkeypatch, caplog):
    """Who opens the page, and who watches; it goes on when the store does."""
    monkeypatch.setattr(feed, "TICK_SECONDS", 0.01)
    url = f"sqlite:///{tmp_path}/store.db"
    SqliteWriter(url, "store").close()
    whole = SqliteReader.summary
    torn = lambda _: _raise(StoreError("torn"))  # noqa: E731

    async def scenario():
        async with running(
            lambda: SqliteWriter(url, "store"), lambda: SqliteReader(url, "store")
        ) as app:
            session = begin(READ_TOKEN, [READ_TOKEN], time.time())
            assert session
            headers = [(b"cookie", f"vero-collector={session.cookie}".encode())]
            monkeypatch.setattr(SqliteReader, "summary", torn)
            page = await ask(app, "GET", "/", headers=headers)
            parts, end = app._page._feed.watch("", None, lambda: True)  # noqa: SLF001
            told = [await anext(parts), await anext(parts)]
            monkeypatch.setattr(SqliteReader, "summary", whole)
            told.append(await anext(parts))
            await parts.aclose()
            end()
            return page, told

    page, told = asyncio.run(asyncio.wait_for(scenario(), 20))

    assert (page.status, page.headers["retry-after"]) == (503, "1")
    assert b"The store cannot be read at present." in page.body
    assert told[:2] == [feed.RETRY, b"event: trouble\ndata: {}\n\n"]
    assert told[2].startswith(b"event: counts\n")
    assert caplog.text.count("the store cannot be read") == 2  # once for who watches


def _raise(error: Exception):
    raise error


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells of each collection's row."""
    rows = re.findall(r'<tr data-collection="(\w+)".*?</tr>', page, re.DOTALL)
    cells = re.findall(r"<tr data-collection=.*?</tr>", page, re.DOTALL)
    return {
        row: re.findall(r'<td class="number \w+">(.*?)</td>', text)
        for row, text in zip(rows, cells, strict=True)
    }


def test_the_page_tells_what_is_in_the_store(tmp_path, any_store):
    with Collector(tmp_path, store_url=any_store) as collector:
        visitor = Visitor(collector).log_in()
        assert "Nothing has arrived yet" in visitor.see().text
        for payload in many(40):
            assert collector.post(payload).status_code == 200
        assert collector.post(b"no JSON").status_code == 400

        page = visitor.see().text
        with Watching(visitor) as watching:
            told = watching.next("counts").data["rows"]

        stored = [event["event"] for event in read_events(collector)]
    counted = {collection.stream: stored.count(collection.event) for collection in COLLECTIONS}
    assert {row["collection"]: row["events"] for row in told} == counted
    rows = rows_of(page)
    assert list(rows) == list(counted)
    for collection, (total, day, age) in rows.items():
        assert total == day == str(counted[collection])
        assert re.fullmatch(r"\d+ (s|min)" if total != "0" else "—", age)
    assert re.search(r'aria-label="\d+ in the last 24 hours; most, \d+, from \d\d:\d\d', page)
    assert 'id="figure-letters" href="/dead-letters">1<' in page
    assert "not JSON" in page
    assert_tells_nothing(collector.log())


def test_an_event_has_a_page_and_is_json(collector):
    payload = documented("opened") | {"user_agent": MARKUP, MARKUP: MARKUP}
    payload["campaign"]["name"] = payload["user"]["email"] = payload["user"]["id"] = MARKUP
    assert collector.post(payload).status_code == 200
    [event] = read_events(collector)
    visitor = Visitor(collector).log_in()
    home = visitor.see().text
    [path] = re.findall(r'href="(/event/[^"]+)"', home)
    assert path == f"/event/{event['loadedAt']}"

    page = visitor.see(path).text
    answer = visitor.see(path, headers={"Accept": "application/json"})

    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == event
    assert answer.text.startswith('{\n  "')
    [shown] = re.findall(r'<pre class="json" id="call".*?>(.*?)</pre>', page, re.DOTALL)
    assert json.loads(html.unescape(shown)) == event
    for text in (home, page):
        assert "<img src=x" not in text
        assert "alert(1)</script>" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/event/x",
        "/event/2026-13-01T00:00:00.000000Z",
        "/event/",
        "/dead-letter/9",
        "/dead-letter/",
    ],
)
def test_what_is_not_there_is_told_as_a_page(shared, path):
    response = Visitor(shared).log_in().see(path)
    assert response.status_code == 404
    assert "That did not work" in response.text


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


def test_a_test_event_goes_the_way_of_a_webhook(collector):
    visitor = Visitor(collector).log_in()
    for _ in range(2):  # each is another one
        response = visitor.press("/test-event")
        assert (response.status_code, response.headers["Location"]) == (303, "/?done=test")

    events = read_events(collector)

    assert [event["event"] for event in events] == ["Email Opened"] * 2
    assert events[0]["properties"]["campaign_name"] == "Test event of the live page"
    assert events[0]["context"]["traits"]["email"] == "test-event@example.com"
    assert "has arrived" in visitor.see("/?done=test").text


def test_there_is_no_test_event_where_there_are_no_webhooks(tmp_path):
    secrets = {"VERO_COLLECTOR_READ_TOKEN": READ_TOKEN}
    with Collector(tmp_path, env=secrets) as collector:
        visitor = Visitor(collector).log_in()
        assert "The endpoint for Vero's webhooks is disabled" in html.unescape(visitor.see().text)
        assert visitor.press("/test-event").status_code == 404
        assert read_events(collector) == []


def test_a_dead_letter_is_shown_and_replayed(tmp_path, any_store):
    """One was quarantined by an older release, say, and is an event for this one."""
    good = json.dumps(documented("opened")).encode()
    writer = open_writer(any_store, "store")
    letters = [DeadLetter(times.now(), "vero", "an old fault", good)]
    letters.append(DeadLetter(times.now(), "vero", "not JSON", MARKUP.encode()))
    writer.write([], letters)
    writer.close()
    with Collector(tmp_path, store_url=any_store) as collector:
        visitor = Visitor(collector).log_in()
        bad, mapped = re.findall(r'href="(/dead-letter/\d+)"', visitor.see().text)
        shown = visitor.see(bad).text
        assert html.escape("<script>alert(1)</script>", quote=False) in shown
        assert "Email Opened" not in visitor.see(mapped).text
        with Watching(visitor) as watching:
            assert watching.next("letters").data["count"] == 2

            done = [
                visitor.press("/replay", number=path.rpartition("/")[2]).headers["Location"]
                for path in (mapped, bad, mapped)
            ]

            assert done == ["/?done=stored", "/?done=stays", "/?done=gone"]
            told = watching.next("letters").data
        assert [letter["reason"] for letter in told["letters"]] == ["not JSON"]
        [event] = read_events(collector)
        assert event["event"] == "Email Opened"
        assert "/dead-letter/" in visitor.see().text
        assert visitor.see(mapped).status_code == 404
    assert_tells_nothing(collector.log())


def test_a_store_that_takes_nothing_and_what_is_refused_are_told(tmp_path, monkeypatch):
    """At once, though the last event came a moment ago; and when it is over."""
    monkeypatch.setattr(feed, "TICK_SECONDS", 0.01)
    url = f"sqlite:///{tmp_path}/store.db"
    body = json.dumps(documented()).encode()
    path = f"/vero/{WEBHOOK_TOKEN}"

    async def scenario():
        async with running(
            lambda: SqliteWriter(url, "store"), lambda: SqliteReader(url, "store")
        ) as app:
            session = begin(READ_TOKEN, [READ_TOKEN], time.time())
            assert session
            headers = [(b"cookie", f"vero-collector={session.cookie}".encode())]
            assert (await ask(app, "POST", path, body)).status == 200
            parts, end = app._page._feed.watch("", None, lambda: True)  # noqa: SLF001

            async def counts() -> dict:
                async for part in parts:
                    if b"event: counts" in part:
                        return json.loads(part.partition(b"data: ")[2].partition(b"\n")[0])
                raise AssertionError

            told = [await counts()]
            with monkeypatch.context() as full:
                for name in ("write", "probe"):
                    error = StoreFullError("no space is left")
                    full.setattr(SqliteWriter, name, lambda *_, error=error: _raise(error))
                other = json.dumps(documented("sent")).encode()
                assert (await ask(app, "POST", path, other)).status == 503
                told.append(await counts())
                pages = [await ask(app, "GET", "/", headers=headers)]
            told.append(await counts())
            pages.append(await ask(app, "GET", "/", headers=headers))
            await parts.aclose()
            end()
            return told, [page.body.decode() for page in pages]

    told, pages = asyncio.run(asyncio.wait_for(scenario(), 20))

    assert [counts["writable"] for counts in told] == [True, False, True]
    states = [re.findall(r'class="state (\w+)"', page) for page in pages]
    assert states == [["unwritable"], ["arriving"]]


def test_refused_requests_are_told_as_they_happen(tmp_path):
    with Collector(tmp_path) as collector:
        visitor = Visitor(collector).log_in()
        assert 'id="refusing" hidden' in visitor.see().text
        with Watching(visitor) as watching:
            assert watching.next("counts").data["refused"] == []
            requests.get(f"{collector.url}/robots.txt", timeout=30)
            [stranger] = watching.next("counts").data["refused"]
            requests.post(f"{collector.url}/vero/wrong", b"{}", timeout=30)
            wrong, _ = watching.next("counts").data["refused"]
        page = visitor.see().text

    assert (stranger["reason"], stranger["alarms"]) == ("not found", False)
    assert (wrong["reason"], wrong["status"]) == ("wrong secret", "401, 404")
    assert (wrong["requests"], wrong["alarms"]) == (1, True)
    assert abs(wrong["at"] - time.time() * 1_000) < 60_000
    assert re.search(r'id="refusing">.*<a [^>]*>wrong secret</a>', page)


def test_set_up_folds_away_once_something_real_has_come(collector):
    visitor = Visitor(collector).log_in()
    assert visitor.see().text.count('<details class="card" id="connect" open>') == 1
    visitor.press("/test-event")
    assert visitor.see().text.count('<details class="card" id="connect" open>') == 1
    collector.post(documented())
    page = visitor.see("/?collection=email_bounced").text
    assert '<details class="card" id="connect">' in page
    assert page.index('id="latest"') < page.index('id="connect"')


def test_what_comes_is_told_as_it_comes(collector):
    visitor = Visitor(collector).log_in()
    with Watching(visitor) as watching:
        assert (watching.status, watching.content_type) == (200, "text/event-stream")
        assert watching.next("counts").data["rows"][0]["events"] == 0
        assert watching.next("seen").id == "~0"
        payload = documented("clicked")

        collector.post(payload)
        counts, came = watching.next("counts"), watching.next("events")

    rows = {row["collection"]: row for row in counts.data["rows"]}
    assert rows["email_link_clicked"]["events"] == rows["email_link_clicked"]["hour"] == 1
    assert abs(counts.data["now"] - time.time() * 1000) < 60_000
    [event] = read_events(collector)
    [entry] = came.data["events"]
    assert entry == {
        "at": event["loadedAt"],
        "event": "Email Link Clicked",
        "collection": "email_link_clicked",
        "who": payload["user"]["email"],
        "what": payload["campaign"]["name"],
    }
    assert came.data["missed"] == 0
    assert came.id == f"{event['loadedAt']}~1"


def test_who_comes_again_is_told_what_he_missed(collector):
    visitor = Visitor(collector).log_in()
    post = iter(documented("sent") | {"user": {"id": number}} for number in range(100))
    since = visitor.since()
    for _ in range(3):
        collector.post(next(post))
    with Watching(visitor, since=since) as watching:
        first = watching.next("events")
    for _ in range(MAX_EVENTS + 7):
        collector.post(next(post))
    # What the browser brings along is newer than what is in its URL.
    with Watching(visitor, last_event_id=first.id, since=since) as watching:
        second = watching.next("events")

    sent = [event["loadedAt"] for event in read_events(collector)]
    assert [entry["at"] for entry in first.data["events"]] == sent[2::-1]
    assert [entry["at"] for entry in second.data["events"]] == sent[: -MAX_EVENTS - 1 : -1]
    assert (first.data["missed"], second.data["missed"]) == (0, 7)
    assert second.id == f"{sent[-1]}~{len(sent)}"


def test_the_events_of_one_collection_can_be_watched(collector):
    visitor = Visitor(collector).log_in()
    with Watching(visitor, collection="email_bounced") as watching:
        watching.next("seen")
        collector.post(documented("sent"))
        collector.post(documented("bounced"))
        came = watching.next("events").data
    assert [entry["event"] for entry in came["events"]] == ["Email Bounced"]
    assert came["missed"] == 0
    page = visitor.see("/?collection=email_bounced").text
    assert len(re.findall('<details class="event" data-at', page)) == 1


def test_so_many_may_watch_and_no_more(shared):
    visitor = Visitor(shared).log_in()
    watching = [Watching(visitor) for _ in range(MAX_WATCHERS)]
    for each in watching:
        each.next("counts")

    with Watching(visitor) as one_more:
        assert one_more.status == 503
    # Not as overload, for which somebody would be woken.
    assert scrape(shared)['requests_refused_total{reason="too_many_connections"}'] == 1
    watching.pop().close()
    deadline = time.monotonic() + 20
    status = 503
    while status != 200:
        assert time.monotonic() < deadline
        with Watching(visitor) as again:
            status = again.status
    for each in watching:
        each.close()


def test_the_end_does_not_wait_for_who_watches(tmp_path):
    with Collector(tmp_path) as collector:
        watching = [Watching(Visitor(collector).log_in()) for _ in range(3)]
        for each in watching:
            each.next("counts")
        began = time.monotonic()

        assert collector.stop() == 0

        assert time.monotonic() - began < CLIENTS_SECONDS
        assert all(each.ended() for each in watching)
        for each in watching:
            each.close()
    assert_tells_nothing(collector.log())
    assert "ERROR" not in collector.log()


def test_who_watches_longer_than_a_request_may_take_is_not_cut_off(tmp_path):
    patience = {"VERO_COLLECTOR_CLIENT_TIMEOUT": "0.2"}
    with (
        Collector(tmp_path, SECRETS | patience) as collector,
        Watching(Visitor(collector).log_in()) as watching,
    ):
        watching.next("seen")
        time.sleep(1)  # five times as long
        collector.post(documented())
        assert watching.next("events").data["events"]
