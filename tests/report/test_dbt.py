"""The dbt package, built as its page says, beside the SQL of the pages."""

from __future__ import annotations

import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.report import funnel
from tests.report.test_recipients import everything
from tests.support import docs
from tests.support.collector import clean_environment
from tests.support.funnel import DuckDB, generated, load
from tests.support.repository import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

(BUILD,) = docs.blocks("reports/dbt.md", "sh")
(STATE, *_) = docs.blocks("reports/recipients.md", "sql")
(MARKED, _) = docs.blocks("reports/machine-opens.md", "sql")


def build(folder: Path, *more: str) -> str:
    """Run the page's command in a folder with the package and a warehouse; return its output."""
    shutil.copytree(
        REPOSITORY / "dbt",
        folder / "dbt",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("target", "logs"),
    )
    done = subprocess.run(
        ["bash", "-c", f'{BUILD.strip()} --no-use-colors "$@"', "dbt", *more],
        cwd=folder,
        env=clean_environment() | {"DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN=0 ERROR=0 SKIP=0" in done.stdout
    assert "eprecat" not in done.stdout
    return done.stdout


def rows(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(found, key=str)


def test_the_package_finds_what_the_pages_sql_does(tmp_path: Path) -> None:
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    records = [*generated(400), *everything(random.Random(1))]
    load(warehouse, records)
    load(warehouse, [each | {"loaded_at": "2027-01-01T00:00:00Z"} for each in records[::3]])

    build(tmp_path)

    kept = warehouse.run("SELECT id, loaded_at FROM vero_models.vero_events")
    assert len(kept) == len({number for number, _ in kept}) == len(records)
    assert sum(loaded_at.year == 2027 for _, loaded_at in kept) == len(records[::3])
    found = warehouse.run("SELECT * FROM vero_models.vero_campaign_funnel")
    assert rows(found) == rows(warehouse.run(funnel.SQL))
    warehouse.run(STATE)
    states = "SELECT * FROM {}.{}subscription_state"
    assert rows(warehouse.run(states.format("vero_models", "vero_"))) == rows(
        warehouse.run(states.format("vero", ""))
    )
    warehouse.run(MARKED)
    marked = "SELECT DISTINCT id, machine_open, image_proxy FROM {}"
    by_package = rows(warehouse.run(marked.format("vero_models.vero_opens")))
    assert by_package == rows(warehouse.run(marked.format("vero.email_opened_marked")))
    assert any(machine for _, machine, _ in by_package)


def test_the_variables_and_what_was_not_loaded(tmp_path: Path) -> None:
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    streams = {"email_sent", "email_delivered", "email_opened"}
    records = [each for each in generated(300) if each["event"] in streams]
    load(warehouse, records, schema="other", without=frozenset({"email_subject", "user_id"}))

    build(
        tmp_path,
        "--vars",
        "{vero_schema: other, vero_machine_opens: false, vero_machine_open_seconds: 86400,"
        " vero_channel: ' ALL '}",
    )

    ((sent, delivered, opened, clicked),) = warehouse.run(
        "SELECT SUM(sent), SUM(delivered), SUM(opened), SUM(clicked)"
        " FROM vero_models.vero_campaign_funnel WHERE week IS NULL"
    )
    machines = dict(
        warehouse.run("SELECT machine_open, COUNT(*) FROM vero_models.vero_opens GROUP BY 1")
    )
    assert machines.keys() == {None, "soon"}
    assert (opened, clicked) == (machines[None], 0)
    assert sent + delivered + opened + machines["soon"] == len(records)
    assert warehouse.run("SELECT DISTINCT state FROM vero_models.vero_subscription_state") == [
        ("subscribed",)
    ]
