"""A Dask cluster on this machine: a scheduler and workers, each a process, over TCP.

They are forked from one that has imported Dask, which takes longer than all else.
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.support.collector import clean_environment
from tests.support.forked_tap import ForkedProcess, TapForks, run_forked, serve_forks

if TYPE_CHECKING:
    from pathlib import Path


class _Forks(TapForks):
    program = ("-m", "tests.support.dask")


class Dask:
    """A scheduler on a free port; usable as a context manager.

    Attributes:
        workers: The processes of the workers.
    """

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.log = folder / "dask.log"
        self._file = folder / "scheduler.json"
        self._folder = folder
        self._wanted = workers
        self.workers: list[ForkedProcess] = []
        self._forks = _Forks()

    def _start(self, program: str, *arguments: str) -> ForkedProcess:
        environment = clean_environment() | {"DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
        with self.log.open("ab") as log:
            outputs = (log.fileno(), log.fileno())
            command = [program, *arguments]
            return ForkedProcess(*self._forks.fork(self._folder, command, environment, outputs))

    def add_worker(self) -> ForkedProcess:
        """Start a worker; it can take a moment until it takes tasks."""
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        worker = self._start("dask_worker", self.address, *options)
        self.workers.append(worker)
        return worker

    def __enter__(self) -> Self:
        self.scheduler = self._start(
            "dask_scheduler",
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(self._file)),
        )
        self._wait_for("Registered to", 0)
        for _ in range(self._wanted):
            self.add_worker()
        self._wait_for("Registered to", self._wanted)
        return self

    def _wait_for(self, text: str, times: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.scheduler.poll() is None:
            with suppress(OSError, ValueError):
                self.address = json.loads(self._file.read_text())["address"]
                if self.log.read_text().count(text) >= times:
                    return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def __exit__(self, *error: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait(timeout=30)
        self._forks.stop()


if __name__ == "__main__":
    programs = {
        name: importlib.import_module(f"distributed.cli.{name}").main
        for name in ("dask_scheduler", "dask_worker")
    }
    serve_forks(socket.socket(fileno=int(sys.argv[1])), "dask")
    run_forked(programs[sys.argv.pop(1)])
