from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import apsw
import pytest

from tap_vero_segment import times
from tests.support.collector import Collector, run_collector, wait_until
from tests.support.events import read_events, status
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, STREAM_OF, documented, many
from tests.support.watching import Visitor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_JSON = b"not JSON"
PAYLOADS = [*many(200), *(documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A running collector that has received events, some twice, and two malformed bodies."""
    with Collector(tmp_path_factory.mktemp("filled")) as running:
        for payload in [*PAYLOADS, *PAYLOADS[:20]]:
            running.post(payload)
        for body in (NOT_JSON, NOT_JSON, b"[1]"):
            running.post(body)
        yield running


def test_the_figures_are_those_of_what_was_sent(filled):
    figures = status(filled)

    sent = Counter(STREAM_OF[payload["type"]] for payload in PAYLOADS)
    assert {name: each["events"] for name, each in figures["collections"].items()} == sent
    assert figures["events"] == len(PAYLOADS)
    assert figures["quarantined"] == 2


def test_first_and_last_loaded_at_are_those_of_the_events(filled):
    figures = status(filled)

    times: dict[str, list[str]] = {}
    for event in read_events(filled):
        slug = event["event"].lower().replace(" ", "_")
        times.setdefault(slug, []).append(event["loadedAt"])
    for name, each in figures["collections"].items():
        assert (each["first_loaded_at"], each["last_loaded_at"]) == (
            min(times[name]),
            max(times[name]),
        )
    everything = [time for each in times.values() for time in each]
    assert figures["first_loaded_at"] == min(everything)
    assert figures["last_loaded_at"] == max(everything)


def test_people_get_a_table_with_the_same_figures(filled):
    figures = status(filled)

    done = run_collector("status", "--store", filled.store_url, cwd=filled.folder)

    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    for name, each in figures["collections"].items():
        assert rows[name] == [str(each["events"]), each["first_loaded_at"], each["last_loaded_at"]]
    assert f"events: {len(PAYLOADS)}" in done.stdout
    assert "dead letters: 2" in done.stdout
    assert_tells_nothing(done.stdout + done.stderr)


def test_it_finds_the_store_as_serve_does(filled, tmp_path):
    by_default = run_collector("status", "--json", cwd=filled.folder)
    by_environment = run_collector(
        "status", "--json", cwd=tmp_path, env={"VERO_COLLECTOR_STORE": filled.store_url}
    )
    (tmp_path / ".env").write_text(f"VERO_COLLECTOR_STORE={filled.store_url}\n", encoding="utf-8")
    by_file = run_collector("status", "--json", cwd=tmp_path)

    assert by_default.stdout == by_environment.stdout == by_file.stdout != ""


def test_it_needs_no_collector(tmp_path):
    with Collector(tmp_path) as collector:
        collector.post(documented())
        running = status(collector)

    assert status(collector) == running


def test_an_empty_store_has_no_events_and_no_times(tmp_path):
    with Collector(tmp_path) as collector:
        figures = status(collector)

    assert figures["events"] == figures["quarantined"] == 0
    assert figures["first_loaded_at"] is figures["last_loaded_at"] is None
    assert set(figures["collections"]) == set(STREAM_OF.values())
    for each in figures["collections"].values():
        assert each == {"events": 0, "first_loaded_at": None, "last_loaded_at": None}
    assert figures["refused"] == {}


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_where_there_is_no_store_it_says_so_and_makes_none(tmp_path, arguments):
    done = run_collector("status", *arguments, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "store: " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [["status"], ["prune", "--before", "2026-01-01"], ["export", "--to", "file:///nowhere"]],
    ids=lambda command: command[0],
)
def test_a_store_that_is_not_there_is_told_by_its_whole_path(tmp_path, command):
    done = run_collector(*command, "--store", "sqlite:///none.db", cwd=tmp_path)

    assert done.returncode == 1
    assert f"store: there is no file {tmp_path / 'none.db'}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/vero-events.db"
    return str(request.getfixturevalue("database"))


def test_what_was_refused_is_counted_with_its_last_time(tmp_path, store_url):
    with Collector(tmp_path, store_url=store_url) as collector:
        before = times.to_text(times.now())
        for _ in range(3):
            assert collector.post(documented(), token=f"wrong {FRAGMENT}").status_code == 404
        assert collector.get("/v1/events", headers={}).status_code == 401
        assert collector.post(b"x" * (512 * 1024 + 1)).status_code == 413
        assert collector.get(f"/{FRAGMENT}").status_code == 404
        counted = {"wrong_secret": 4, "too_large": 1, "not_found": 1}

        def requests() -> dict[str, int]:
            refused = status(collector)["refused"]
            return {reason: each["requests"] for reason, each in refused.items()}

        wait_until(lambda: requests() == counted)
        assert all(each["last_at"] >= before for each in status(collector)["refused"].values())
        page = Visitor(collector).log_in().see().text
        shown = re.sub("<(?!time)[^>]*>", "", page)
        assert "wrong secret (401, 404): 4, the last one <time" in shown
        collector.post(documented(), token="wrong")  # just before the end
    with Collector(tmp_path, store_url=store_url):
        assert requests() == counted | {"wrong_secret": 5}
    done = run_collector("status", "--store", store_url, cwd=tmp_path)
    assert "refused requests: 7" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if line.startswith("wrong secret")]
    assert line.split()[2:5] == ["401,", "404", "5"]
    assert FRAGMENT not in done.stdout + page + collector.log()


def test_what_was_refused_is_not_lost_while_the_store_is_busy(tmp_path):
    with Collector(tmp_path) as collector:
        with closing(apsw.Connection(str(collector.store))) as other:
            other.execute("BEGIN IMMEDIATE")
            collector.post(documented(), token="wrong")
            assert collector.get("/health").status_code == 200
            other.execute("COMMIT")
        collector.post(documented(), token="wrong")
        wait_until(
            lambda: status(collector)["refused"].get("wrong_secret", {}).get("requests") == 2
        )


def test_the_first_event_of_each_kind_is_in_the_log_once(tmp_path):
    with Collector(tmp_path) as collector:
        for vero_type in ("sent", "opened", "sent"):
            collector.post(documented(vero_type))
    for event in ("Email Sent", "Email Opened"):
        assert collector.log().count(f"INFO the first {event} since the start is stored") == 1
    assert collector.log().count("the first ") == 2
