"""uv, which builds, installs and resolves."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.support.collector import clean_environment
from tests.support.repository import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


def uv(*arguments: str, cwd: Path = REPOSITORY) -> str:
    """Run ``uv`` to a good end; return what it printed."""
    program = os.environ.get("UV") or shutil.which("uv")
    assert program, "uv is not installed"
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        # The environment that the tests run in is no part of what is built or installed.
        env={k: v for k, v in clean_environment().items() if k != "VIRTUAL_ENV"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
