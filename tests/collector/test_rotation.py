from __future__ import annotations

import asyncio
import hmac
import json
import os
import signal
import subprocess
import time
from itertools import count
from pathlib import Path

import pytest
import requests

from tap_vero_segment.collector.request import is_one_of
from tap_vero_segment.collector.settings import SHORT_SECRET, Environment, Secrets, variable
from tap_vero_segment.errors import UserError
from tests.support import load as loads
from tests.support.collector import (
    SECRETS,
    Collector,
    clean_environment,
    collector_command,
    run_collector,
)
from tests.support.payloads import documented

NAMES = ("WEBHOOK_TOKEN", "READ_TOKEN", "WRITE_KEY", "SEGMENT_SECRET")


def secrets_of(generation: int) -> dict[str, str]:
    return {name: f"{name.lower()}-of-generation-{generation}" for name in NAMES}


def write_env(folder: Path, now: dict[str, str], before: dict[str, str] | None = None) -> None:
    """Write .env at once, as a careful administrator would."""
    lines = [f"{variable(name)}={value}" for name, value in now.items()]
    lines += [f"{variable(name)}_PREVIOUS={value}" for name, value in (before or {}).items()]
    new = folder / ".env.new"
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    new.rename(folder / ".env")


def reload(collector: Collector, says: str = "secrets were read again") -> None:
    """Send SIGHUP, and wait until the log says so."""
    before = collector.log().count(says)
    collector.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while collector.log().count(says) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def opened(collector: Collector, secrets: dict[str, str]) -> list[bool]:
    """Return which doors the secrets open, in the order of their names."""
    body = json.dumps(CALL).encode()
    signed = hmac.new(secrets["SEGMENT_SECRET"].encode(), body, "sha1").hexdigest()
    answers = [
        collector.post(documented(), token=secrets["WEBHOOK_TOKEN"]),
        collector.get("/v1/events", headers={"Authorization": f"Bearer {secrets['READ_TOKEN']}"}),
        requests.post(
            f"{collector.url}/v1/track", body, auth=(secrets["WRITE_KEY"], ""), timeout=30
        ),
        requests.post(
            f"{collector.url}/segment", body, headers={"X-Signature": signed}, timeout=30
        ),
    ]
    assert {answer.status_code for answer in answers} <= {200, 401, 404}
    return [answer.status_code == 200 for answer in answers]


CALL = {"type": "track", "event": "Email Sent", "messageId": "1", "userId": "1"}
ALL = [True] * 4
NONE = [False] * 4


def test_secrets_are_rotated_without_a_restart(tmp_path):
    first, second = secrets_of(1), secrets_of(2)
    write_env(tmp_path, first)
    with Collector(tmp_path, env={}, forked=False) as collector:
        assert (opened(collector, first), opened(collector, second)) == (ALL, NONE)

        write_env(tmp_path, second, first)
        reload(collector)
        assert (opened(collector, first), opened(collector, second)) == (ALL, ALL)

        write_env(tmp_path, second)
        reload(collector)
        assert (opened(collector, first), opened(collector, second)) == (NONE, ALL)

        log = collector.log()
        arguments = Path(f"/proc/{collector.process.pid}/cmdline")
        if arguments.exists():
            log += arguments.read_text()
    for secret in (*first.values(), *second.values()):
        assert secret not in log
    assert f"changed: {', '.join(map(variable, NAMES))}" in log


def test_two_secrets_are_valid_from_the_start_on(tmp_path):
    first, second, third = map(secrets_of, (1, 2, 3))
    write_env(tmp_path, second, first)
    with Collector(tmp_path, env={}) as collector:
        assert opened(collector, first) == opened(collector, second) == ALL
        assert opened(collector, third) == NONE


def test_no_request_is_lost_to_a_rotation(tmp_path, monkeypatch):
    first, second = secrets_of(1), secrets_of(2)
    monkeypatch.setattr(loads, "WEBHOOK_TOKEN", first["WEBHOOK_TOKEN"])
    write_env(tmp_path, first)
    with Collector(tmp_path, env={}) as collector:
        payloads = (documented() | {"user": {"id": number}} for number in count())
        limited = (payload for payload, _ in zip(payloads, range(2_000), strict=False))
        load = loads.Load(collector.url, limited)

        async def rotate() -> None:
            running = asyncio.create_task(load.run(connections=16))
            for step in range(1, 6):
                await load.until_acknowledged(step * 200)
                write_env(tmp_path, second, first)
                collector.process.send_signal(signal.SIGHUP)
            await running

        asyncio.run(rotate())

    assert len(load.acknowledged) == 2_000
    assert load.refused == load.unanswered == []
    assert "secrets were read again" in collector.log()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"\xff\xfe\n",
        b'VERO_COLLECTOR_WEBHOOK_TOKEN="half of it\n',
        b"# nothing\n",
        b"VERO_COLLECTOR_WEBHOOK_TOKEN=\"'half of it'\"\n",
    ],
    ids=["gone", "empty", "no text", "half written", "none", "quoted twice"],
)
def test_a_bad_file_changes_nothing(tmp_path, content):
    first = secrets_of(1)
    write_env(tmp_path, first)
    with Collector(tmp_path, env={}) as collector:
        if content is None:
            (tmp_path / ".env").unlink()
        else:
            (tmp_path / ".env").write_bytes(content)
        reload(collector, "secrets stay as they were")

        assert opened(collector, first) == ALL
        assert "half of it" not in collector.log()


def make_folder(path: Path) -> None:
    path.mkdir()


def make_forbidden(path: Path) -> None:
    path.write_text("A=1\n", encoding="utf-8")
    path.chmod(0)


# Root may read all: setpriv takes away what lets it.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [(make_folder, "Is a directory"), (make_forbidden, "Permission denied")],
)
def test_a_file_that_cannot_be_opened_is_told_with_the_reason(tmp_path, make, reason):
    make(tmp_path / ".env")
    command = [*(UNPRIVILEGED if os.geteuid() == 0 else []), *collector_command("serve")]

    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=clean_environment() | SECRETS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == f"vero-collector: .env cannot be read: {reason}\n"


def test_a_folder_in_place_of_the_file_is_told_at_a_reload(tmp_path):
    write_env(tmp_path, secrets_of(1))
    with Collector(tmp_path, env={}) as collector:
        (tmp_path / ".env").unlink()
        (tmp_path / ".env").mkdir()
        reload(collector, "secrets stay as they were: .env cannot be read: Is a directory")

        assert opened(collector, secrets_of(1)) == ALL


def test_a_variable_that_nothing_reads_is_named_at_a_reload_too(tmp_path):
    write_env(tmp_path, secrets_of(1))
    with Collector(tmp_path, env={}) as collector:
        write_env(tmp_path, secrets_of(1) | {"READ_TOKN": "new"})
        reload(collector)

        assert "VERO_COLLECTOR_READ_TOKN is set, and no setting" in collector.log()


def test_the_environment_wins_over_the_file_at_a_reload_too(tmp_path):
    first, second = secrets_of(1), secrets_of(2)
    write_env(tmp_path, first)
    given = {variable("READ_TOKEN"): "from-the-environment"}
    with Collector(tmp_path, env=given) as collector:
        write_env(tmp_path, second)
        reload(collector)

        assert opened(collector, second) == [True, False, True, True]
        assert opened(collector, second | {"READ_TOKEN": "from-the-environment"}) == ALL


def test_an_older_secret_alone_opens_nothing():
    environment = {variable("READ_TOKEN"): "new", variable("WRITE_KEY_PREVIOUS"): "old"}

    assert Secrets.from_environment(environment) == Secrets(read_token=("new",))
    with pytest.raises(UserError):
        Secrets.from_environment({variable("WRITE_KEY_PREVIOUS"): "old"})


def test_a_file_that_comes_later_is_read(tmp_path):
    environment = Environment(tmp_path / ".env", {"A": "given"})
    assert environment.read() == {"A": "given"}
    (tmp_path / ".env").write_text("A=1\nB=2\nC\n", encoding="utf-8")

    assert environment.read() == {"A": "given", "B": "2", "C": ""}


@pytest.mark.parametrize(
    ("given", "same"), [(b"new", True), (b"old", True), (b"", False), (b"newold", False)]
)
def test_both_are_compared_whichever_fits(monkeypatch, given, same):
    compared = []
    real = hmac.compare_digest

    def compare_digest(one, other):
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)

    assert is_one_of(given, ("new", "old")) is same
    assert compared == [b"new", b"old"]


def test_short_secrets_and_passwords_among_the_arguments_are_warned_of(tmp_path):
    short = {
        variable("READ_TOKEN"): "x" * SHORT_SECRET,
        variable("WRITE_KEY"): "short-key",
        variable("WRITE_KEY_PREVIOUS"): "z" * (SHORT_SECRET - 1),
    }
    with Collector(tmp_path, env=short) as collector:
        log = collector.log()
    assert "READ_TOKEN" not in log
    assert f"{variable('WRITE_KEY')} is so short" in log
    assert f"{variable('WRITE_KEY_PREVIOUS')} is so short" in log
    assert not any(secret in log for secret in short.values())


def test_a_password_among_the_arguments_is_warned_of(tmp_path):
    url = "unknown://someone:hidden-password@example.com/vero"
    told = run_collector("serve", "--store", url, cwd=tmp_path, env=SECRETS)
    kept = run_collector("serve", cwd=tmp_path, env=SECRETS | {variable("STORE"): url})

    assert "--store holds a password" in told.stderr
    assert "--store holds a password" not in kept.stderr
    for done in (told, kept):
        assert done.returncode == 1
        assert "hidden-password" not in done.stderr
