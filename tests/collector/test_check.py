"""``vero-collector check``: exit status 1 and a line for each condition that fails."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import apsw
import psycopg
import pytest

from tap_vero_segment import times
from tap_vero_segment.collector.cli import main
from tap_vero_segment.collector.commands import check as check_command
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.collector import Collector, run_collector
from tests.support.payloads import documented, many
from tests.support.store import fill
from tests.support.stored import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600 * times.SECOND
SECRET = "secret-of-the-alert"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill(tmp_path / "store.db", many(5))
    return tmp_path / "store.db"


def check(store: Path | str, *options: str, **env: str) -> tuple[int, list[str], str]:
    url = store if isinstance(store, str) else url_of(store)
    cwd = store.parent if not isinstance(store, str) else "/"
    done = run_collector("check", "--store", url, *options, cwd=cwd, env=env)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_all_is_well_without_a_word(store):
    options = ["--newest-within", "1h", "--max-dead-letters", "0", "--integrity"]
    assert check(store, *options) == (0, [], "")
    status, [line], _ = check(store, *options, "--json")
    found = json.loads(line)
    assert (status, found["ok"], found["failed"]) == (0, True, [])
    assert set(found["checks"]) == {
        "store", "clock", "disk", "newest-within", "max-dead-letters", "integrity"
    }  # fmt: skip
    assert set(found["checks"].values()) == {None}


def test_each_condition_that_fails_is_a_line(tmp_path):
    event = read_vero(json.dumps(documented("opened")).encode(), times.now())  # of years ago
    letter = DeadLetter(times.now(), "vero", "a reason", b"not JSON")
    hours_ago = SqliteWriter(url_of(tmp_path / "store.db"), "store", lambda: times.now() - 3 * HOUR)
    with contextlib.closing(hours_ago):
        hours_ago.write([event], [letter])
    status, lines, errors = check(
        tmp_path / "store.db",
        *("--newest-within", "2h", "--max-lag", "1d", "--max-dead-letters", "0"),
    )
    assert (status, errors) == (1, "")
    newest, lag, letters = lines
    assert newest.startswith("newest-within: the newest event arrived 3:00:0")
    assert newest.endswith(" ago, which is more than 2:00:00")
    assert lag.startswith("max-lag: the newest events arrived ")
    assert "more than 1 day, 0:00:00" in lag
    assert letters.startswith("max-dead-letters: dead letters: 1, which is more than 0")


def test_an_empty_store_has_no_newest_event(tmp_path):
    fill(tmp_path / "store.db", [])
    assert check(tmp_path / "store.db")[0] == 0
    status, [line], _ = check(tmp_path / "store.db", "--newest-within", "30d")
    assert status == 1
    assert "no event has ever arrived" in line


def test_pruned_events_did_arrive(store):
    writer = SqliteWriter(url_of(store), "store")
    while writer.prune(times.LATEST):
        pass
    writer.close()
    assert check(store, "--newest-within", "1h", "--max-lag", "1s")[0] == 0


def test_a_clock_that_was_ahead_fails(tmp_path):
    path = tmp_path / "store.db"
    event = read_vero(json.dumps(documented()).encode(), times.now())
    ahead = SqliteWriter(url_of(path), "store", lambda: times.now() + 24 * HOUR)
    with contextlib.closing(ahead):
        ahead.write([event], [])
    status, [line], _ = check(path, "--newest-within", "1h")
    assert status == 1
    assert line.startswith("clock: ")
    assert "repair-clock" in line


def test_a_store_that_is_not_there_is_a_line_too(tmp_path):
    status, [line], errors = check(tmp_path / "none.db", "--newest-within", "1h")
    assert (status, errors) == (1, "")
    assert line == f"store: there is no file {tmp_path / 'none.db'}"
    assert list(tmp_path.iterdir()) == []


def test_damage_that_only_a_whole_reading_finds(store):
    with apsw.Connection(str(store)) as connection:
        connection.execute("UPDATE events SET body = x'00' WHERE loaded_at = "
                           "(SELECT min(loaded_at) FROM events)")  # fmt: skip
    assert check(store)[0] == 0
    status, [line], _ = check(store, "--integrity")
    assert status == 1
    assert line.startswith("integrity: the store is damaged")


def test_a_disk_that_is_nearly_full(store, monkeypatch, capsys):
    monkeypatch.setattr("tap_vero_segment.stores.sqlite.connection.LITTLE_ROOM", 1 << 60)
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage())
    with pytest.raises(SystemExit) as ended:
        main(["check", "--store", url_of(store)])
    assert ended.value.code == 1
    assert capsys.readouterr().out == "disk: the store's disk is nearly full\n"


class _Usage:
    total = 1 << 30
    free = 1 << 20


@pytest.mark.parametrize(
    "text", ["24", "0h", "-1h", "h", "1h1d", "next week", "٣h", "9" * 30 + "h", ""]
)
def test_what_is_no_duration_is_refused(store, text):
    status, lines, errors = check(store, "--newest-within", text)
    assert (status, lines) == (2, [])
    assert "--newest-within" in errors
    assert "24h" in errors


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("90m", 5_400), ("1d12h", 129_600), ("2w", 1_209_600), ("45s", 45),
     ("PT24H", 86_400), ("1H30M", 5_400), ("p1d", 86_400)],
)  # fmt: skip
def test_durations(text, seconds):
    assert times.duration(text) == seconds * times.SECOND


class Alerts:
    """Takes alerts, and responds as it is set."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.bodies.append(json.loads(body))
                self.send_response(outer.status)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}?key={SECRET}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def alerts() -> Iterator[Alerts]:
    server = Alerts()
    yield server
    server.close()


def test_what_failed_is_posted(store, alerts):
    assert check(store, "--newest-within", "1h", VERO_COLLECTOR_ALERT_URL=alerts.url)[0] == 0
    assert alerts.bodies == []
    status, [line], errors = check(
        tmp := store.parent / "none.db", VERO_COLLECTOR_ALERT_URL=alerts.url
    )
    assert (status, errors) == (1, "")
    [body] = alerts.bodies
    assert body["ok"] is False
    assert body["failed"] == [line]
    assert body["store"] == str(tmp)
    assert line in body["text"]


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_alert_that_fails_is_said_and_the_line_is_there_all_the_same(store, alerts, status):
    alerts.status = status
    code, [line], errors = check(store.parent / "none.db", "--alert-url", alerts.url)
    assert code == 1
    assert line.startswith("store: ")
    assert str(status) in errors
    assert SECRET not in errors
    assert len(errors.splitlines()) == 1


def test_a_server_that_never_ends_its_head_costs_bounded_time(store, monkeypatch, capsys):
    monkeypatch.setattr(check_command, "ALERT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    connection.sendall(b"X: y\r\n")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        port = listening.getsockname()[1]
        began = time.monotonic()
        problem = check_command.alert(f"http://127.0.0.1:{port}/{SECRET}", {"ok": False})
    assert time.monotonic() - began < 5
    assert problem is not None
    assert SECRET not in problem


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"ftp://{SECRET}",
        f"https://[{SECRET}",
        f"http://host:{SECRET}/",
        f"https://a b/{SECRET}",
        f"https://host/{SECRET}\n",
        f"http://127.0.0.1:1/{SECRET}",
        f"http://..{SECRET}/",
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(store, url):
    status, _, errors = check(store.parent / "none.db", VERO_COLLECTOR_ALERT_URL=url)
    assert status == 1
    assert errors
    assert SECRET not in errors


def test_a_shared_store(database, tmp_path):
    with Collector(tmp_path, store_url=database) as collector:
        collector.post(documented())
        collector.post(b"not JSON")
    options = ["--newest-within", "1h", "--max-dead-letters", "1", "--integrity"]
    assert check(database, *options)[0] == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP TABLE vero_collector.dead_letters")
    status, lines, _ = check(database, *options)
    assert status == 1
    assert lines
