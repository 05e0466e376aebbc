from __future__ import annotations

import asyncio
import random
import re
import threading
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import requests

from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, Collector
from tests.support.events import parse, read_events
from tests.support.load import Load
from tests.support.payloads import documented, many
from tests.support.store import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXED_WIDTH = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
COUNT = 2_500


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector on a store that holds a few pages of events."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "vero-events.db", many(COUNT))
    with Collector(folder) as running:
        yield running


@pytest.fixture(scope="module")
def times(filled: Collector) -> list[str]:
    """The ``loadedAt`` of all events, in order."""
    return [event["loadedAt"] for event in read_events(filled)]


def get(collector: Collector, query: str = "") -> list[str]:
    """Return the ``loadedAt`` of a page."""
    response = collector.get(f"/v1/events{query}")
    assert response.status_code == 200, response.text
    return [event["loadedAt"] for event in parse(response.content)]


def test_each_line_is_a_track_call_with_loaded_at(collector):
    payload = documented("clicked")
    collector.post(payload)

    response = collector.get("/v1/events")

    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert response.content.endswith(b"\n")
    [event] = parse(response.content)
    assert event["type"] == "track"
    assert event["event"] == "Email Link Clicked"
    assert event["userId"] == "123"
    assert event["timestamp"] == event["originalTimestamp"] == "2015-06-22T23:37:18.000000Z"
    assert event["context"]["traits"] == {"email": "steve@getvero.com"}
    assert event["properties"]["campaign_name"] == "Order confirmation"
    assert FIXED_WIDTH.fullmatch(event["receivedAt"])
    assert FIXED_WIDTH.fullmatch(event["loadedAt"])
    assert event["loadedAt"] >= event["receivedAt"]


def test_an_empty_store_has_an_empty_body(collector):
    response = collector.get("/v1/events")

    assert response.status_code == 200
    assert response.content == b""


def test_loaded_at_is_fixed_width_and_strictly_rises(times):
    assert len(times) == COUNT
    assert all(FIXED_WIDTH.fullmatch(time) for time in times)
    assert all(earlier < later for earlier, later in pairwise(times))


def test_a_page_begins_strictly_after_the_cursor(filled, times):
    for index in (0, 1, 999, COUNT - 2):
        assert get(filled, f"?after={times[index]}&limit=3") == times[index + 1 : index + 4]


def test_nothing_is_after_the_last(filled, times):
    response = filled.get("/v1/events", params={"after": times[-1]})

    assert response.status_code == 200
    assert response.content == b""


def test_a_page_has_a_thousand_events_unless_told_otherwise(filled, times):
    assert get(filled) == times[:1000]


@pytest.mark.parametrize("limit", [1, 2, 999, 2_500, 10_000])
def test_a_page_has_as_many_events_as_asked_for(filled, times, limit):
    assert get(filled, f"?limit={limit}") == times[:limit]


@pytest.mark.parametrize(
    "limit",
    ["0", "-1", "10001", "1.5", "1e3", "ten", "", "%2B5", "%D9%A3", "0000100000", "9" * 5000],
)
def test_a_limit_that_cannot_be_used_is_named(filled, limit):
    response = filled.get(f"/v1/events?limit={limit}")

    assert response.status_code == 400
    assert "limit" in response.json()["error"]


@pytest.mark.parametrize("after", ["yesterday", "now", "17", "P1D", "2026-13-01", "09:24", "%FF"])
def test_a_cursor_that_is_no_time_is_named(filled, after):
    response = filled.get(f"/v1/events?after={after}")

    assert response.status_code == 400
    assert "after" in response.json()["error"]


INDEX = 1_234
FORMS = {
    "UTC": lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}",
    "without an offset": lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S.%f}",
    "with a space": lambda moment: quote(f"{moment:%Y-%m-%d %H:%M:%S.%f}"),
    "basic": lambda moment: f"{moment:%Y%m%dT%H%M%S.%fZ}",
    "an ordinal date": lambda moment: f"{moment:%Y-%jT%H:%M:%S.%f}",
    "east of Greenwich": lambda moment: quote(
        moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    ),
    "with an unescaped plus": lambda moment: moment.astimezone(
        timezone(timedelta(hours=1))
    ).isoformat(),
    "in small letters": lambda moment: (
        moment.astimezone(timezone(timedelta(hours=1))).isoformat().lower()
    ),
    "west of Greenwich": lambda moment: quote(
        moment.astimezone(timezone(timedelta(hours=-8))).isoformat()
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_cursor_may_be_any_iso_form_of_its_instant(filled, times, form):
    moment = datetime.fromisoformat(times[INDEX])

    assert get(filled, f"?after={FORMS[form](moment)}&limit=1") == [times[INDEX + 1]]


def test_a_date_is_its_midnight_in_utc(filled, times):
    first = datetime.fromisoformat(times[0])

    assert get(filled, f"?after={first - timedelta(days=1):%Y-%m-%d}&limit=1") == times[:1]
    assert get(filled, f"?after={first + timedelta(days=2):%Y-%m-%d}&limit=1") == []
    assert get(filled, "?after=1969-12-31&limit=1") == times[:1]


def test_every_page_tells_how_far_the_store_goes(filled, times):
    for query in ("?limit=1", f"?after={times[5]}", f"?after={times[-1]}"):
        assert filled.get(f"/v1/events{query}").headers["High-Water-Mark"] == times[-1]


def test_head_is_get_without_the_body(filled):
    headers = {"Authorization": f"Bearer {READ_TOKEN}"}
    response = filled.get("/v1/events?limit=5")
    head = requests.head(f"{filled.url}/v1/events?limit=5", headers=headers, timeout=30)

    assert head.status_code == 200
    assert head.content == b""
    for name in ("Content-Type", "Content-Length", "High-Water-Mark"):
        assert head.headers[name] == response.headers[name]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {READ_TOKEN}x",
        f"Bearer {READ_TOKEN[:-1]}",
        f"Basic {READ_TOKEN}",
        READ_TOKEN,
        b"Bearer \xff\xfe",
    ],
)
def test_without_the_read_token_nothing_is_read(filled, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}

    response = filled.get("/v1/events", headers=headers)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert b"userId" not in response.content


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_of_the_token_has_no_case(filled, scheme):
    headers = {"Authorization": f"{scheme} {READ_TOKEN}"}

    assert filled.get("/v1/events", headers=headers).status_code == 200


def test_the_webhook_token_reads_nothing(filled):
    headers = {"Authorization": f"Bearer {WEBHOOK_TOKEN}"}

    assert filled.get("/v1/events", headers=headers).status_code == 401


@pytest.mark.parametrize("seed", range(5))
def test_pages_of_any_size_make_up_the_whole(filled, times, seed):
    chance = random.Random(seed)
    found: list[str] = []
    while True:
        after = f"&after={found[-1]}" if found else ""
        page = get(filled, f"?limit={chance.choice((1, 7, 100, 500, 1000))}{after}")
        if not page:
            break
        found += page

    assert found == times


def test_a_reader_beside_writers_sees_each_event_once_and_in_order(collector):
    payloads = many(3_000, seed=11)
    written = threading.Event()
    found: list[dict] = []

    def write():
        asyncio.run(Load(collector.url, iter(payloads)).run(connections=32))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    while True:
        ended = written.is_set()
        after = f"&after={found[-1]['loadedAt']}" if found else ""
        page = parse(collector.get(f"/v1/events?limit=100{after}").content)
        found += page
        if ended and not page:
            break
    writer.join()

    assert sorted(int(event["userId"]) for event in found) == list(range(3_000))
    loaded_at = [event["loadedAt"] for event in found]
    assert loaded_at == sorted(set(loaded_at))
    assert found == read_events(collector)


def test_a_page_that_cannot_be_read_is_a_503_and_is_logged(tmp_path):
    with Collector(tmp_path) as collector:
        collector.store.rename(tmp_path / "moved.db")
        response = collector.get("/v1/events")

        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert "the store cannot be read" in collector.log()
        (tmp_path / "moved.db").rename(collector.store)
        assert collector.get("/v1/events").status_code == 200
