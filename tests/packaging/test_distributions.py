"""What a release holds."""

from __future__ import annotations

import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest

from tests.packaging.uv import REPOSITORY

if TYPE_CHECKING:
    from tests.packaging.conftest import Distributions

pytestmark = pytest.mark.slow

PACKAGE = REPOSITORY / "tap_vero_segment"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def on_disk() -> set[str]:
    """The package's files, data included."""
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_the_package_and_nothing_else(distributions: Distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = set(wheel.namelist())
    info = f"tap_vero_segment-{PROJECT['version']}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == on_disk()
    assert {name.removeprefix(info) for name in names if name.startswith(info)} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert "tap_vero_segment/py.typed" in names


def test_the_metadata_says_what_an_index_shows(distributions: Distributions) -> None:
    info = f"tap_vero_segment-{PROJECT['version']}.dist-info"
    with zipfile.ZipFile(distributions.wheel) as wheel:
        metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
        scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert metadata["Name"] == "tap-vero-segment"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.15,>=3.11"
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"])
    classifiers = metadata.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    named = [name.rpartition(" ")[2] for name in classifiers if "Python :: 3." in name]
    assert tuple(named) == PYTHONS
    assert metadata["Description-Content-Type"] == "text/markdown"
    for command in ("tap-vero-segment", "target-segment", "vero-collector"):
        assert f"{command} = " in scripts


def test_the_sdist_has_what_the_tests_need(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert on_disk() <= names
    for name in (
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "docs/index.md",
        "docs/conf.py",
        "meltano.yml",
        "compose.yaml",
        "Containerfile",
        ".env.example",
        ".github/workflows/test.yml",
        "tests/packaging/test_distributions.py",
    ):
        assert name in names
    assert ".env" not in names
