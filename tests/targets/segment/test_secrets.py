"""The write key is sent to the server, and told to nobody else."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import tracking_server as api
from tests.support.forked_target import IMPATIENT
from tests.support.singer_events import line, records, run_lines
from tests.support.tracking_server import WRITE_KEY, TrackingServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_target import Ended, ForkedTarget

SECRETS = (WRITE_KEY, base64.b64encode(f"{WRITE_KEY}:".encode()).decode())
DEBUG = {"LOGLEVEL": "DEBUG", "TARGET_SEGMENT_LOGLEVEL": "DEBUG"}


def tells_nothing(run: Ended, folder: Path) -> None:
    """No secret and no recipient in a log, a state or any other file but the dead letters."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in {"config.json", "messages"}:
            text = path.read_text(encoding="utf-8")
            for secret in SECRETS:
                assert secret not in text, path
            if path.name != "letters":
                assert "@" not in text, path
    told = f"{run.stderr}{run.states}"
    for secret in (*SECRETS, "@"):
        assert secret not in told


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 415, 429, 500, 503])
def test_whatever_the_server_says_of_it(
    target: ForkedTarget, server: TrackingServer, status: int
) -> None:
    server.fault_of = lambda: api.echo(status)
    config = server.config(dead_letter=str(target.folder / "letters"))
    run = target.run(config, run_lines(records(20)), env=DEBUG)
    assert run.status == (0 if status in {200, 400, 413} else 1)
    assert "DEBUG" in run.stderr
    tells_nothing(run, target.folder)


@pytest.mark.parametrize("fault", [api.reset, api.hang])
def test_when_the_connection_fails(
    target: ForkedTarget, server: TrackingServer, fault: Any
) -> None:
    server.fault_of = lambda: fault
    constants = IMPATIENT | {"client.TRIES": 3, "client.TIMEOUT": (1.0, 0.1)}
    run = target.run(server.config(), run_lines(records(20)), constants=constants, env=DEBUG)
    assert run.status == 1
    tells_nothing(run, target.folder)


def test_when_nobody_listens(target: ForkedTarget) -> None:
    with TrackingServer() as server:
        pass
    run = target.run(server.config(), run_lines(records(20)), env=DEBUG)
    assert run.status == 1
    tells_nothing(run, target.folder)


def test_when_a_record_is_not_of_its_schema(target: ForkedTarget, server: TrackingServer) -> None:
    record = records(1)[0] | {"campaign_id": ["a@example.com"], "email_id": {"a": "@"}}
    run = target.run(server.config(), run_lines([record]), env=DEBUG)
    assert run.status == 0, run.stderr
    assert server.accepted[record["id"]]["properties"]["campaign_id"] == ["a@example.com"]
    tells_nothing(run, target.folder)


def test_when_a_message_is_of_no_stream(target: ForkedTarget, server: TrackingServer) -> None:
    nonsense = line({"type": "BATCH", "stream": "no-such-stream", "encoding": {}, "manifest": []})
    run = target.run(server.config(), [nonsense], env=DEBUG)
    assert run.status == 1
    tells_nothing(run, target.folder)


def test_when_it_is_no_write_key(target: ForkedTarget) -> None:
    for wrong in ([WRITE_KEY], {"key": WRITE_KEY}, f"{WRITE_KEY}\n"):
        run = target.run({"write_key": wrong}, env=DEBUG)
        assert run.status == 1
        tells_nothing(run, target.folder)
