"""Types as somebody sees them who imports the package."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

USER = """
from tap_vero_segment import collection, times
from tap_vero_segment.tap import TapVeroSegment
from tap_vero_segment.targets.segment import TargetSegment

tap = TapVeroSegment(config={"source": "sqlite:///vero-events.db"})
names: list[str] = [stream.name for stream in tap.vero_streams]
target: type[TargetSegment] = TargetSegment
moment: str = times.canonical("2026-11-23")
columns: tuple[collection.Column, ...] = collection.COMMON_COLUMNS
"""
MISTAKE = "wrong: int = times.canonical('2026-11-23')\n"


def checked(folder: Path, text: str) -> str:
    """What ``mypy --strict`` says of somebody's module, outside of this repository."""
    (folder / "user.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "user.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_types_are_seen(tmp_path: Path) -> None:
    (error,) = checked(tmp_path, USER + MISTAKE).splitlines()
    assert 'expression has type "str", variable has type "int"' in error
