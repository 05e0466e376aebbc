"""The console scripts, which end in one line, or quietly, when they cannot even be imported.

Importing takes most of a second, in which Python's own response to SIGINT is a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


def tap() -> None:
    """Run ``tap-vero-segment``; its own signal handlers follow once there is something to end."""
    with _starting():
        from tap_vero_segment.tap import TapVeroSegment  # noqa: PLC0415
    with _in_memory():
        TapVeroSegment.cli()


def target() -> None:
    """Run ``target-segment``; as for the tap."""
    with _starting():
        from tap_vero_segment.targets.segment import TargetSegment  # noqa: PLC0415
    with _in_memory():
        TargetSegment.cli()


def duckdb_target() -> None:
    """Run ``target-vero-duckdb``; as for the tap."""
    with _starting():
        from tap_vero_segment.targets.duckdb import TargetVeroDuckDB  # noqa: PLC0415
    with _in_memory():
        TargetVeroDuckDB.cli()


def collector() -> None:
    """Run ``vero-collector``; its commands have either signal handlers of their own or Python's."""
    with _starting():
        from tap_vero_segment.collector.cli import main  # noqa: PLC0415
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with _in_memory():
        main()


@contextmanager
def _starting() -> Generator[None]:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    with _in_memory():
        try:
            yield
        except (ImportError, OSError) as error:  # a library that cannot be mapped, say
            sys.exit(f"{_name()}: cannot be started: {error}")


@contextmanager
def _in_memory() -> Generator[None]:
    try:
        yield
    except (MemoryError, SystemError):  # the latter where Python itself could not go on
        sys.exit(f"{_name()}: out of memory: allow the process more")


def _name() -> str:
    return os.path.basename(sys.argv[0])  # noqa: PTH119  # pathlib would have to be imported


def _end(number: int, _: object) -> None:
    os._exit(128 + number)  # as a shell says it; nothing is open yet
