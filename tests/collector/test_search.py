"""Finding events: the read API and the command."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests

from tap_vero_segment import times
from tap_vero_segment.collector.commands import events as command
from tap_vero_segment.collector.endpoints.events import MAX_LIMIT
from tap_vero_segment.stores.base import Search, SearchPage
from tap_vero_segment.terminal import table
from tests.support.asgi import ask, running
from tests.support.collector import (
    Collector,
    clean_environment,
    collector_command,
    run_collector,
)
from tests.support.events import parse, read_events
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented
from tests.support.store import NobodyErased

if TYPE_CHECKING:
    from collections.abc import Iterator

CURSOR = "2026-11-23T09:24:00.000000Z"


def opened(number: int, **fields: Any) -> dict[str, Any]:
    """One of many like webhooks, each of another user."""
    payload = documented("opened") | fields
    payload["user"] = {"id": f"u{number}", "email": f"Person{number}@Example.com"}
    payload["campaign"]["sent_to"] = payload["user"]["email"]
    return payload


def posted(collector: Collector) -> list[dict[str, Any]]:
    """Post what is searched for; return the events, the newest first."""
    for number in range(4):
        assert collector.post(opened(number, opened_at=1_435_016_238 + number)).status_code == 200
    clicked = documented("clicked") | {"message_id": "another@veromail.com"}
    clicked["campaign"] |= {"id": 5, "name": "Grüße, +1", "sent_to": None}
    assert collector.post(clicked).status_code == 200
    return read_events(collector)[::-1]


Filled = tuple[Collector, list[dict[str, Any]]]
"""A collector with a few events, and these, the newest first."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Iterator[Filled]:
    with Collector(tmp_path_factory.mktemp("filled")) as collector:
        yield collector, posted(collector)
    assert_tells_nothing(collector.log())


@pytest.fixture(scope="module")
def filled_postgres(tmp_path_factory, postgres) -> Iterator[Filled]:
    url = postgres.create("search")
    with Collector(tmp_path_factory.mktemp("filled"), store_url=url) as collector:
        yield collector, posted(collector)
    assert_tells_nothing(collector.log())


@pytest.fixture(params=["filled", "filled_postgres"])
def found(request) -> Filled:
    filled: Filled = request.getfixturevalue(request.param)
    return filled


def search(collector: Collector, **query: Any) -> requests.Response:
    return collector.get("/v1/events/search", params=query)


CLICKED, U3, U2, U1, U0 = range(5)
FOUND = [
    ({}, [CLICKED, U3, U2, U1, U0]),
    ({"recipient": "pERSON2@example.com"}, [U2]),
    ({"recipient": "nobody@example.com"}, []),
    ({"recipient": "son2@example.com"}, []),
    ({"user_id": "u1"}, [U1]),
    ({"user_id": "U1"}, []),
    ({"email_id": "another@veromail.com"}, [CLICKED]),
    ({"campaign": "987"}, [U3, U2, U1, U0]),
    ({"campaign": "grüße, +1"}, [CLICKED]),
    ({"collection": "email_link_clicked"}, [CLICKED]),
    ({"collection": "email_sent"}, []),
    ({"campaign": "987", "since": "2015-06-22T23:37:19Z"}, [U3, U2, U1]),
    ({"campaign": "987", "until": "2015-06-23T01:37:20+02:00"}, [U1, U0]),
    ({"campaign": "987", "until": "2015-06-22"}, []),
    ({"user_id": "u1", "collection": "email_sent"}, []),
]


@pytest.mark.parametrize(("query", "rows"), FOUND, ids=str)
def test_events_are_found_by_what_is_known_of_them(found, query, rows):
    collector, events = found

    response = search(collector, **query)

    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert parse(response.content) == [events[row] for row in rows]
    assert not {"older", "newer", "searched-to"} & response.headers.keys()


def test_an_event_is_found_by_its_id_which_is_in_the_url_as_it_is(found):
    collector, events = found
    for event in events:
        response = search(collector, id=event["messageId"])
        assert parse(response.content) == [event]
    # As a client writes it that leaves the + of an offset alone.
    plain = collector.get("/v1/events/search?since=2015-06-23T01:37:21+02:00&user_id=u3")
    assert parse(plain.content) == [events[U3]]


def test_pages_go_back_and_forth_by_cursors(found):
    collector, events = found
    first = search(collector, limit=2)
    second = search(collector, limit=2, before=first.headers["Older"])
    third = search(collector, limit=2, before=second.headers["Older"])
    back = search(collector, limit=2, after=third.headers["Newer"])

    assert parse(first.content + second.content + third.content) == events
    assert "Newer" not in first.headers
    assert "Older" not in third.headers
    assert back.content == second.content
    assert back.headers["Older"] == second.headers["Older"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"recipient": ""}, "recipient"),
        ({"user_id": "  "}, "user_id"),
        ({"campaign": "x" * 1_001}, "campaign"),
        ({"email_id": "secret\0"}, "email_id"),
        ({"collection": "secrets"}, "collection"),
        ({"collection": "tracks"}, "collection"),
        ({"since": "secret"}, "since"),
        ({"until": ""}, "until"),
        ({"since": "2026-11-02", "until": "2026-11-02"}, "until"),
        ({"before": "secret"}, "before"),
        ({"after": "9999-99-99"}, "after"),
        ({"before": CURSOR, "after": CURSOR}, "after"),
        ({"limit": "0"}, "limit"),
        ({"limit": MAX_LIMIT + 1}, "limit"),
        ({"secret@example.com": "1"}, "parameter"),
        ({"recepient": "secret@example.com"}, "parameter"),
        ({"text": "secret"}, "parameter"),
    ],
    ids=str,
)
def test_a_parameter_that_cannot_be_used_is_named_and_not_repeated(filled, query, name):
    response = search(filled[0], **query)

    assert response.status_code == 400
    error = response.json()["error"]
    assert name in error.partition(":")[0]
    assert "secret" not in error


def test_who_has_no_read_token_finds_nothing(filled):
    collector, _ = filled
    url = f"{collector.url}/v1/events/search?recipient=person2@example.com"
    assert requests.get(url, timeout=20).status_code == 401


def test_nothing_of_a_search_is_in_logs_or_metrics(filled):
    collector, _ = filled
    search(collector, recipient="hidden-one@example.com")
    search(collector, since="hidden-one@example.com")
    search(collector, **{"hidden-one@example.com": ""})
    collector.get(f"/v1/events/{quote('hidden-one@example.com')}")

    assert "hidden-one" not in collector.log()
    assert "hidden-one" not in collector.get("/metrics").text


# The command


@pytest.fixture
def run(filled):
    collector, _ = filled

    def running(*arguments: str) -> subprocess.CompletedProcess[str]:
        store = ("--store", collector.store_url)
        return run_collector("events", *store, *arguments, cwd=collector.folder)

    return running


def test_the_command_prints_a_table_and_how_to_go_on(filled, run):
    _, events = filled
    done = run("--campaign", "987", "--limit", "3")

    assert done.returncode == 0, done.stderr
    header, rule, *rows, empty, closing = done.stdout.splitlines()
    assert header.split() == ["happened", "event", "recipient", "campaign", "id"]
    assert set(rule) == {"-", " "}
    assert rows[0] == (
        "2015-06-22 23:37:21  Email Opened  Person3@Example.com  Order confirmation  "
        f"{events[U3]['messageId']}"
    )
    assert (len(rows), empty) == (3, "")
    counted, _, option = closing.partition(": add ")
    assert counted == "3 events, the newest to arrive first. Older ones"
    # What it says is what works.
    again = run("--campaign", "987", "--limit", "3", *option.split())
    assert events[U0]["messageId"] in again.stdout
    assert again.stdout.splitlines()[-1] == "1 event."


def test_the_command_prints_json_and_csv(filled, run):
    _, events = filled
    as_json = run("--user-id", "u1", "--json")
    as_csv = run("--csv")

    assert [json.loads(line) for line in as_json.stdout.splitlines()] == [events[U1]]
    assert as_json.stderr.splitlines() == ["1 event."]
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [row["id"] for row in rows] == [event["messageId"] for event in events]
    assert [row["campaign_name"] for row in rows[:2]] == ["Grüße, +1", "Order confirmation"]
    assert rows[U1]["user_id"] == "u1"
    assert json.loads(rows[U1]["properties"])["event"]["name"] == "purchased item"
    assert rows[U1]["bounce_code"] == ""
    assert as_csv.stderr.splitlines() == ["5 events, the newest to arrive first."]


def test_the_command_says_that_there_is_nothing(run):
    nothing = run("--recipient", "nobody@example.com")
    assert (nothing.returncode, nothing.stdout) == (0, "No event was found.\n")
    as_json = run("--recipient", "nobody@example.com", "--json")
    assert (as_json.stdout, as_json.stderr) == ("", "No event was found.\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--recipient", " "], "--recipient: it is empty"),
        (["--email-id", "\udcff"], "--email-id: it contains a character"),
        (["--collection", "secret"], "--collection: it is not a collection"),
        (["--since", "secret"], "--since: it is not a date"),
        (["--before", "secret"], "--before: it is not a date"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "--until: it is not later"),
        (["--before", CURSOR, "--after", CURSOR], "--before cannot be combined"),
        (["--json", "--csv"], "--json cannot be combined"),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_used_is_named_and_not_repeated(run, arguments, named):
    done = run(*arguments)

    assert done.returncode != 0
    assert named in done.stderr
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_a_table_fits_the_terminal(filled):
    collector, _ = filled
    leader, follower = pty.openpty()
    arguments = collector_command("events", "--store", collector.store_url)
    with subprocess.Popen(
        arguments, cwd=collector.folder, env=clean_environment() | {"COLUMNS": "60"},
        stdout=follower, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.wait(timeout=60) == 0
    lines = os.read(leader, 100_000).decode().splitlines()
    os.close(leader)
    os.close(follower)
    assert max(map(len, lines[:7])) <= 60
    assert lines[3] == "2015-06-22 23:37:21  Email Opened        Person3@…  Order c…"


def test_a_table_is_cut_where_it_is_widest_and_by_what_is_seen():
    rows = [["a" * 30, "漢字漢字漢字", "7"], ["b", "é" + "e\u0301" * 8, "12"]]
    header = ("first", "second", "n")
    assert table(header, rows, 25, header) == [
        "first      second      n",
        "---------  ----------  --",
        "aaaaaaaa…  漢字漢字…    7",
        "b          é" + "e\u0301" * 8 + "   12",
    ]
    assert table(header[:2], [["a" * 9, "b" * 9]], 3, header)[2] == "aaaa…  bbbbb…"
    assert table(header[:2], [["a" * 9, "b" * 9]], 3, ["first"])[2] == "aaaa…  " + "b" * 9
    assert table(header[:2], [["a" * 9, "b" * 9]])[2] == "a" * 9 + "  " + "b" * 9


def test_what_a_spreadsheet_would_run_is_text(tmp_path):
    with Collector(tmp_path) as collector:
        collector.post(documented("opened") | {"user_agent": "=1+1", "message_id": "+49 1"})
        done = run_collector("events", "--csv", "--store", collector.store_url, cwd=tmp_path)
    [row] = csv.DictReader(io.StringIO(done.stdout))
    assert (row["context_user_agent"], row["email_id"]) == ("'=1+1", "'+49 1")


def test_what_a_terminal_would_obey_is_printed_as_text(tmp_path):
    with Collector(tmp_path) as collector:
        payload = documented("opened")
        payload["campaign"]["name"] = "\x1b[2J\nred"
        collector.post(payload)
        done = run_collector("events", "--store", collector.store_url, cwd=tmp_path)
    assert r"\x1b[2J red" in done.stdout


class NoStore(NobodyErased):
    def close(self) -> None:
        pass


class Scanning(NoStore):
    """A store whose searches break off, as where no index leads."""

    pages = (
        SearchPage([], 40, None, searched_to=40),
        SearchPage([b"one"], 30, None, searched_to=30),
        SearchPage([b"two"], None, None),
    )

    def __init__(self) -> None:
        self.before: list[int | None] = []

    def search(self, search: Any, *, before: int | None, after: None, limit: int) -> SearchPage:
        del search, after, limit
        self.before.append(before)
        return self.pages[len(self.before) - 1]


def test_the_command_goes_on_where_a_search_breaks_off(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(command, "PROGRESS_SECONDS", -1.0)
    store: Any = Scanning()
    assert command._pages(store, command.Wish(Search(), None, None, 20)) == (  # noqa: SLF001
        [b"one", b"two"],
        None,
    )
    assert store.before == [None, 40, 30]
    assert [record.message for record in caplog.records] == [
        f"searching: {count} events found so far, at {times.to_text(at)}"
        for count, at in ((0, 40), (1, 30))
    ]


def test_a_response_says_where_a_search_broke_off():
    store: Any = Scanning()

    async def scenario():
        async with running(NoStore, lambda: store) as app:  # type: ignore[arg-type]
            return await ask(app, "GET", "/v1/events/search")

    response = asyncio.run(scenario())
    assert (response.status, response.body) == (200, b"")
    assert response.headers["searched-to"] == response.headers["older"] == times.to_text(40)
