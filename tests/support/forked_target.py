"""The target in processes that are forked from one that has imported it already."""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.collector import clean_environment
from tests.support.forked_tap import RunningTap, TapForks, run_forked, serve_forks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CONSTANTS = "CONSTANTS_OF_THE_TARGET"

IMPATIENT = {
    "client.BACKOFF": 0.01,
    "client.BACKOFF_MAX": 0.05,
    "client.JITTER": 0.01,
    "client.TIMEOUT": (5.0, 4.0),
}
"""Constants with which a server's faults cost a test no time."""

Running = RunningTap
"""A run under way; its standard output are the states."""


class TargetForks(TapForks):
    """The process that forks; usable as a context manager."""

    program = ("-m", "tests.support.forked_target")


@dataclass
class Ended:
    """A run that has ended."""

    status: int
    states: list[dict[str, Any]]
    stderr: str

    @property
    def state(self) -> dict[str, Any] | None:
        """The last state, which is what the next run starts with."""
        return self.states[-1] if self.states else None

    def errors(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if "ERROR" in line]


@dataclass
class ForkedTarget:
    """The target, each run of it in a new working folder inside ``folder``."""

    forks: TargetForks
    folder: Path

    def start(
        self,
        config: dict[str, Any],
        messages: Path,
        *arguments: str,
        constants: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> Running:
        """Start a run that reads its messages from a file or a pipe with a name."""
        self.forks.runs += 1
        cwd = self.folder / f"run-{self.forks.runs}"
        cwd.mkdir()
        (cwd / "config.json").write_text(json.dumps(config), encoding="utf-8")
        command = ["--config", "config.json", "--input", str(messages), *arguments]
        environment = clean_environment() | {_CONSTANTS: json.dumps(constants or IMPATIENT)}
        return self.forks.start(cwd, command, environment | (env or {}))

    def run(
        self, config: dict[str, Any], lines: Iterable[bytes] = (), *arguments: str, **options: Any
    ) -> Ended:
        """Run the target to its end."""
        messages = self.folder / "messages"
        messages.write_bytes(b"".join(lines))
        with self.start(config, messages, *arguments, **options) as running:
            return ended(running)


def ended(running: Running) -> Ended:
    """Read a run to its end; a line that a kill has cut off is no state."""
    states = [json.loads(line) for line in running.stdout if line.endswith(b"\n")]
    return Ended(running.wait(), states, running.stderr())


if __name__ == "__main__":
    import singer_sdk.testing  # noqa: F401

    from tap_vero_segment.targets.segment import TargetSegment

    gc.freeze()
    serve_forks(socket.socket(fileno=int(sys.argv[1])), "target-segment")
    for name, value in json.loads(os.environ[_CONSTANTS]).items():
        module, _, constant = name.rpartition(".")
        module_object = importlib.import_module(f"tap_vero_segment.targets.segment.{module}")
        # A constant that is none would change nothing.
        assert hasattr(module_object, constant)
        setattr(module_object, constant, tuple(value) if isinstance(value, list) else value)
    run_forked(TargetSegment.cli)
