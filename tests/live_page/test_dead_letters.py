"""The pages of the dead letters: groups, pages, and what their buttons do, in both stores."""

from __future__ import annotations

import html
import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.collector.live_page.dead_letters import LISTED
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.open import open_reader, open_writer
from tests.support.collector import READ_TOKEN, Collector, run_collector, wait_until
from tests.support.events import read_events
from tests.support.exposition import scrape
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented
from tests.support.watching import Visitor

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKUP = "<script>alert(1)</script>"
NOT_JSON, OLD = "not JSON", "an old fault & <b>more</b>"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("database"))
    return f"sqlite:///{tmp_path}/vero-events.db"


def put(url: str, several: int, reason: str = NOT_JSON, source: str = "vero") -> None:
    """Quarantine bodies that cannot be read today either, or, of ``OLD``, that can."""
    letters = []
    for number in range(several):
        body = f"{MARKUP} {READ_TOKEN} {reason} {number}".encode()
        if reason == OLD:
            body = json.dumps(documented("sent") | {"user": {"id": number}}).encode()
        letters.append(DeadLetter(times.now(), source, reason, body))
    writer = open_writer(url, "store")
    writer.write([], letters)
    writer.close()


@pytest.fixture
def collector(tmp_path, url) -> Iterator[Collector]:
    put(url, 60)
    put(url, 4, OLD)
    for line in (7, 9):
        put(url, 1, f"events.ndjson: line {line}: not JSON", "import")
    with Collector(tmp_path, store_url=url) as running:
        yield running
    assert_tells_nothing(running.log())


def listing(visitor: Visitor, path: str = "/dead-letters") -> dict:
    response = visitor.see(path, headers={"Accept": "application/json"})
    assert response.headers["Content-Type"] == "application/json"
    found: dict = response.json()
    return found


def reasons(visitor: Visitor) -> dict[str, int]:
    return {group["reason"]: group["letters"] for group in listing(visitor)["groups"]}


def test_they_are_grouped_by_reason_and_listed_page_by_page(collector):
    visitor = Visitor(collector).log_in()
    assert reasons(visitor) == {NOT_JSON: 62, OLD: 4}
    numbers, path, pages = [], "/dead-letters", []
    while path:
        page = listing(visitor, path)
        numbers += [letter["number"] for letter in page["dead_letters"]]
        pages.append(visitor.see(path).text)
        path = page["older"]
    assert numbers == sorted(set(numbers), reverse=True)
    assert len(numbers) == 66 == LISTED + 16

    shown = [re.findall(r'href="/dead-letter/(\d+)"', page) for page in pages]
    assert [int(number) for page in shown for number in page] == numbers
    assert MARKUP not in pages[0]
    assert html.escape(MARKUP) in pages[0]
    assert READ_TOKEN not in pages[0]
    of_import = listing(visitor, "/dead-letters?reason=not+JSON")
    assert len(of_import["dead_letters"]) == LISTED
    assert of_import["dead_letters"][0]["reason"] == "events.ndjson: line 9: not JSON"
    for odd in ("reason=%00%ff", "before=-1", "before=9" + "9" * 30, "reason=unheard+of"):
        assert visitor.see(f"/dead-letters?{odd}").status_code == 200
    letter = listing(visitor, f"/dead-letter/{numbers[-1]}")
    assert (letter["reason"], letter["input"]) == (NOT_JSON, "vero")
    assert letter["body"] == f"{MARKUP} … {NOT_JSON} 0"


def test_a_group_is_replayed_or_deleted_and_what_came_since_is_left(collector, url, tmp_path):
    visitor = Visitor(collector).log_in()

    def fields(path: str) -> dict[str, str]:
        """What the form of the confirming page holds."""
        page = visitor.see(path).text
        return dict(re.findall(r'type="hidden" name="(?!form)(\w+)" value="([^"]*)"', page))

    [before] = [each for each in listing(visitor)["groups"] if each["reason"] == OLD]
    done = visitor.press("/replay", back="dead-letters", until=before["last"], reason=OLD)
    assert done.headers["Location"] == "/dead-letters?done=many"
    page = visitor.see("/dead-letters?done=many").text
    assert "<p>Dead letters read again: 4, of which 0 stay</p>" in page
    assert len(read_events(collector)) == 4
    assert reasons(visitor) == {NOT_JSON: 62}

    chosen = fields("/dead-letters/delete?reason=not+JSON")
    assert chosen.keys() == {"back", "until", "reason"}
    put(url, 1, "something else")
    put(url, 1)  # is there already
    put(url, 61)  # of which one is new
    done = visitor.press("/delete", **chosen)
    assert done.headers["Location"] == "/dead-letters?done=many"
    assert "<p>Dead letters deleted: 62</p>" in visitor.see("/dead-letters?done=many").text
    assert reasons(visitor) == {NOT_JSON: 1, "something else": 1}

    one = listing(visitor)["dead_letters"][0]["number"]
    chosen = fields(f"/dead-letters/delete?number={one}")
    for place in ("deleted", "gone"):
        done = visitor.press("/delete", **chosen)
        assert done.headers["Location"] == f"/dead-letters?done={place}"
    visitor.press("/delete", back="dead-letters")  # says of none
    assert reasons(visitor) == {"something else": 1}
    visitor.press("/delete", **fields("/dead-letters/delete"))
    assert "There are no dead letters" in visitor.see("/dead-letters").text
    with open_reader(url, "store") as reader:
        assert reader.summary().letters_deleted == 64
    status = run_collector("status", "--store", url, cwd=tmp_path)
    assert "deleted dead letters: 64" in status.stdout
    assert scrape(collector)["dead_letters_deleted_total"] == 64
    deleted = re.findall(r"dead letters deleted on the live page: (\d+)", collector.log())
    assert deleted == ["62", "1", "1"]


def test_only_the_forms_of_the_page_delete(collector):
    visitor = Visitor(collector).log_in()
    token = visitor.form_token()
    fields = {"until": "999", "form_token": token}
    evil = {"Origin": "https://evil.example"}
    assert visitor.see("/delete?until=999").status_code == 405
    assert visitor.send_form("/delete", {"until": "999"}).status_code == 403
    assert visitor.send_form("/delete", fields, evil).status_code == 403
    assert visitor.send_form("/delete", fields, {"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert reasons(visitor) == {NOT_JSON: 62, OLD: 4}


def test_thousands_are_shown_at_once_and_deleted_beside_what_comes_in(tmp_path):
    url = f"sqlite:///{tmp_path}/vero-events.db"
    for part in range(5):
        put(url, 2_000, f"reason {part}")
    with Collector(tmp_path) as collector:
        visitor = Visitor(collector).log_in()
        took = []
        for _ in range(3):
            began = time.monotonic()
            page = visitor.see("/dead-letters?before=5000").text
            took.append(time.monotonic() - began)
        assert "Dead letters: 10,000" in page
        assert min(took) < 0.25
        visitor.press("/delete", until=10_000, back="dead-letters")
        assert collector.post(documented()).status_code == 200
        result = "<p>Dead letters deleted: 10000</p>"
        wait_until(lambda: result in visitor.see("/dead-letters?done=many").text)
    assert_tells_nothing(collector.log())
