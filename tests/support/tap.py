"""Running the tap as a process, and reading what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.collector import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TAP = [
    sys.executable,
    "-c",
    "from tap_vero_segment.tap import TapVeroSegment; TapVeroSegment.cli()",
]


@dataclass
class Messages:
    """Singer messages, sorted by kind."""

    all: list[dict[str, Any]]
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    states: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> dict[str, Any] | None:
        """The last state, which is what the next run starts with."""
        return self.states[-1] if self.states else None

    def counts(self) -> dict[str, int]:
        return {stream: len(records) for stream, records in self.records.items()}

    def ids(self, stream: str = "tracks") -> list[str]:
        return [record["id"] for record in self.records[stream]]


def read_messages(lines: Iterable[str | bytes]) -> Messages:
    messages = Messages([json.loads(line) for line in lines])
    for message in messages.all:
        if message["type"] == "SCHEMA":
            messages.schemas[message["stream"]] = message["schema"]
        elif message["type"] == "RECORD":
            messages.records[message["stream"]].append(message["record"])
        elif message["type"] == "STATE":
            messages.states.append(message["value"])
    return messages


@dataclass
class Run:
    """A run of the tap that has ended."""

    status: int
    messages: Messages
    stdout: bytes
    stderr: str


def tap_command(
    folder: Path,
    config: dict[str, Any],
    *arguments: str,
    state: dict[str, Any] | None = None,
    catalog: dict[str, Any] | None = None,
) -> list[str]:
    """Write the files that a run needs; return its command line."""
    command = [*TAP, *arguments]
    for name, content in (("config", config), ("state", state), ("catalog", catalog)):
        if content is not None:
            path = folder / f"{name}.json"
            path.write_text(json.dumps(content), encoding="utf-8")
            command += [f"--{name}", str(path)]
    return command


def run_tap(
    folder: Path,
    config: dict[str, Any],
    *arguments: str,
    state: dict[str, Any] | None = None,
    catalog: dict[str, Any] | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 120,
    forked: bool = True,
) -> Run:
    """Run the tap to its end; only a run that ended well is parsed as messages.

    Args:
        folder: Its working folder.
        config: Its settings.
        arguments: Its other arguments.
        state: The state that it goes on from.
        catalog: The catalog that it is given.
        env: More of its environment.
        timeout: The seconds that it may take.
        forked: Fork it from a process that has imported it; otherwise it is one from the start.
    """
    command = tap_command(folder, config, *arguments, state=state, catalog=catalog)
    environment = clean_environment() | (env or {})
    if forked:
        from tests.support.forked_tap import TAP_FORKS

        status, output, errors = TAP_FORKS.run(command[len(TAP) :], folder, environment, timeout)
    else:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=timeout, check=False
        )
        status, output, errors = done.returncode, done.stdout, done.stderr
    parse = status == 0 and not {"--discover", "--about", "--version"} & set(arguments)
    lines = output.splitlines() if parse else []
    return Run(status, read_messages(lines), output, errors.decode())


def discover(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the catalog that ``--discover`` prints."""
    run = run_tap(folder, config, "--discover")
    assert run.status == 0, run.stderr
    catalog: dict[str, Any] = json.loads(run.stdout)
    return catalog


def select(
    catalog: dict[str, Any], stream: str, *, column: str | None = None, selected: bool
) -> None:
    """Select or deselect a stream, or one of its columns, in a catalog."""
    wanted = [] if column is None else ["properties", column]
    for entry in catalog["streams"]:
        if entry["tap_stream_id"] == stream:
            for metadata in entry["metadata"]:
                if metadata["breadcrumb"] == wanted:
                    metadata["metadata"]["selected"] = selected
                    return
    msg = f"no {stream} {column} in the catalog"
    raise AssertionError(msg)
