"""Copies out: at least once, in order, byte for byte, whatever fails or is killed."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import requests
from tenacity import wait_fixed

from tap_vero_segment import times
from tap_vero_segment.collector import destinations as clients
from tap_vero_segment.collector import forwarding
from tap_vero_segment.collector.destinations import content_type, read_destinations
from tap_vero_segment.collector.forwarding import Forwarder, Manner
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.intake import SEGMENT, VERO, read_vero
from tap_vero_segment.stores.base import DeadLetter, StoreBrokenError
from tap_vero_segment.stores.open import open_reader, open_writer
from tests.support import destination as faults
from tests.support.collector import (
    SECRETS,
    Collector,
    clean_environment,
    collector_command,
    run_collector,
    wait_until,
)
from tests.support.destination import Destination, by_connection, firsts
from tests.support.exposition import scrape
from tests.support.payloads import documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.store import new_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tap_vero_segment.stores.base import Forward

SECRET = "path-that-is-a-secret"
BODIES = [json.dumps(payload).encode() for payload in many(60)]
FORM = b"payload=%7B%22type%22%3A%22sent%22%2C%22user%22%3A%7B%22id%22%3A1%7D%7D"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind."""
    return new_store(request, tmp_path)


@pytest.fixture
def embedded(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/vero-events.db"


@pytest.fixture
def server() -> Iterator[Destination]:
    with Destination() as running:
        yield running


def fill(store: str, bodies: Sequence[bytes], dead: Sequence[DeadLetter] = ()) -> None:
    with closing(open_writer(store, "store")) as writer:
        writer.write([read_vero(body, times.now()) for body in bodies], dead)


def letter(body: bytes, number: int = 0, source: str = VERO) -> DeadLetter:
    return DeadLetter(times.now() + number, source, "for a test", body)


def forwarder(store: str, url: str, **manner: Any) -> Forwarder:
    [destination] = read_destinations([url], "", "--to")
    manner = {"follow": False, "patience": 5.0} | manner
    return Forwarder(store, destination, Manner(**manner), threading.Event())


@contextmanager
def following(store: str, url: str) -> Iterator[Forwarder]:
    """Forward to a destination with a thread that ends with the block."""
    running = forwarder(store, url, follow=True)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield running
    finally:
        running.stopping.set()
        thread.join()


def good(store: str, url: str, **manner: Any) -> Forwarder:
    running = forwarder(store, url, **manner)
    running.run()
    assert running.error is None
    return running


def every_forward(store: str) -> list[Forward]:
    with open_reader(store, "store") as reader:
        return reader.forwards()


def progress(store: str, number: int = 1) -> Forward:
    return {each.number: each for each in every_forward(store)}[number]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again at once, and waits for no response for long."""
    monkeypatch.setattr(forwarding, "_backoff", wait_fixed(0))
    monkeypatch.setattr(forwarding, "PAUSE", 0)
    monkeypatch.setattr(forwarding, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(clients, "TIMEOUT", (1.0, 0.2))


FAULTS = [
    faults.status(500),
    faults.status(429, Retry_After="0"),
    faults.status(503, Retry_After="soon"),
    faults.status(302, Location="/elsewhere"),
    faults.status(404),
    faults.status(401),
    faults.reset,
    faults.accepted_then_reset,
    faults.half,
    faults.cut_head,
    faults.hang,
    faults.large,
]


@pytest.mark.usefixtures("impatient")
def test_what_a_destination_fails_to_accept_is_posted_again_in_order(store, server):
    fill(store, BODIES, [letter(b"not JSON"), letter(FORM + b"&", 1)])
    for fault in FAULTS:
        server.faults += [fault, fault]

    good(store, f"{server.url}/hook")

    wanted = [*BODIES, b"not JSON", FORM + b"&"]
    assert firsts(server.bodies()) == wanted
    assert len(server.bodies()) == len(wanted) + 2  # those that were accepted unseen
    places = {body: place for place, body in enumerate(wanted)}
    for bodies in by_connection(server.posted):
        found = [places[body] for body in bodies]
        assert found == sorted(found)
    assert {each.path for each in server.posted} == {"/hook"}  # no redirect was followed
    has = progress(store)
    assert (has.sent, has.refused, has.failing) == (len(wanted), 0, False)
    assert has.failed_at is not None
    good(store, f"{server.url}/hook")
    assert len(server.bodies()) == len(wanted) + 2


def test_it_waits_as_long_as_the_destination_asks_for(embedded, server):
    fill(embedded, BODIES[:2])
    at: list[float] = []

    def busy(handler: Any) -> None:
        at.append(time.monotonic())
        faults.status(429, Retry_After="2")(handler)

    server.faults.append(busy)

    good(embedded, server.url)

    assert time.monotonic() - at[0] >= 2
    assert server.bodies() == BODIES[:2]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "fault", [faults.status(500), faults.hang, faults.half], ids=["500", "hang", "half"]
)
def test_a_run_that_does_not_follow_gives_up_and_keeps_the_cursor(embedded, server, fault):
    fill(embedded, BODIES[:5])
    server.fault_of = lambda body: fault if body == BODIES[3] else None

    running = forwarder(embedded, f"{server.url}/{SECRET}", patience=0.5)
    running.run()

    assert str(running.error).startswith(f"{server.url} (1): ")
    assert SECRET not in str(running.error)
    has = progress(embedded)
    assert (has.sent, has.failing) == (3, True)
    server.fault_of = lambda _: None
    assert good(embedded, f"{server.url}/{SECRET}").sent == 2
    assert server.bodies() == BODIES[:5]


def test_a_destination_without_tls_or_without_a_server_is_said(tmp_path, embedded, server):
    fill(embedded, BODIES[:1])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        unused = taken.getsockname()[1]

    for url in (server.url.replace("http:", "https:"), f"http://127.0.0.1:{unused}"):
        running = forwarder(embedded, url, patience=0.1)
        running.run()
        assert running.error is not None
        assert "TLS" in str(running.error) or "refused" in str(running.error)


@pytest.mark.usefixtures("impatient")
def test_an_event_that_is_refused_stops_there_or_is_skipped_and_counted(store, server):
    fill(store, BODIES[:5], [letter(b"not JSON"), letter(b"neither", 1)])
    server.fault_of = lambda body: faults.status(422) if body in {BODIES[2], b"not JSON"} else None

    running = forwarder(store, server.url)
    running.run()

    assert "HTTP 422 (the event of 20" in str(running.error)
    assert "--skip-refused" in str(running.error)
    assert server.bodies() == BODIES[:2]
    assert progress(store).sent == 2

    good(store, server.url, skip_refused=True)

    assert server.bodies() == [*BODIES[:2], *BODIES[3:5], b"neither"]
    assert progress(store).refused == 2  # a dead letter is skipped in any case


@pytest.mark.usefixtures("impatient")
def test_an_event_that_is_refused_for_a_while_is_posted_when_it_no_longer_is(embedded, server):
    fill(embedded, BODIES[:5])
    server.faults += [faults.status(400)] * 5

    with following(embedded, server.url) as running:
        wait_until(lambda: len(server.bodies()) == 5)

    assert running.error is None
    assert server.bodies() == BODIES[:5]


def test_only_what_vero_posted_is_forwarded_and_the_rest_is_counted(store, server):
    with closing(open_writer(store, "store")) as writer:
        events = [read_vero(body, times.now()) for body in BODIES[:6]]
        others = [event._replace(input=SEGMENT) for event in events[::2]]
        writer.write([others[0], events[1], others[1], events[3], others[2], events[5]], [])
        writer.write([], [letter(b"[1]", 0, SEGMENT), letter(FORM, 1)])

    running = good(store, server.url)

    assert server.bodies() == [BODIES[1], BODIES[3], BODIES[5], FORM]
    assert (running.sent, running.skipped) == (4, 4)
    kinds = [each.headers["Content-Type"] for each in server.posted]
    assert kinds == ["application/json"] * 3 + ["application/x-www-form-urlencoded"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'\xef\xbb\xbf {"a": 1}', "application/json"),
        (b"[1]", "application/json"),
        (FORM, "application/x-www-form-urlencoded"),
        (b"%7B%22type%22%3A1%7D", "application/x-www-form-urlencoded"),
        (b"a=1 and more", "application/octet-stream"),
        (b"", "application/octet-stream"),
        (b"\x1f\x8b\x08%=", "application/octet-stream"),
    ],
)
def test_the_content_type_is_that_of_the_body(body, kind):
    assert content_type(body) == kind


def test_a_new_destination_begins_where_it_is_told_to(store, server):
    fill(store, BODIES[:2], [letter(b"old")])
    with open_reader(store, "store") as reader:
        last = reader.bodies(0, times.LATEST, 10)[-1].loaded_at

    assert good(store, f"{server.url}/now", start=None).sent == 0
    assert good(store, f"{server.url}/date", start=last).sent >= 1
    assert good(store, f"{server.url}/oldest").sent == 3
    fill(store, BODIES[2:3], [letter(b"new", 1)])
    server.accepted.clear()
    assert good(store, f"{server.url}/now", start=0).sent == 2  # it is known already
    assert server.bodies() == [BODIES[2], b"new"]


@pytest.mark.usefixtures("impatient")
def test_what_is_deleted_while_its_destination_fails_is_not_posted_later(store, server):
    fill(store, BODIES[:4], [letter(b"not JSON")])
    server.fault_of = lambda _: faults.status(500)
    with (
        following(store, server.url),
        closing(open_writer(store, "store")) as writer,
        open_reader(store, "store") as reader,
    ):
        wait_until(lambda: any(each.failing for each in every_forward(store)))
        writer.prune(times.LATEST, reader.bodies(0, times.LATEST, 1)[0].loaded_at)
        wait_until(lambda: BODIES[1] in [each.body for each in server.posted])
        server.fault_of = lambda body: faults.status(500) if body == b"not JSON" else None
        wait_until(lambda: b"not JSON" in [each.body for each in server.posted])
        assert writer.discard([1]) == []
        wait_until(lambda: progress(store).letter == 1)
    assert server.bodies() == BODIES[1:4]


def test_a_try_out_forwards_nothing(tmp_path, server):
    environment = {"VERO_COLLECTOR_FORWARD": server.url}
    done = run_collector("sample", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert server.posted == []
    assert every_forward(f"sqlite:///{tmp_path}/.demo/vero-events.db") == []


def test_a_destination_is_forgotten_by_its_url_or_number(tmp_path, embedded, server):
    fill(embedded, BODIES[:2])
    url = f"{server.url}/{SECRET}"
    for forgotten in (url, "2"):
        done = run_collector("forward", "--to", url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "2 bodies forwarded" in done.stdout
        assert SECRET not in done.stdout + done.stderr
        done = run_collector("forward", "--forget", forgotten, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    done = run_collector("forward", "--forget", url, cwd=tmp_path)
    assert done.returncode == 1
    assert "--forget: the store knows no such destination" in done.stderr
    assert server.bodies() == BODIES[:2] * 2


@pytest.mark.usefixtures("impatient")
def test_what_is_forgotten_while_it_runs_ends_and_a_cursor_that_was_moved_holds(store, server):
    fill(store, BODIES[:3])
    with following(store, server.url) as running, closing(open_writer(store, "store")) as writer:
        wait_until(lambda: len(server.bodies()) == 3)
        wait_until(lambda: progress(store).sent == 3)
        has = progress(store)
        assert writer.save_forward(has, has._replace(until=0))
        assert not writer.save_forward(has, has)  # what it says now is something else
        wait_until(lambda: len(server.bodies()) == 6)
        wait_until(lambda: progress(store).until == has.until)
        assert writer.forget_forward(1) == 1
        wait_until(lambda: running.error is not None)
    assert "was forgotten" in str(running.error)


@pytest.mark.usefixtures("impatient")
def test_a_cursor_ahead_of_the_store_is_set_back_and_said(embedded, server, caplog):
    fill(embedded, BODIES[:3])
    good(embedded, server.url)
    with closing(open_writer(embedded, "store")) as writer:
        has = progress(embedded)
        writer.save_forward(has, has._replace(until=has.until + 10**9))
    with following(embedded, server.url):
        wait_until(lambda: progress(embedded).until == has.until)
        fill(embedded, BODIES[3:5])
        wait_until(lambda: len(server.bodies()) == 5)
    assert "it was restored or its newest events were deleted" in caplog.text


def test_one_process_at_a_time_forwards_to_a_destination(tmp_path, store, server):
    fill(store, BODIES[:1])
    command = collector_command("forward", "--store", store, "--to", server.url, "--follow")
    log = tmp_path / "log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return subprocess.Popen(
                command, cwd=tmp_path, env=clean_environment(), stdout=file, stderr=file
            )

    with start() as first:
        wait_until(lambda: len(server.bodies()) == 1)
        with start() as second:
            wait_until(lambda: "waiting until it ends" in log.read_text())
            fill(store, BODIES[1:30])
            wait_until(lambda: len(server.bodies()) == 30)
            first.kill()
            first.wait()
            fill(store, BODIES[30:])
            wait_until(lambda: len(firsts(server.bodies())) == len(BODIES))
            second.terminate()
            assert second.wait(30) == 0
    assert firsts(server.bodies()) == BODIES
    assert len(server.bodies()) < 30 + len(BODIES)


def test_one_that_is_down_holds_up_nobody_and_loses_nothing(tmp_path, store, server):
    down = Destination()
    with down:
        pass  # its port is known now, and nobody is there
    environment = SECRETS | {"VERO_COLLECTOR_FORWARD": f"{down.url}/{SECRET}, {server.url}"}
    with Collector(tmp_path, environment, store) as collector:
        for body in BODIES[:20]:
            assert collector.post(body).status_code == 200
        collector.post(b"not JSON")
        wait_until(lambda: len(server.bodies()) == 21)
        numbers = {each.destination: each.number for each in every_forward(store)}
        wait_until(lambda: progress(store, numbers[server.url]).letter == 1)

        done = run_collector("status", "--store", store, cwd=tmp_path)
        line = next(
            line
            for line in done.stdout.splitlines()
            if line.startswith(f"forwarding to {down.url}")
        )
        assert "20 events behind by " in line
        assert "1 dead letters behind" in line
        assert "failing at 20" in line
        assert line.endswith("connection refused")
        told = scrape(collector)
        where = f'destination="{down.url}",number="{numbers[down.url]}"'
        assert told[f"forward_events_behind{{{where}}}"] == 20
        assert told[f"forward_dead_letters_behind{{{where}}}"] == 1
        assert told[f"forward_seconds_behind{{{where}}}"] > 0
        assert told[f"forward_failing{{{where}}}"] == 1
        other = f'destination="{server.url}",number="{numbers[server.url]}"'
        assert told[f"forward_events_behind{{{other}}}"] == 0
        assert told[f"forward_sent_total{{{other}}}"] >= 1
        text = collector.get("/metrics").text + collector.log() + done.stdout + done.stderr
        assert SECRET not in text

        with down:
            wait_until(lambda: len(down.bodies()) >= 21)
        assert collector.stop() == 0
    for each in (down, server):
        assert [body for body in firsts(each.bodies()) if body != b"not JSON"] == BODIES[:20]
        assert b"not JSON" in each.bodies()


def test_it_ends_in_good_time_while_a_destination_says_nothing(tmp_path, server):
    server.fault_of = lambda _: faults.hang
    environment = SECRETS | {"VERO_COLLECTOR_FORWARD": server.url}
    with Collector(tmp_path, environment) as collector:
        collector.post(BODIES[0])
        wait_until(lambda: len(server.posted) == 1)
        began = time.monotonic()
        assert collector.stop() == 0
        assert time.monotonic() - began < 10


@by_rounds
def test_a_collector_that_is_killed_again_and_again_forwards_all_of_it(tmp_path, store):
    chance = random.Random(16)
    kinds = [fault for fault in FAULTS if fault is not faults.hang]
    environment = SECRETS | {"VERO_COLLECTOR_FORWARD": ""}
    sent: list[bytes] = []
    with Destination() as server:
        server.fault_of = lambda _: chance.choice(kinds) if chance.random() < 0.03 else None
        environment["VERO_COLLECTOR_FORWARD"] = server.url
        collector = Collector(tmp_path, environment, store)
        for _ in range(rounds(20, 1)):
            with collector:
                for _ in range(25):
                    body = json.dumps(documented() | {"user": {"id": len(sent)}}).encode()
                    assert collector.post(body).status_code == 200
                    sent.append(body)
                count = len(server.bodies()) + chance.randint(1, 20)
                wait_until(lambda count=count: len(server.bodies()) >= min(count, len(sent)))
                collector.kill()
        with collector:
            wait_until(lambda: len(firsts(server.bodies())) == len(sent), 120)
            assert collector.stop() == 0
    assert firsts(server.bodies()) == sent
    places = {body: place for place, body in enumerate(sent)}
    for bodies in by_connection(server.posted):
        found = [places[body] for body in bodies]
        assert found == sorted(found)


def test_prune_keeps_what_a_destination_has_not_had(tmp_path, store, server):
    fill(store, BODIES[:10])
    good(store, f"{server.url}/{SECRET}")
    fill(store, BODIES[10:20])
    archive = (tmp_path / "archive").as_uri()
    for _ in range(2):
        done = run_collector("export", "--store", store, "--to", archive, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    prune = ("prune", "--store", store, "--before", "2100-01-01")

    done = run_collector(*prune, cwd=tmp_path)

    assert done.returncode == 1
    assert f"{server.url} (1) has not had all" in done.stderr
    assert SECRET not in done.stderr
    good(store, f"{server.url}/{SECRET}")
    assert run_collector(*prune, cwd=tmp_path).stdout == "20 events deleted\n"
    fill(store, BODIES[20:30])
    assert run_collector(*prune, "--force", cwd=tmp_path).stdout == "10 events deleted\n"


def test_headers_of_ones_own_go_to_their_destination_only(tmp_path, embedded, server):
    fill(embedded, BODIES[:1])
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    of = {f"{server.url}/a": {"Authorization": "Bearer a-secret", "X-Own": "yes"}}
    environment = {
        "VERO_COLLECTOR_FORWARD_HEADERS": json.dumps(of),
        "VERO_COLLECTOR_FORWARD": f"{server.url}/a {server.url.replace('//', '//me:pass%40@')}/b",
        "HOME": str(tmp_path),
    }

    done = run_collector("forward", cwd=tmp_path, env=environment)

    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "pass" not in done.stdout + done.stderr
    by_path = {each.path: each.headers for each in server.posted}
    assert by_path["/a"]["Authorization"] == "Bearer a-secret"
    assert by_path["/a"]["X-Own"] == "yes"
    assert by_path["/b"]["Authorization"] == requests.auth._basic_auth_str("me", "pass@")  # noqa: SLF001
    assert "X-Own" not in by_path["/b"]


@pytest.mark.parametrize(
    ("urls", "headers", "problem"),
    [
        (["https://a.example", "https://b.example"], "Authorization: Bearer s3cret", "several"),
        (["https://a.example"], '{"https://c.example": {"A": "s3cret"}}', "no destination"),
        (["https://a.example"], '{"A": 1, "b": "s3cret"}', "JSON object"),
        (["https://a.example"], '{"A": "s3cret\\r\\nB: c"}', "printable"),
        (["https://a.example"], "s3cret", "Name: value"),
        (["https://a.example"], "Host: s3cret", "cannot be set"),
        (["ftp://s3cret.example"], "", "http(s)"),
        (["https:///s3cret"], "", "http(s)"),
        (["https://a.example:99999/s3cret"], "", "http(s)"),
        (["s3cret"], "", "http(s)"),
        (["https://a.example/s3cret\n"], "", "line end"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_its_value(urls, headers, problem):
    with pytest.raises(SettingError) as caught:
        read_destinations(urls, headers, "--to")
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_one_header_a_line_and_headers_by_host():
    [one] = read_destinations(["https://a.example/x"], "A: 1\nB:2\n", "--to")
    assert one.headers == {"A": "1", "B": "2"}
    [first, second] = read_destinations(
        ["https://u:p@a.example/x", "https://b.example"],
        '{"https://a.example": {"A": "1"}, "https://b.example": {"B": "2"}}',
        "--to",
    )
    assert (first.headers, second.headers) == ({"A": "1"}, {"B": "2"})
    assert first.shown == "https://a.example"


def test_a_store_that_is_not_there_is_said_and_not_made(tmp_path, server):
    done = run_collector("forward", "--to", server.url, cwd=tmp_path)
    assert done.returncode == 1
    assert "store: there is no file" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = run_collector("forward", cwd=tmp_path)
    assert done.returncode == 2
    assert "--to URL" in done.stderr


def test_damage_to_a_body_is_found_before_it_is_posted(embedded, tmp_path):
    import apsw

    fill(embedded, BODIES[:3])
    connection = apsw.Connection(str(tmp_path / "vero-events.db"))
    connection.execute("UPDATE events SET body = x'7b7d'")
    connection.close()

    with open_reader(embedded, "store") as reader, pytest.raises(StoreBrokenError):
        reader.bodies(0, times.LATEST, 10)
