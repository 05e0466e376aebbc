"""The files that other programs read: GitHub's workflows, the container's, the services'."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.test_distributions import PYTHONS
from tests.packaging.uv import REPOSITORY

WORKFLOWS = REPOSITORY / ".github" / "workflows"
CHECK = Path(sys.executable).with_name("check-jsonschema")
CONTAINERFILE = (REPOSITORY / "Containerfile").read_text(encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", ".github/workflows/test.yml .github/workflows/release.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/test.yml"),
        ("vendor.dependabot", ".github/dependabot.yml"),
        ("vendor.readthedocs", ".readthedocs.yaml"),
        ("vendor.compose-spec", "compose.yaml"),
    ],
)
def test_its_reader_takes_it(schema: str, paths: str) -> None:
    done = subprocess.run(
        [CHECK, "--builtin-schema", schema, *paths.split()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_every_python_that_is_promised_is_tested() -> None:
    assert read(WORKFLOWS / "test.yml")["jobs"]["test"]["strategy"]["matrix"] == {
        "python": [*PYTHONS]
    }


def test_only_the_publishing_job_may_publish() -> None:
    for path in WORKFLOWS.iterdir():
        workflow = read(path)
        assert workflow["permissions"] == {}
        for name, job in workflow["jobs"].items():
            if name == "publish":
                assert job["environment"] == "pypi"
                assert job["permissions"]["id-token"] == "write"
            else:
                assert job["permissions"] == {"contents": "read"}


def test_the_image_is_built_of_what_the_ignore_file_lets_through() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (.+)$", CONTAINERFILE, re.MULTILINE)
        if "--from" not in line
        for source in re.sub(r"--\S+ ", "", line).split()[:-1]
    }
    assert copied == let_through
    assert all((REPOSITORY / source).exists() for source in copied)


def test_the_services_are_built_as_the_containerfile_says() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", CONTAINERFILE, re.MULTILINE))
    services = read(REPOSITORY / "compose.yaml")["services"]
    targets = {each["build"]["target"] for each in services.values() if "build" in each}
    assert targets == {"collector", "meltano"}
    assert targets <= stages
    for port in services["collector"]["ports"]:
        assert port.startswith("127.0.0.1:")
