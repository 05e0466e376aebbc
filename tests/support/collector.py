"""A real collector in a process of its own, on a real store."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

import requests

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.forked_collector import ForkedProcess

WEBHOOK_TOKEN = "webhook-token-of-the-tests"
READ_TOKEN = "read-token-of-the-tests"
WRITE_KEY = "write-key-of-the-tests"
SEGMENT_SECRET = "segment-secret-of-the-tests"
SECRETS = {
    "VERO_COLLECTOR_WEBHOOK_TOKEN": WEBHOOK_TOKEN,
    "VERO_COLLECTOR_READ_TOKEN": READ_TOKEN,
    "VERO_COLLECTOR_WRITE_KEY": WRITE_KEY,
    "VERO_COLLECTOR_SEGMENT_SECRET": SEGMENT_SECRET,
}

_LISTENING = re.compile(r"listening on (http://[^\s\"]+)")


def clean_environment() -> dict[str, str]:
    """The environment without settings of the tap, the collector or Meltano that it may hold."""
    prefixes = ("VERO_COLLECTOR_", "TAP_VERO_SEGMENT_", "MELTANO_", "TARGET_")
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}


COLLECTOR = [
    sys.executable,
    "-c",
    "from tap_vero_segment.collector.cli import main; main(prog_name='vero-collector')",
]


def collector_command(*arguments: str) -> list[str]:
    return [*COLLECTOR, *arguments]


def _forked(
    command: list[str], cwd: Path, env: dict[str, str], outputs: tuple[int, int]
) -> ForkedProcess | None:
    """Start a command by a fork; None: it needs a Python of its own."""
    from tests.support.forked_collector import FORKS

    length = len(COLLECTOR)
    if command[:length] != COLLECTOR or not FORKS.can_be(env):
        return None
    return FORKS.launch(command[length:], cwd, env, outputs)


def run_collector(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command of ``vero-collector`` to its end."""
    command, environment = collector_command(*arguments), clean_environment() | (env or {})
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        files = (output.fileno(), errors.fileno())
        process = _forked(command, cwd, environment, files)
        process = process or subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=output, stderr=errors
        )
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.read())


class Collector:
    """``vero-collector serve`` on a free port; usable as a context manager.

    Its standard error goes to a file, so that no test has to read a pipe to keep it alive.

    Args:
        folder: Its working folder, with its store and its log.
        env: Its settings; None: all secrets.
        store_url: Another store.
        forked: Fork it from a process that has imported it; otherwise it is one from the start,
            with a command line and as little memory as in earnest.
    """

    def __init__(
        self,
        folder: Path,
        env: dict[str, str] | None = None,
        store_url: str = "",
        *,
        forked: bool = True,
    ) -> None:
        self.folder = folder
        self.store = folder / "vero-events.db"
        self.store_url = store_url or f"sqlite:///{self.store}"
        self.log_file = folder / "collector.log"
        self._env = clean_environment() | (SECRETS if env is None else env)
        self.process: ForkedProcess | subprocess.Popen[bytes] | None = None
        self._may_fork = forked
        self.url = ""
        self.port = 0

    def command(self, *arguments: str) -> list[str]:
        return collector_command(*arguments)

    def start(self) -> Self:
        offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        command = self.command("serve", "--port", str(self.port), "--store", self.store_url)
        with self.log_file.open("ab") as log:
            if self._may_fork:
                files = (log.fileno(), log.fileno())
                self.process = _forked(command, self.folder, self._env, files)
            if not self._may_fork or self.process is None:
                self.process = subprocess.Popen(
                    command, cwd=self.folder, env=self._env, stdout=log, stderr=log
                )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = _LISTENING.search(self.log()[offset:])
            if found:
                self.url = found[1]
                # Started again, it is where its clients expect it.
                self.port = int(self.url.rpartition(":")[2])
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        msg = f"the collector did not start:\n{self.log()[offset:]}"
        raise AssertionError(msg)

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def post(self, body: Any, token: str = WEBHOOK_TOKEN, **arguments: Any) -> requests.Response:
        """Post a webhook: an object as JSON, bytes as they are."""
        if isinstance(body, bytes):
            arguments["data"] = body
        else:
            arguments["json"] = body
        arguments.setdefault("timeout", 30)
        return requests.post(f"{self.url}/vero/{token}", **arguments)

    def get(self, path: str, **arguments: Any) -> requests.Response:
        arguments.setdefault("headers", {"Authorization": f"Bearer {READ_TOKEN}"})
        arguments.setdefault("timeout", 30)
        return requests.get(f"{self.url}{path}", **arguments)

    def stop(self) -> int:
        """End it with SIGTERM; return its exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition, not for luck."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
