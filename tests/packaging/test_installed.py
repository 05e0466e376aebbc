"""The wheel in an environment that has nothing else: none of the tests' packages.

In the suite with the Python that runs it; with others by
``VERO_TESTS_PYTHONS="3.12 3.13 3.14"`` or by their paths, as far as they are there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest
import yaml

from tests.packaging.test_hub import problems
from tests.packaging.uv import uv
from tests.support.collector import READ_TOKEN, Collector, clean_environment
from tests.support.payloads import documented
from tests.support.tap import read_messages

if TYPE_CHECKING:
    from tests.packaging.conftest import Distributions

pytestmark = pytest.mark.slow

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = os.environ.get("VERO_TESTS_PYTHONS", RUNNING).split()


class Installed:
    """The commands of a wheel that is installed in an environment of its own."""

    def __init__(self, environment: Path) -> None:
        self.programs = environment / "bin"

    def run(self, *command: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.programs / command[0], *command[1:]],
            cwd=cwd,
            env=clean_environment() | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


class InstalledCollector(Collector):
    """``vero-collector serve`` of an installed wheel."""

    programs: Path

    def command(self, *arguments: str) -> list[str]:
        return [str(self.programs / "vero-collector"), *arguments]


@pytest.fixture(scope="module", params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    given: str = request.param
    return given


@pytest.fixture(scope="module")
def installed(
    python: str, distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The wheel alone: the tap, the targets, and what of the collector serves nothing."""
    return install(python, str(distributions.wheel), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def serving(
    python: str, distributions: Distributions, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The wheel with the extra of what serves."""
    wheel = f"{distributions.wheel}[collector]"
    return install(python, wheel, tmp_path_factory.mktemp("collector"))


def install(python: str, requirement: str, environment: Path) -> Installed:
    try:
        found = sys.executable if python == RUNNING else uv("python", "find", python).strip()
    except AssertionError:
        pytest.skip(f"there is no Python {python}")
    uv("venv", "--quiet", "--clear", "--python", found, str(environment))
    uv(
        *("pip", "install", "--quiet", "--python", str(environment), "--only-binary", ":all:"),
        requirement,
    )
    uv("pip", "check", "--quiet", "--python", str(environment))
    return Installed(environment)


def test_every_command_tells_the_one_version(
    installed: Installed, distributions: Distributions, tmp_path: Path
) -> None:
    version = distributions.wheel.name.split("-")[1]
    tap = installed.run("tap-vero-segment", "--version", cwd=tmp_path)
    assert tap.stdout.startswith(f"tap-vero-segment v{version},")
    target = installed.run("target-segment", "--version", cwd=tmp_path)
    assert target.stdout.startswith(f"target-segment v{version},")
    collector = installed.run("vero-collector", "--version", cwd=tmp_path)
    assert collector.stdout == f"vero-collector, version {version}\n"
    about = installed.run("tap-vero-segment", "--about", "--format=json", cwd=tmp_path)
    assert json.loads(about.stdout)["version"] == version


def test_a_webhook_comes_out_of_the_tap(
    installed: Installed, serving: Installed, tmp_path: Path
) -> None:
    collector = InstalledCollector(tmp_path)
    collector.programs = serving.programs
    with collector:
        assert collector.post(documented("opened")).status_code == 200
        run = installed.run(
            "tap-vero-segment",
            "--config=ENV",
            cwd=tmp_path,
            TAP_VERO_SEGMENT_SOURCE=collector.url,
            TAP_VERO_SEGMENT_TOKEN=READ_TOKEN,
        )
    assert run.returncode == 0, run.stderr
    messages = read_messages(run.stdout.splitlines())
    assert messages.counts() == {"email_opened": 1, "tracks": 1}


@pytest.mark.parametrize(
    ("extra", "command", "settings"),
    [
        ("collector", "vero-collector serve", {}),
        ("collector", "vero-collector sample", {}),
        ("postgres", "vero-collector status --store postgresql://nobody@127.0.0.1:1/x", {}),
        ("report", "vero-collector report --duckdb warehouse.duckdb", {}),
        (
            "dask",
            "tap-vero-segment --config=ENV",
            {
                "SOURCE": "file:///",
                "DASK_SCHEDULER": "tcp://127.0.0.1:1",
                "BATCH_CONFIG": '{"encoding": {"format": "jsonl"}, "storage": {"root": "out"}}',
            },
        ),
        (
            "parquet",
            "tap-vero-segment --config=ENV",
            {
                "SOURCE": "sqlite:///vero-events.db",
                "BATCH_CONFIG": '{"encoding": {"format": "parquet"}, "storage": {"root": "out"}}',
            },
        ),
        ("s3", "tap-vero-segment --config=ENV --test", {"SOURCE": "s3://bucket/vero"}),
    ],
    ids=["serve", "sample", "postgres", "report", "dask", "parquet", "s3"],
)
def test_what_needs_an_extra_says_which(
    installed: Installed, tmp_path: Path, extra: str, command: str, settings: dict[str, str]
) -> None:
    (tmp_path / "warehouse.duckdb").touch()
    given = {f"TAP_VERO_SEGMENT_{name}": value for name, value in settings.items()}
    run = installed.run(*command.split(), cwd=tmp_path, AWS_PROFILE="nobody", **given)
    assert run.returncode == 1
    assert f"pip install 'tap-vero-segment[{extra}]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_meltano_project_of_the_wheel_alone(
    serving: Installed, distributions: Distributions, tmp_path: Path
) -> None:
    """From an empty folder to the tables, and a stream more by a line more."""
    assert serving.run("vero-collector", "init", "--meltano", cwd=tmp_path).returncode == 0
    written = (tmp_path / "meltano.yml").read_text(encoding="utf-8")
    assert problems(yaml.safe_load(written)) == []
    sample = ["vero-collector", "sample", "--store", "sqlite:///vero-events.db"]
    assert serving.run(*sample, cwd=tmp_path).returncode == 0

    for arguments in (
        ["select", "tap-vero-segment", "email_failed", "*"],
        ["run", "vero-to-duckdb"],
    ):
        done = subprocess.run(
            [Path(sys.executable).with_name("meltano"), *arguments],
            cwd=tmp_path,
            env=clean_environment() | {"UV_FIND_LINKS": str(distributions.wheel.parent)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    changed = (tmp_path / "meltano.yml").read_text(encoding="utf-8")
    assert changed.replace("    - email_failed.*\n", "") == written
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.execute(
            "SELECT (SELECT COUNT(*) FROM vero.tracks), (SELECT COUNT(*) FROM vero.email_failed)"
        ).fetchall()
        assert found == [(290, 1)]
        tables = connection.execute("SELECT COUNT(*) FROM duckdb_tables()").fetchall()
        assert tables == [(9,)]
