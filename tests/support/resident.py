"""How much memory a process takes."""

from __future__ import annotations

from pathlib import Path

import pytest


def resident(pid: int) -> int:
    """Bytes of memory that a process holds; skip the test where none can tell."""
    return _field(pid, "VmRSS:")


def peak(pid: int) -> int:
    """Bytes of memory that a process has held at most, so far; skip the test likewise."""
    return _field(pid, "VmHWM:")


def _field(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs Linux's /proc")
    [line] = [line for line in status.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024
