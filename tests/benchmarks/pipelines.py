"""Cases with programs of others: targets, dlt, Segment's client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.data import write_archive
from tests.benchmarks.harness import Case, Sample, python, run_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.cases import Bench

ROOT = Path(__file__).parents[2]
DLT = ("--with", "dlt[duckdb,filesystem]==1.31.0", "--with", "duckdb")
TARGET_POSTGRES = "meltanolabs-target-postgres==0.8.1"

OUR_DUCKDB = [
    sys.executable,
    "-c",
    "from tap_vero_segment.targets.duckdb import TargetVeroDuckDB; TargetVeroDuckDB.cli()",
]
TARGET_DUCKDB = ["uvx", "--with", "duckdb<1.3", "--from", "target-duckdb==0.8.0", "target-duckdb"]

names = count()


def pipeline_cases(bench: Bench) -> Iterator[Case]:
    """Yield the cases that run a pipeline to its end."""
    number = bench.number(150_000)

    def ours() -> Sample:
        return meltano_to_duckdb(bench, number)

    def by_files() -> Sample:
        return meltano_to_duckdb(bench, number, batch=True)

    def theirs() -> Sample:
        return dlt_to_duckdb(bench, number)

    yield Case(
        "duckdb",
        "archive to DuckDB by meltano run, eight tables",
        "dlt, one table",
        5,
        ours,
        theirs,
    )
    yield Case(
        "duckdb-batch",
        "the same with batch files",
        "dlt, one table",
        8,
        by_files,
        theirs,
    )
    yield Case(
        "duckdb-memory",
        "archive to DuckDB by meltano run, its largest process",
        "dlt",
        0.1,
        ours,
        theirs,
        figure=lambda sample: sample.peak_bytes,
        at_most=True,
    )
    records = bench.number(150_000)
    yield Case(
        "duckdb-loader",
        "records of eight streams from a file into DuckDB",
        "target-duckdb 0.8.0",
        5,
        lambda: load_duckdb(bench, messages_of(bench, records), OUR_DUCKDB),
        lambda: load_duckdb(bench, messages_of(bench, records), TARGET_DUCKDB),
    )
    yield Case(
        "duckdb-many",
        "ten times the records into the same DuckDB file",
        "a tenth of them",
        0.7,
        lambda: load_duckdb(bench, messages_of(bench, 10 * records), OUR_DUCKDB),
        lambda: load_duckdb(bench, messages_of(bench, records), OUR_DUCKDB),
    )
    some = bench.number(50_000)
    yield Case(
        "batch",
        "archive to PostgreSQL with BATCH",
        "RECORD messages",
        4,
        lambda: to_postgres(bench, some, batch=True),
        lambda: to_postgres(bench, some, batch=False),
    )
    yield Case(
        "target-segment",
        "target-segment to a server that answers at once",
        "segment-analytics-python",
        1,
        lambda: deliver(bench, some, partial(_target_segment, bench)),
        lambda: deliver(bench, some, _segment_client),
    )


def meltano_to_duckdb(bench: Bench, number: int, *, batch: bool = False) -> Sample:
    """Load an archive as a reader would, in a Meltano project that is kept for later runs."""
    project = bench.folder / "meltano"
    if not project.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
    warehouse = project / "warehouse.duckdb"
    warehouse.unlink(missing_ok=True)
    env = {
        "TAP_VERO_SEGMENT_SOURCE": f"file://{write_archive(bench.folder, number)}",
        "PYTHONPATH": "",
        "VIRTUAL_ENV": "",
    }
    files = bench.scratch()
    if batch:
        batch_config = {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": f"file://{files}"},
        }
        env["TAP_VERO_SEGMENT_BATCH_CONFIG"] = json.dumps(batch_config)
    command = ["uvx", "meltano", "run", "--full-refresh", "tap-vero-segment", "target-duckdb"]
    sample = run_process(command, number, folder=project, env=env)
    shutil.rmtree(files)
    return sample


def dlt_to_duckdb(bench: Bench, number: int) -> Sample:
    """Load an archive by dlt."""
    folder = bench.scratch()
    archive = write_archive(bench.folder, number)
    script = ROOT / "tests" / "benchmarks" / "yardsticks" / "dlt_load.py"
    command = ["uvx", *DLT, "python", str(script), str(archive), str(folder / "dlt.duckdb")]
    env = {"DLT_DATA_DIR": str(folder), "RUNTIME__DLTHUB_TELEMETRY": "false", "PYTHONPATH": ""}
    sample = run_process(command, number, folder=folder, env=env)
    shutil.rmtree(folder)
    return sample


def to_postgres(bench: Bench, number: int, *, batch: bool) -> Sample:
    """Load an archive into a fresh database, through a pipe as Meltano would."""
    folder = bench.scratch()
    config: dict[str, Any] = {"source": f"file://{write_archive(bench.folder, number)}"}
    if batch:
        config["batch_config"] = {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": f"file://{folder}"},
        }
    url = bench.postgres.create(f"warehouse-{next(names)}")
    target = {"sqlalchemy_url": url.replace("postgresql:", "postgresql+psycopg:")}
    (folder / "tap.json").write_text(json.dumps(config))
    (folder / "target.json").write_text(json.dumps(target))
    tap = python("-c", "from tap_vero_segment.tap import TapVeroSegment; TapVeroSegment.cli()")
    command = f"""
        {" ".join(map(_quoted, [*tap, "--config", "tap.json"]))} |
        uvx --from {TARGET_POSTGRES} target-postgres --config target.json
    """
    sample = run_process(
        ["bash", "-c", f"set -o pipefail; {command.strip()}"], number, folder=folder
    )
    shutil.rmtree(folder)
    return sample


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)


def deliver(bench: Bench, number: int, command_of: Any) -> Sample:
    """Send an archive's events to a server that answers at once."""
    with _server() as url, messages_of(bench, number).open("rb") as file:
        return run_process(command_of(url), number, folder=bench.scratch(), stdin=file.fileno())


def load_duckdb(bench: Bench, messages: Path, command: list[str]) -> Sample:
    """Load messages from a file into a fresh DuckDB file."""
    folder = bench.scratch()
    config = {"filepath": str(folder / "warehouse.duckdb"), "default_target_schema": "vero"}
    (folder / "config.json").write_text(json.dumps(config))
    number = int(messages.stem.rpartition("-")[2])
    with messages.open("rb") as file:
        arguments = [*command, "--config", "config.json"]
        sample = run_process(arguments, number, folder=folder, stdin=file.fileno())
    shutil.rmtree(folder)
    return sample


def messages_of(bench: Bench, number: int) -> Path:
    """Return a file of the messages that the tap writes of an archive of so many events."""
    messages = bench.folder / f"messages-{number}.ndjson"
    if not messages.exists():
        config = bench.scratch() / "config.json"
        config.write_text(json.dumps({"source": f"file://{write_archive(bench.folder, number)}"}))
        tap = python("-c", "from tap_vero_segment.tap import TapVeroSegment; TapVeroSegment.cli()")
        unfinished = messages.with_suffix(".unfinished")
        with unfinished.open("wb") as file:
            command = [*tap, "--config", str(config)]
            subprocess.run(command, stdout=file, stderr=subprocess.DEVNULL, check=True)
        unfinished.rename(messages)
    return messages


def _segment_client(url: str) -> list[str]:
    return python(str(ROOT / "tests" / "benchmarks" / "yardsticks" / "segment_client.py"), url)


def _target_segment(bench: Bench, url: str) -> list[str]:
    config = bench.scratch() / "target.json"
    config.write_text(json.dumps({"write_key": "key", "endpoint": url}))
    code = "from tap_vero_segment.targets.segment import TargetSegment; TargetSegment.cli()"
    return python("-c", code, "--config", str(config))


@contextmanager
def _server() -> Iterator[str]:
    command = python("-m", "tests.benchmarks.yardsticks.answers_at_once")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()
