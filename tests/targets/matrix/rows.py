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
    PlinxoreBucket,
    PlinxoreJsonBucket,
    PlinxoreParquetBucket,
    PostgresTables,
    SingerFiles,
    SQLite,
)
from tests.targets.matrix.feed import BOUNDED, OBJECTS, TEXT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    Changes = AbstractSet[str]

OURS = [
    sys.executable,
    "-c",
    "from tap_vero_segment.targets.duckdb import TargetVeroDuckDB; TargetVeroDuckDB.cli()",
]


USUAL_PYTHON = "3.11"


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
        appends: Whether every record is a row of its own, whatever its key.
        changes: What is known to differ from what was sent, in any phase, by variant.
        note: Whose fault it is, and which settings mend it.
    """

    name: str
    package: str
    executable: str
    destination: type[Destination]
    config: Mapping[str, Any] = {}
    requires: tuple[str, ...] = ()
    python: str = USUAL_PYTHON
    appends: bool = False
    changes: Mapping[str, Changes] = {OBJECTS: frozenset(), TEXT: frozenset()}
    note: str = ""

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


FAILS = "ends with an error"
MISSING = "rows missing"
EMPTY = "'' becomes NULL"
QUOTES = {"quotes change", "values become NULL"}
NOT_JSON = "objects become text that is not JSON"
SECONDS = "times cut to seconds"
ESCAPES = "line ends, tabs and control characters become escapes"

TARGETS = (
    Target("target-vero-duckdb", "", "", DuckDB),
    Target(
        "target-duckdb",
        "target-duckdb==0.8.0",
        "target-duckdb",
        DuckDB,
        requires=("duckdb<1.3",),
        changes={OBJECTS: {EMPTY, *QUOTES}, TEXT: {EMPTY, *QUOTES}},
        note=(
            "The target writes CSV and lets DuckDB guess its dialect: other values end the "
            "run or lose rows, so use target-vero-duckdb"
        ),
    ),
    Target(
        "target-duckdb, DuckDB 1.4",
        "target-duckdb==0.8.0",
        "target-duckdb",
        DuckDB,
        requires=("duckdb==1.4.*",),
        changes={OBJECTS: {EMPTY, MISSING}, TEXT: {EMPTY, MISSING}},
        note=(
            "DuckDB 1.3 and later take the first row for a header, so the target loses "
            "rows; use target-vero-duckdb"
        ),
    ),
    Target(
        "target-jsonl",
        "target-jsonl==0.1.4",
        "target-jsonl",
        JsonLines,
        appends=True,
    ),
    Target(
        "target-singer-jsonl",
        "target-singer-jsonl==0.1.0",
        "target-singer-jsonl",
        SingerFiles,
        appends=True,
    ),
    Target("target-s3-jsonl", "target-s3-jsonl==2.0.1", "target-s3-jsonl", Bucket, appends=True),
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
        changes={OBJECTS: {FAILS, MISSING}, TEXT: {SECONDS}},
        note=(
            "The target cannot write objects without a list of their keys, and keeps whole "
            "seconds; `objects_as_text: true` mends the former"
        ),
    ),
    Target(
        "meltanolabs-target-postgres",
        "meltanolabs-target-postgres==0.8.1",
        "target-postgres",
        PostgresTables,
        changes={
            OBJECTS: {"NULL becomes JSON null", "times in the session's time zone"},
            TEXT: {"times in the session's time zone"},
        },
        note=(
            "The target's faults; `use_copy: true` of the target and `objects_as_text: "
            "true` of the tap mend them"
        ),
    ),
    Target(
        "meltanolabs-target-postgres, use_copy",
        "meltanolabs-target-postgres==0.8.1",
        "target-postgres",
        PostgresTables,
        {"use_copy": True},
        changes={OBJECTS: {"NULL becomes JSON null"}, TEXT: set()},
        note=(
            "The target writes the JSON value `null` where there is no object; "
            "`objects_as_text: true` mends it"
        ),
    ),
    Target(
        "pipelinewise-target-postgres",
        "pipelinewise-target-postgres==2.1.2",
        "target-postgres",
        PipelinewisePostgres,
        changes={OBJECTS: {EMPTY, ESCAPES}, TEXT: {EMPTY, ESCAPES}},
        note="The target writes CSV and changes these texts in it; no setting mends it",
    ),
    Target(
        "meltanolabs-target-csv",
        "meltanolabs-target-csv==0.5.0",
        "target-csv",
        Csv,
        appends=True,
        changes={OBJECTS: {MISSING, NOT_JSON, EMPTY}, TEXT: {MISSING, EMPTY}},
        note=(
            "Every run empties the target's files; its setting `file_naming_scheme: "
            '"{stream_name}-{timestamp}.csv"` mends it'
        ),
    ),
    Target(
        "meltanolabs-target-csv, file_naming_scheme",
        "meltanolabs-target-csv==0.5.0",
        "target-csv",
        Csv,
        {"file_naming_scheme": "{stream_name}-{timestamp}.csv"},
        appends=True,
        changes={
            OBJECTS: {NOT_JSON, EMPTY},
            TEXT: {EMPTY},
        },
        note="CSV does not tell `''` from NULL; `objects_as_text: true` mends the rest",
    ),
    Target(
        "pipelinewise-target-s3-csv",
        "pipelinewise-target-s3-csv==2.0.0",
        "target-s3-csv",
        CsvBucket,
        appends=True,
        changes={OBJECTS: {FAILS, MISSING}, TEXT: {EMPTY}},
        note=(
            "The target makes a column of each key of an object, under the header of the "
            "first record; `objects_as_text: true` mends it. CSV does not tell `''` from "
            "NULL"
        ),
    ),
    Target(
        "thk-target-mysql",
        "thk-target-mysql==0.1.3",
        "target-mysql",
        MariaDBTables,
        requires=("setuptools<81",),
        changes={
            OBJECTS: {FAILS, MISSING},
            TEXT: {FAILS, MISSING},
            BOUNDED: {SECONDS},
        },
        note=(
            "A key needs a bound in MySQL, and the target gives every text without one "
            "1,000 characters; `objects_as_text: true` with a `maxLength` for each column "
            "of text, by `schema` of Meltano's extractors, mends that. The target keeps "
            "whole seconds"
        ),
    ),
    Target(
        "target-sqlite",
        "target-sqlite==0.2.0",
        "target-sqlite",
        SQLite,
        python="3.9",
        note="Needs Python 3.9",
    ),
)
BY_NAME = {target.name: target for target in TARGETS}
