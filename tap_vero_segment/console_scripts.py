"""The console scripts, which end quietly when a signal comes while they are still importing.

Importing takes most of a second, in which Python's own answer to SIGINT is a traceback.
"""

from __future__ import annotations

import os
import signal

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


def _end(number: int, _: object) -> None:
    os._exit(128 + number)  # as a shell says it; nothing is open yet


def tap() -> None:
    """Run ``tap-vero-segment``; its own handlers follow as soon as there is something to end."""
    _handle(_end)
    from tap_vero_segment.tap import TapVeroSegment  # noqa: PLC0415

    TapVeroSegment.cli()


def target() -> None:
    """Run ``target-segment``; as for the tap."""
    _handle(_end)
    from tap_vero_segment.target import TargetSegment  # noqa: PLC0415

    TargetSegment.cli()


def collector() -> None:
    """Run ``vero-collector``; its commands have either handlers of their own or Python's."""
    _handle(_end)
    from tap_vero_segment.collector.cli import main  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main()


def _handle(handler: object) -> None:
    for number in _NUMBERS:
        signal.signal(number, handler)  # type: ignore[arg-type]
