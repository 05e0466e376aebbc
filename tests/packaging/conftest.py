from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.packaging.uv import REPOSITORY, uv

if TYPE_CHECKING:
    from pathlib import Path


class Distributions(NamedTuple):
    wheel: Path
    sdist: Path


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The wheel, built from the sdist as a release is, and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", str(folder), str(REPOSITORY))
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)
