"""A Dask cluster on this machine: a scheduler and workers, each a process, over TCP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.support.collector import clean_environment

if TYPE_CHECKING:
    from pathlib import Path


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
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = clean_environment() | {"DASK_DISTRIBUTED__DASHBOARD__LINK": ""}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{program}", *arguments],
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def add_worker(self) -> subprocess.Popen[bytes]:
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
