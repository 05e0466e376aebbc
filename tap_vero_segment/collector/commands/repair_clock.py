"""``vero-collector repair-clock``: taking events back that a wrong clock has put in the future."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tap_vero_segment import times
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.open import repair_clock as repair
from tap_vero_segment.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Callable


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


def repair_clock(
    store: str, *, dry_run: bool, confirm: Callable[[str], None], say: Callable[[str], None]
) -> None:
    """Give events that were loaded in the future a ``loaded_at`` up to now, in the same order.

    Args:
        store: The store's URL.
        dry_run: Only say what would be done.
        confirm: Asks whether to go on; raises where not.
        say: Takes lines of what is and was done.

    Raises:
        SettingError: The store cannot be opened.
        StoreError: The store failed.
        UserError: Another process has the store open.
    """
    with open_reader(store, "store") as reader:
        behind = reader.clock_behind()
        now = times.now()
        later = reader.count_after(now)
    clock = f"the clock says {times.to_text(now)}"
    if not behind and not later:
        say(f"{clock}, and nothing was loaded later: there is nothing to repair")
        return
    how_far = timedelta(seconds=behind // times.SECOND)
    say(f"{clock}; {later} events were loaded later, the newest one by {how_far}")
    if dry_run:
        return
    confirm("If the clock is right, go on?")
    with progress("moving", later) as advance:
        moved = repair(store, "store", advance)
    say(f"{moved} events loaded in the future are now loaded at the present")
