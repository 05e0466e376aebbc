"""``vero-collector`` with something of its surroundings replaced.

Each is switched on by a variable of the environment:

``TEST_CLOCK_OFFSET_FILE``
    The clock is as many seconds off as that file says, at each look.
``TEST_FAILING_DISK_FILE``
    While that file is there, what it names fails on the store's files: ``write EIO``, ``sync EIO``,
    ``write ENOSPC``, ``write EROFS``.
"""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from tap_vero_segment import times
from tap_vero_segment.collector.metrics import Metrics
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.disk import Disk

_ERRORS = {"EIO": apsw.IOError, "ENOSPC": apsw.FullError, "EROFS": apsw.ReadOnlyError}

_disks: list[Disk] = []
"""SQLite forgets one that nothing else holds."""


def _shift_clock(file: Path) -> None:
    real = times.now

    def now() -> int:
        return real() + int(file.read_text(encoding="utf-8")) * times.SECOND

    times.now = now


def _fail(file: Path) -> Disk:
    disk = Disk()

    def fail(what: str, name: str) -> apsw.Error | None:
        del name
        if not file.exists():
            return None
        failing, _, error = file.read_text(encoding="utf-8").partition(" ")
        return _ERRORS[error]("told by the disk") if what == failing else None

    disk.fail = fail
    return disk


def wrap() -> None:
    """Replace what the variables name."""
    if "TEST_CLOCK_OFFSET_FILE" in os.environ:
        _shift_clock(Path(os.environ["TEST_CLOCK_OFFSET_FILE"]))
        # Their default argument is the clock as it was when the module was read.
        for kind in (SqliteWriter, Metrics):
            kind.__init__.__defaults__ = (times.now,)
    if "TEST_FAILING_DISK_FILE" in os.environ:
        _disks.append(_fail(Path(os.environ["TEST_FAILING_DISK_FILE"])))
