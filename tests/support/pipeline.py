"""The tap and the target joined by a pipe, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.support.collector import clean_environment
from tests.support.streams import ALL_STREAMS, catalog_of
from tests.support.tap import run_tap, tap_command

if TYPE_CHECKING:
    from pathlib import Path

TARGET = [
    sys.executable,
    "-c",
    "from tap_vero_segment.targets.segment import TargetSegment; TargetSegment.cli()",
]

NOT_SENT = {"received_at", "loaded_at", "sent_at"}


def run_pipeline(
    folder: Path,
    tap_config: dict[str, Any],
    target_config: dict[str, Any],
    state: dict[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], str]:
    """Run the tap into the target; return the states that the target wrote, and its log."""
    config = folder / "target.json"
    config.write_text(json.dumps(target_config))
    catalog = catalog_of(*ALL_STREAMS)
    with subprocess.Popen(
        tap_command(folder, tap_config, catalog=catalog, state=state),
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as tap:
        done = subprocess.run(
            [*TARGET, "--config", str(config)],
            env=clean_environment(),
            stdin=tap.stdout,
            capture_output=True,
            timeout=120,
            check=False,
        )
    assert tap.returncode == 0
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def records_of_tap(folder: Path, config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    run = run_tap(folder, config, catalog=catalog_of(*ALL_STREAMS))
    assert run.status == 0, run.stderr
    return {
        record["id"]: record
        for stream, of_stream in run.messages.records.items()
        if stream != "tracks"
        for record in of_stream
    }


def same(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in NOT_SENT}
