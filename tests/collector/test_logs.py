from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tap_vero_segment import times
from tap_vero_segment.stores.base import StoreFullError
from tests.support.asgi import post, running
from tests.support.collector import SECRETS, WEBHOOK_TOKEN, Collector, run_collector
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.store import NobodyErased

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOT_JSON = f"{FRAGMENT} of someone@example.com".encode()


def send_no_http(collector: Collector) -> None:
    """Send what the server itself refuses, and wait until it has said so."""
    address = urlsplit(collector.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(b"NO HTTP\r\n\r\n")
        assert b" 400 " in connection.recv(1024)
    deadline = time.monotonic() + 30
    while "cut off" not in collector.log():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lines_of_a_life(folder: Path, log_format: str) -> tuple[str, list[str]]:
    """Return the URL of a collector that was sent nonsense, and what it logged."""
    with Collector(folder, SECRETS | {"VERO_COLLECTOR_LOG_FORMAT": log_format}) as collector:
        assert collector.post(NOT_JSON).status_code == 400
        send_no_http(collector)
    assert collector.process is not None
    assert collector.process.returncode == 0
    assert_tells_nothing(collector.log())
    return collector.url, collector.log().splitlines()


def test_a_log_for_machines_is_an_object_a_line(tmp_path):
    began = times.now()
    url, lines = lines_of_a_life(tmp_path, "json")

    logged: list[dict[str, Any]] = [json.loads(line) for line in lines]
    for line in logged:
        assert list(line)[:4] == ["timestamp", "level", "logger", "message"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
        assert began - times.SECOND < times.from_text(line["timestamp"]) <= times.now()

    new, store, doors, listening, page, quarantined, server, stopping, stopped = logged
    release = version("tap-vero-segment")
    assert (store["version"], store["store"]) == (release, f"{tmp_path}/vero-events.db")
    assert new["message"] == f"new store: {tmp_path}/vero-events.db"
    assert len(doors["open"]) == 4
    assert doors["shut"] == []
    assert page["page"] == f"{url}/"
    assert [line["level"] for line in (stopping, stopped)] == ["INFO", "INFO"]
    assert (listening["message"], listening["url"]) == (f"listening on {url}", url)
    assert (listening["level"], listening["logger"]) == ("INFO", "vero-collector")
    assert quarantined["level"] == "WARNING"
    assert quarantined["input"] == "vero"
    assert quarantined["bytes"] == len(NOT_JSON)
    assert quarantined["reason"] == "not JSON"
    assert (server["level"], server["logger"]) == ("WARNING", "vero-collector")
    assert server["message"] == "connections refused or cut off: 1 not_http"


def test_a_log_for_people_is_a_line_of_text_each(tmp_path):
    store = re.escape(str(tmp_path / "vero-events.db"))
    url, lines = lines_of_a_life(tmp_path, "text")

    prefix = time.strftime("%Y-") + r"\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    expected = [
        f"{prefix} INFO new store: {store}",
        f"{prefix} INFO vero-collector {version('tap-vero-segment')}, store: {store}",
        rf"{prefix} INFO open: Vero's webhooks \(POST /vero/TOKEN\); .*",
        f"{prefix} INFO listening on {url}",
        f"{prefix} INFO the live page is at {url}/",
        f"{prefix} WARNING kept a dead letter of {len(NOT_JSON)} bytes: not JSON",
        f"{prefix} WARNING connections refused or cut off: 1 not_http",
        f"{prefix} INFO shutting down",
        f"{prefix} INFO stopped: all that had come in was written",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line)


def test_a_relative_store_is_logged_where_it_is(tmp_path):
    with Collector(tmp_path, store_url="sqlite:///some/events.db") as collector:
        assert f"store: {tmp_path}/some/events.db\n" in collector.log()


def test_a_shared_store_is_logged_without_user_and_password(tmp_path, database):
    url = database.replace("vero@", "vero:hidden-password@")
    with Collector(tmp_path, store_url=url) as collector:
        log = collector.log()

    server, _, name = database.rpartition("@")[2].partition("/")
    assert f"store: the PostgreSQL database {name} on {server}\n" in log
    assert "hidden-password" not in log
    assert_tells_nothing(log)


def test_doors_without_a_secret_are_said_to_be_shut(tmp_path):
    with Collector(tmp_path, {"VERO_COLLECTOR_WEBHOOK_TOKEN": WEBHOOK_TOKEN}) as collector:
        pass

    log = collector.log()
    assert "open: Vero's webhooks (POST /vero/TOKEN); shut, having no secret: read API (" in log
    assert "live page is at" not in log


def test_another_format_is_refused(tmp_path):
    done = run_collector("serve", "--log-format", "xml", cwd=tmp_path, env=SECRETS)

    assert done.returncode == 2
    assert "--log-format" in done.stderr


class Full(NobodyErased):
    def write(self, *_):
        raise StoreFullError

    def close(self):
        pass


def test_a_group_that_was_not_stored_is_told_with_its_size(caplog: pytest.LogCaptureFixture):
    async def scenario():
        async with running(Full) as app:
            return await post(app, b'{"type": "sent", "user": {"id": 1}}')

    assert asyncio.run(scenario()).status == 503

    (record,) = caplog.records
    assert (record.group, record.error) == (1, "StoreFullError")


def test_a_fault_is_logged_by_its_lines_of_code_and_without_values(caplog):
    class Faulty(NobodyErased):
        def write(self, *_):
            try:
                {}["steve@getvero.com"]
            except KeyError as error:
                raise RuntimeError(FRAGMENT) from error

        def close(self):
            pass

    async def ask_all():
        async with running(Faulty) as app:
            return await post(app, b'{"type": "sent"}')

    answer = asyncio.run(ask_all())

    assert answer.status == 503
    [line] = [record.getMessage() for record in caplog.records if "unexpected" in record.message]
    assert re.search(
        r"unexpected RuntimeError at test_logs\.py:\d+ in write, "
        r"from collector/committer\.py:\d+ in _write, caused by KeyError at test_logs\.py:\d+",
        line,
    )
    assert_tells_nothing(line)


def test_a_new_store_is_said_once(tmp_path, collector):
    said = f"INFO new store: {collector.store}\n"
    assert said in collector.log()
    collector.stop()
    with collector:
        assert collector.log().count("new store: ") == 1
