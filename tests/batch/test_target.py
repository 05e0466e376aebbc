"""A target that reads BATCH messages: rows in its database are those of RECORD messages."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from tests.support.batches import batches_to
from tests.support.collector import clean_environment
from tests.support.odd import odd
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.repository import REPOSITORY
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.streams import ALL_STREAMS, catalog_of
from tests.support.tap import select, tap_command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import Postgres

pytestmark = pytest.mark.slow

TARGET = "meltanolabs-target-postgres==0.8.1"


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target in an environment of its own."""
    folder = tmp_path_factory.mktemp("target-postgres") / "venv"
    for command in (
        ["venv", "-p", sys.executable, str(folder)],
        ["pip", "install", "-p", str(folder), TARGET],
    ):
        subprocess.run(["uv", *command], check=True, capture_output=True, timeout=300)
    return folder / "bin" / "target-postgres"


def load(
    target: Path, folder: Path, config: dict[str, Any], database: str, **settings: Any
) -> dict[str, list[dict[str, Any]]]:
    """Run tap and target; return the rows of each table, without the target's own columns."""
    folder.mkdir()
    catalog = catalog_of(*ALL_STREAMS)
    select(catalog, "email_sent", column="context_traits_email", selected=False)
    tap = subprocess.run(
        tap_command(folder, config, catalog=catalog),
        env=clean_environment(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert (b'"BATCH"' in tap.stdout) is ("batch_config" in config)
    target_config = folder / "target.json"
    url = database.replace("postgresql:", "postgresql+psycopg:")
    own = {"sqlalchemy_url": url, "default_target_schema": "vero"} | settings
    target_config.write_text(json.dumps(own))
    done = subprocess.run(
        [target, "--config", target_config],
        input=tap.stdout,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    rows = {}
    with psycopg.connect(database) as connection:
        for stream in ALL_STREAMS:
            query = f'SELECT to_jsonb(t) FROM vero."{stream}" t ORDER BY id'
            rows[stream] = [
                {name: value for name, value in row.items() if not name.startswith("_sdc_")}
                for (row,) in connection.execute(query.encode())
            ]
    return rows


def test_rows_in_postgresql_are_those_of_records(
    target: Path, postgres: Postgres, tmp_path: Path
) -> None:
    every_type = [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES]
    fill(tmp_path / "store.db", every_type + odd() + many(250))
    config = {"source": url_of(tmp_path / "store.db")}
    of_records = load(target, tmp_path / "1", config, postgres.create("of-records"))
    batches = batches_to(tmp_path / "files", 200)
    database = postgres.create("of-batches")
    of_batches = load(target, tmp_path / "2", config | batches, database, **declared())
    assert of_batches == of_records
    assert len(of_batches["tracks"]) > 250
    assert "context_traits_email" not in of_batches["email_sent"][0]


def declared() -> dict[str, Any]:
    """The loader's config in meltano.yml."""
    plugins = yaml.safe_load((REPOSITORY / "meltano.yml").read_text(encoding="utf-8"))["plugins"]
    (loader,) = (each for each in plugins["loaders"] if each["name"] == "target-postgres")
    assert loader["pip_url"] == TARGET
    config: dict[str, Any] = loader["config"]
    return config


@pytest.mark.parametrize("batch", [False, True], ids=["records", "batches"])
def test_times_are_utc_whatever_the_databases_time_zone(
    target: Path, postgres: Postgres, tmp_path: Path, *, batch: bool
) -> None:
    """In the night in which Berlin has the hour from 2 to 3 twice, and in the one without it."""
    moments = [
        datetime(*day, hour, 30, tzinfo=UTC)
        for day in ((2026, 3, 29), (2026, 7, 1), (2026, 10, 25))
        for hour in (0, 1, 2)
    ]
    opened = documented("opened")
    fill(tmp_path / "store.db", [opened | {"opened_at": int(at.timestamp())} for at in moments])
    config = {"source": url_of(tmp_path / "store.db")}
    config |= batches_to(tmp_path / "files", 200) if batch else {}
    database = postgres.create(f"berlin-{batch}")
    with postgres.connect() as connection:
        query = f"ALTER DATABASE \"berlin-{batch}\" SET timezone TO 'Europe/Berlin'"
        connection.execute(query.encode())
    rows = load(target, tmp_path / "run", config, database, **declared())
    for stream in ("email_opened", "tracks"):
        times = [row["timestamp"] for row in rows[stream]]
        assert sorted(times) == [at.strftime("%Y-%m-%dT%H:%M:%S") for at in moments]
