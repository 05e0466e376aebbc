"""What an archive in a folder holds, and operations on a store that are killed midway."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.collector import clean_environment, collector_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def archived(folder: Path) -> Counter[str]:
    """The ids of an archive's events, and how often each is there."""
    return Counter(
        json.loads(line)["messageId"]
        for path in folder.rglob("*.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )


def killed_when(folder: Path, condition: Callable[[], bool], *arguments: str) -> bool:
    """Start a command of the collector's and kill it on a condition; whether it was alive."""
    with subprocess.Popen(
        collector_command(*arguments),
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not condition():
            time.sleep(0.0005)
        process.kill()
        return process.wait() != 0
