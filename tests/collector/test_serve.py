from __future__ import annotations

import asyncio
import contextlib
import http.client
import resource
import signal
import socket
import subprocess
from itertools import count
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import apsw
import pytest
import requests

from tap_vero_segment.stores.sqlite.connection import APPLICATION_ID
from tests.support.collector import (
    READ_TOKEN,
    SECRETS,
    WEBHOOK_TOKEN,
    Collector,
    clean_environment,
    collector_command,
    run_collector,
    wait_until,
)
from tests.support.events import read_events
from tests.support.leaks import assert_tells_nothing
from tests.support.load import Load
from tests.support.locked import locked
from tests.support.mounts import make_read_only, small_disk
from tests.support.payloads import documented, many

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


def payloads() -> Iterator[dict]:
    """Return payloads without end, each with a user of its own."""
    return (documented() | {"user": {"id": number}} for number in count())


def user_ids(collector: Collector) -> list[int]:
    return [int(event["userId"]) for event in read_events(collector)]


def refused(command: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command on a free port with settings that it cannot use."""
    environment = SECRETS | {"VERO_COLLECTOR_PORT": "0"}
    return run_collector(command, *arguments, cwd=cwd, env=environment)


def assert_told_in_a_line(done: subprocess.CompletedProcess[str], word: str) -> None:
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert word in line


# The secrets


def test_without_any_secret_it_says_what_to_do(tmp_path):
    done = run_collector("serve", cwd=tmp_path)

    assert_told_in_a_line(done, "vero-collector init")
    assert "VERO_COLLECTOR_WEBHOOK_TOKEN" in done.stderr
    assert not (tmp_path / "vero-events.db").exists()


def test_empty_secrets_are_none(tmp_path):
    done = run_collector("serve", cwd=tmp_path, env=dict.fromkeys(SECRETS, ""))

    assert_told_in_a_line(done, "vero-collector init")


def test_without_a_webhook_token_nothing_comes_in(tmp_path):
    with Collector(tmp_path, env={"VERO_COLLECTOR_READ_TOKEN": READ_TOKEN}) as collector:
        for token in (WEBHOOK_TOKEN, "", "None"):
            assert collector.post(documented(), token=token).status_code == 404
        assert collector.get("/v1/events").status_code == 200


def test_without_a_read_token_nothing_is_read(tmp_path):
    with Collector(tmp_path, env={"VERO_COLLECTOR_WEBHOOK_TOKEN": WEBHOOK_TOKEN}) as collector:
        assert collector.post(documented()).status_code == 200
        for token in (READ_TOKEN, "", "None"):
            headers = {"Authorization": f"Bearer {token}"}
            assert collector.get("/v1/events", headers=headers).status_code == 404
        assert collector.get("/v1/events", headers={}).status_code == 404


# The other settings


@contextlib.contextmanager
def served(folder: Path, settings: dict[str, str]) -> Iterator[str]:
    """``vero-collector serve`` without an option, and its URL."""
    with subprocess.Popen(
        collector_command("serve"),
        cwd=folder,
        env=clean_environment() | SECRETS | settings,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        yield next(line.split()[-1] for line in process.stderr if " listening on " in line)
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_the_environment_names_store_host_and_port(tmp_path):
    settings = {
        "VERO_COLLECTOR_STORE": f"sqlite:///{tmp_path}/elsewhere/events.db",
        "VERO_COLLECTOR_HOST": "0.0.0.0",
        "VERO_COLLECTOR_PORT": "0",
    }
    with served(tmp_path, settings) as url:
        assert url.startswith("http://0.0.0.0:")
        assert answers(url)
    assert (tmp_path / "elsewhere" / "events.db").exists()


def test_options_win_over_the_environment(tmp_path):
    settings = {"VERO_COLLECTOR_STORE": "nonsense", "VERO_COLLECTOR_PORT": "1"}
    with Collector(tmp_path, env=SECRETS | settings) as collector:
        assert collector.post(documented()).status_code == 200


def test_without_settings_it_serves_this_machine_and_stores_in_the_working_folder(tmp_path):
    with served(tmp_path, {"VERO_COLLECTOR_PORT": "0"}) as url:
        assert url.startswith("http://127.0.0.1:")
    assert (tmp_path / "vero-events.db").exists()
    usage = run_collector("serve", "--help", cwd=tmp_path).stdout
    assert "default: 8321" in " ".join(usage.split())


def test_an_address_of_ipv6_will_do(tmp_path):
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        with Collector(tmp_path, env=SECRETS | {"VERO_COLLECTOR_HOST": "::1"}) as collector:
            assert collector.url.startswith("http://[::1]:")
            assert collector.post(documented()).status_code == 200
        return
    pytest.skip("no IPv6 here")


def answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/health", timeout=30).status_code == 200
    return False


def test_a_variable_that_nothing_reads_is_named_with_the_nearest_one(tmp_path):
    value = "192.0.2.0/24"
    (tmp_path / ".env").write_text(f"VERO_COLLECTOR_ALOW_FROM={value}\n", encoding="utf-8")
    settings = SECRETS | {
        "VERO_COLLECTOR_READ_TOKEN_PREVIUOS": value,
        "VERO_COLLECTOR_SOMETHING_ELSE": value,
        "VERO_COLLECTOR_REPORT_POSTGRES": "postgresql:///known",
        "VERO_COLLECTOR__PIP_URL": "of Meltano",
        "VERO_COLLECTORS": "of another program",
    }
    with Collector(tmp_path, env=settings) as collector:
        warned = [line for line in collector.log().splitlines() if " WARNING " in line]

    unknown = "is set, and no setting of that name is known"
    assert [line.partition(" WARNING ")[2] for line in warned] == [
        f"VERO_COLLECTOR_ALOW_FROM {unknown}: is it VERO_COLLECTOR_ALLOW_FROM?",
        f"VERO_COLLECTOR_READ_TOKEN_PREVIUOS {unknown}: is it VERO_COLLECTOR_READ_TOKEN_PREVIOUS?",
        f"VERO_COLLECTOR_SOMETHING_ELSE {unknown}",
    ]
    assert value not in collector.log()


# Settings that cannot be used


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_collector("serve", "--port", port, cwd=tmp_path, env=SECRETS)

    assert_told_in_a_line(done, "port: ")
    assert port in done.stderr


@pytest.mark.parametrize("host", ["203.0.113.1", "nowhere.invalid"])
def test_a_host_that_is_not_here_is_told_in_a_line(tmp_path, host):
    done = refused("serve", "--host", host, cwd=tmp_path)

    assert_told_in_a_line(done, "host: ")


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e999", "0", "soon"])
def test_a_time_out_that_never_comes_is_refused(tmp_path, seconds):
    option = ["serve", "--client-timeout", seconds]
    done = run_collector(*option, cwd=tmp_path, env=SECRETS, timeout=20)

    assert done.returncode == 2
    assert "Invalid value for '--client-timeout'" in done.stderr


def no_database(path: Path) -> None:
    path.write_text("not a database, " * 500, encoding="utf-8")


def other_database(path: Path) -> None:
    with apsw.Connection(str(path)) as database:
        database.execute("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)")
    database.close()


def newer_store(path: Path) -> None:
    with apsw.Connection(str(path)) as database:
        database.execute("CREATE TABLE events (a)")
        database.pragma("application_id", APPLICATION_ID)
        database.pragma("user_version", 99)
    database.close()


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("command", ["serve", "status"])
@pytest.mark.parametrize("make", [no_database, other_database, newer_store, folder])
def test_a_file_that_is_no_store_is_told_in_a_line_and_left_alone(tmp_path, make, command):
    path = tmp_path / "some.db"
    make(path)
    before = path.is_file() and path.read_bytes()

    done = refused(command, "--store", f"sqlite:///{path}", cwd=tmp_path)

    assert_told_in_a_line(done, "store: ")
    assert str(path) in done.stderr
    assert (path.is_file() and path.read_bytes()) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["some.db"]


@pytest.mark.parametrize("command", ["serve", "status"])
@pytest.mark.parametrize(
    "url",
    [
        "vero.db",
        "postgresqll://localhost/vero",
        "sqlite://relative.db",
        "sqlite:///",
        "sqlite:///.",
        "sqlite:////",
        "sqlite:///..",
        "sqlite://[",
        "sqlite:////proc/none/vero.db",
        "sqlite:///taken/vero.db",
        f"sqlite:///{'long' * 100}.db",
    ],
)
def test_a_store_that_can_be_nowhere_is_told_in_a_line(tmp_path, url, command):
    (tmp_path / "taken").write_text("a file, no folder", encoding="utf-8")

    done = refused(command, "--store", url, cwd=tmp_path)

    assert_told_in_a_line(done, "store: ")


def test_a_store_that_cannot_be_written_is_told_in_a_line(tmpfs):
    with Collector(tmpfs) as collector:
        collector.post(documented())
    make_read_only(tmpfs)

    done = refused("serve", "--store", collector.store_url, cwd=tmpfs)

    assert_told_in_a_line(done, "store: ")


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_be_answered_and_stored(tmp_path, number):
    with Collector(tmp_path) as collector:
        load = Load(collector.url, payloads())

        async def interrupt():
            running = asyncio.create_task(load.run(connections=32))
            await load.until_acknowledged(300)
            collector.process.send_signal(number)
            await running

        asyncio.run(interrupt())
        assert collector.process.wait(timeout=30) == 0

    assert {status for status, _ in load.refused} <= {503}
    acknowledged = [payload["user"]["id"] for payload in load.acknowledged]
    with Collector(tmp_path) as again:
        stored = user_ids(again)
    assert len(stored) == len(set(stored))
    # What the collector had not read when it closed is neither; what it had read is both.
    assert set(stored) == set(acknowledged)
    assert_tells_nothing(collector.log())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_loses_nothing_and_hangs_nothing(tmp_path, number):
    """As when Ctrl-C is pressed twice, while a request waits for a store that is locked."""
    acknowledged = False
    with Collector(tmp_path) as collector:
        address = urlsplit(collector.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        with contextlib.closing(connection), locked(collector.store) as release:
            body = b'{"type": "sent", "user": {"id": 1}}'
            connection.request("POST", f"/vero/{WEBHOOK_TOKEN}", body)
            assert answers(collector.url)
            collector.process.send_signal(number)
            wait_until(lambda: not answers(collector.url))
            collector.process.send_signal(number)
            release()
            with contextlib.suppress(http.client.HTTPException, OSError):
                acknowledged = connection.getresponse().status == 200
        assert collector.process.wait(timeout=30) == 0

    with Collector(tmp_path) as again:
        assert user_ids(again) == [1] or not acknowledged


def test_idle_connections_do_not_keep_it_alive(tmp_path):
    with Collector(tmp_path) as collector, requests.Session() as session:
        session.get(f"{collector.url}/health", timeout=30)

        assert collector.stop() == 0


# Storage that fails


def test_a_full_disk_is_a_503_until_there_is_space_again(tmpfs):
    with Collector(tmpfs) as collector:
        collector.post(documented())
        with (tmpfs / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        acknowledged, refused = [], []
        for payload in many(100):
            answer = collector.post(payload | {"filler": "x" * 4_000})
            (acknowledged if answer.status_code == 200 else refused).append(payload)
            if answer.status_code != 200:
                assert answer.status_code == 503
                assert answer.headers["Retry-After"]
        assert refused
        assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200
        assert requests.get(f"{collector.url}/ready", timeout=30).status_code == 503

        (tmpfs / "filler").unlink()

        wait_until(lambda: requests.get(f"{collector.url}/ready", timeout=30).status_code == 200)
        for payload in refused:
            assert collector.post(payload).status_code == 200
        users = user_ids(collector)
    assert sorted(users) == sorted([123, *(p["user"]["id"] for p in acknowledged + refused)])


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux's prlimit")
def test_after_an_error_of_the_disk_it_acknowledges_nothing_and_ends(tmp_path):
    with Collector(tmp_path) as collector:
        assert collector.post(documented("opened")).status_code == 200
        log = collector.store.with_name("vero-events.db-wal").stat().st_size
        # From here on each write beyond the present end of the log is an error of the disk.
        resource.prlimit(collector.process.pid, resource.RLIMIT_FSIZE, (log, log))

        answer = collector.post(documented("clicked"))

        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert collector.process.wait(timeout=30) == 1
    assert "the store can no longer be trusted" in collector.log()
    assert collector.log().endswith(" ERROR stopped, with exit status 1\n")
    assert_tells_nothing(collector.log())
    with Collector(tmp_path) as again:
        assert [event["event"] for event in read_events(again)] == ["Email Opened"]
        assert again.post(documented("clicked")).status_code == 200
