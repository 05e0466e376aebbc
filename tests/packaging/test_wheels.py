"""Whether a user needs a compiler: not with any Python and any machine that the project names."""

from __future__ import annotations

import tomllib
from functools import cache
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

from tests.packaging.test_distributions import PYTHONS
from tests.packaging.uv import REPOSITORY, uv

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

MACHINES = {
    "linux-x86_64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "linux-aarch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macos-arm64": {"sys_platform": "darwin", "platform_machine": "arm64"},
}
GLIBC = 28  # of Debian 10 and RHEL 8: nobody's is older who still gets updates


def platforms(machine: str) -> list[str]:
    system, _, processor = machine.partition("-")
    if system == "macos":
        return [*mac_platforms((14, 0), processor)]
    return [
        *(f"manylinux_2_{minor}_{processor}" for minor in range(GLIBC, 4, -1)),
        f"manylinux2014_{processor}",
    ]


def tags(python: str, machine: str) -> set[Tag]:
    version = tuple(map(int, python.split(".")))
    interpreter = "cp" + "".join(map(str, version))
    on = platforms(machine)
    return {
        *cpython_tags(version, [interpreter], on),
        *compatible_tags(version, interpreter, on),
    }


@cache
def locked() -> list[str]:
    """What is installed with all extras, as requirements with markers."""
    return uv(
        *("export", "--quiet", "--frozen", "--all-extras", "--no-dev", "--no-emit-project"),
        *("--no-hashes", "--no-annotate", "--no-header"),
    ).splitlines()


def wanted(python: str, machine: str) -> Iterator[tuple[str, str]]:
    """Names and versions of what is installed there."""
    environment = MACHINES[machine] | {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_system": "Darwin" if machine.startswith("macos") else "Linux",
        "os_name": "posix",
    }
    for line in locked():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            yield requirement.name, specifier.version


WHEELS = {
    (package["name"], package["version"]): [
        parse_wheel_filename(wheel["url"].rpartition("/")[2])[3]
        for wheel in package.get("wheels", [])
    ]
    for package in tomllib.loads((REPOSITORY / "uv.lock").read_text(encoding="utf-8"))["package"]
    if "version" in package
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_everything_comes_as_a_wheel(python: str, machine: str) -> None:
    found = [*wanted(python, machine)]
    assert {"singer-sdk", "apsw", "pyarrow", "psycopg-binary"} <= {name for name, _ in found}
    fitting = tags(python, machine)
    assert [each for each in found if not any(fitting & wheel for wheel in WHEELS[each])] == []
