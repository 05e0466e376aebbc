"""What an archive in a folder holds, and operations on a store that are killed midway."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.collector import clean_environment
from tests.support.forked_collector import FORKS

if TYPE_CHECKING:
    from collections.abc import Callable


def archived(folder: Path) -> Counter[str]:
    """The ids of an archive's events, and how often each is there."""
    return Counter(
        json.loads(line)["messageId"]
        for path in folder.rglob("*.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    )


def killed_when(
    folder: Path,
    condition: Callable[[], bool],
    *arguments: str,
    env: dict[str, str] | None = None,
) -> bool:
    """Start a command of the collector's and kill it on a condition; whether it was alive."""
    with Path(os.devnull).open("wb") as nowhere:
        outputs = (nowhere.fileno(), nowhere.fileno())
        process = FORKS.launch(arguments, folder, clean_environment() | (env or {}), outputs)
    while process.poll() is None and not condition():
        time.sleep(0.0005)
    process.kill()
    return process.wait() != 0
