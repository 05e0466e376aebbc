"""The targets of the matrix, a row each, and what is known of each of them.

A new target is a new row here, and a new destination where no other target loads to such a place.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.collector import clean_environment
from tests.targets.matrix.destinations import (
    Bucket,
    Csv,
    CsvBucket,
    Destination,
    DuckDB,
    JsonLines,
    MariaDBTables,
    PipelinewisePostgres,
    PlinxoreJsonBucket,
    PlinxoreBucket,
    PlinxoreParquetBucket,
    PostgresTables,
    SingerFiles,
    SQLite,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS = [
    sys.executable,
    "-c",
    "from tap_vero_segment.targets.duckdb import TargetVeroDuckDB; TargetVeroDuckDB.cli()",
]


class Target(NamedTuple):
    """A target, with settings of its own.

    Attributes:
        name: What to choose it by.
        package: Its package on PyPI, with the version; empty: this project.
        executable: Its command.
        destination: The place that it loads to.
        config: Its other settings.
        requires: What else its environment needs.
        python: The Python of its environment.
        appends: Whether every record is a row of its own: a key is not heeded.
    """

    name: str
    package: str
    executable: str
    destination: type[Destination]
    config: Mapping[str, Any] = {}
    requires: tuple[str, ...] = ()
    python: str = "3.11"
    appends: bool = False

    def install(self) -> list[str]:
        """Install it in an environment of its own; return the command that runs it.

        Raises:
            Unavailable: It cannot be installed here.
        """
        if not self.package:
            return OURS
        folder = _environment(self.package, self.requires, self.python)
        return [f"{folder}/bin/{self.executable}"]


class Unavailable(Exception):  # noqa: N818  # of a machine, not of the code
    """A target cannot be tried here."""


@cache
def _environment(package: str, requires: tuple[str, ...], python: str) -> str:
    """Return the folder of an environment; run by uvx, each run would resolve it again."""
    options = [option for each in requires for option in ("--with", each)]
    uvx = ["uvx", "--quiet", "--python", python, *options, "--from", package]
    done = subprocess.run(
        [*uvx, "python", "-c", "import sys; print(sys.prefix)"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        msg = f"{package} cannot be installed with Python {python}"
        raise Unavailable(msg)
    return done.stdout.strip()


SLOW_CSV = {"file_naming_scheme": "{stream_name}-{timestamp}.csv"}

TARGETS = (
    Target("target-vero-duckdb", "", "", DuckDB),
    Target(
        "target-duckdb",
        "target-duckdb==0.8.0",
        "target-duckdb",
        DuckDB,
        requires=("duckdb<1.3",),
    ),
    Target(
        "target-duckdb with DuckDB 1.4",
        "target-duckdb==0.8.0",
        "target-duckdb",
        DuckDB,
        requires=("duckdb==1.4.*",),
    ),
    Target("target-jsonl", "target-jsonl==0.1.4", "target-jsonl", JsonLines, appends=True),
    Target(
        "target-singer-jsonl",
        "target-singer-jsonl==0.1.0",
        "target-singer-jsonl",
        SingerFiles,
        appends=True,
    ),
    Target(
        "target-s3-jsonl", "target-s3-jsonl==2.0.1", "target-s3-jsonl", Bucket, appends=True
    ),
    Target(
        "plinxore-target-s3, jsonl",
        "plinxore-target-s3==0.1.7",
        "target-s3",
        PlinxoreBucket,
        {"format": {"format_type": "jsonl"}},
        appends=True,
    ),
    Target(
        "plinxore-target-s3, json",
        "plinxore-target-s3==0.1.7",
        "target-s3",
        PlinxoreJsonBucket,
        {"format": {"format_type": "json"}},
        appends=True,
    ),
    Target(
        "plinxore-target-s3, parquet",
        "plinxore-target-s3==0.1.7",
        "target-s3",
        PlinxoreParquetBucket,
        {"format": {"format_type": "parquet"}},
        appends=True,
    ),
    Target(
        "meltanolabs-target-postgres",
        "meltanolabs-target-postgres==0.8.1",
        "target-postgres",
        PostgresTables,
    ),
    Target(
        "meltanolabs-target-postgres, use_copy",
        "meltanolabs-target-postgres==0.8.1",
        "target-postgres",
        PostgresTables,
        {"use_copy": True},
    ),
    Target(
        "pipelinewise-target-postgres",
        "pipelinewise-target-postgres==2.1.2",
        "target-postgres",
        PipelinewisePostgres,
    ),
    Target(
        "meltanolabs-target-csv",
        "meltanolabs-target-csv==0.5.0",
        "target-csv",
        Csv,
        appends=True,
    ),
    Target(
        "meltanolabs-target-csv, file_naming_scheme",
        "meltanolabs-target-csv==0.5.0",
        "target-csv",
        Csv,
        SLOW_CSV,
        appends=True,
    ),
    Target(
        "pipelinewise-target-s3-csv",
        "pipelinewise-target-s3-csv==2.0.0",
        "target-s3-csv",
        CsvBucket,
        appends=True,
    ),
    Target(
        "thk-target-mysql",
        "thk-target-mysql==0.1.3",
        "target-mysql",
        MariaDBTables,
        requires=("setuptools<81",),
    ),
    Target("target-sqlite", "target-sqlite==0.2.0", "target-sqlite", SQLite, python="3.9"),
)
BY_NAME = {target.name: target for target in TARGETS}
