"""A clock that is behind the newest event: it is wrong now, or was ahead once."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tap_vero_segment import times

BEHIND: Final = times.SECOND
"""Microseconds that the clock may be behind the newest event, as clocks are corrected a little."""


def clock_warning(behind: int) -> str | None:
    """Say that the clock is behind the newest event, and what to do; None: it is not, or hardly.

    Args:
        behind: By how many microseconds it is.
    """
    if behind <= BEHIND:
        return None
    how_far = timedelta(seconds=behind // times.SECOND)
    return (
        f"the clock is {how_far} behind the newest loaded_at: set the clock right; if it is right "
        "now and was ahead before, run `vero-collector repair-clock`"
    )
