"""A day as small bars, and in words for those who do not see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.stores.base import ARRIVALS_SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_vero_segment.stores.base import Arrivals

BARS: Final = 48
BAR: Final = 6 * ARRIVALS_SLOT
"""Microseconds that a bar stands for: half an hour."""

WIDTH: Final = 4 * BARS
HEIGHT: Final = 32

HOUR_SLOTS: Final = 12


class Sparkline(NamedTuple):
    """What came of a collection in the last day.

    Attributes:
        hour: Events of the last hour; of the last twelve slots, the one under way included.
        events: Those of all bars.
        bars: An SVG path in a box of ``WIDTH`` times ``HEIGHT``, a bar each half hour.
        words: The same in words.
    """

    hour: int
    events: int
    bars: str
    words: str


def begins(now: int) -> int:
    """Return where the first bar begins, in microseconds since 1970."""
    return (now // BAR + 1 - BARS) * BAR


def sparkline(arrivals: Iterable[Arrivals], now: int) -> Sparkline:
    """Draw the arrivals of one collection.

    Args:
        arrivals: Those since the first bar begins, in any order.
        now: Microseconds since 1970.
    """
    first = begins(now)
    hour_begins = (now // ARRIVALS_SLOT + 1 - HOUR_SLOTS) * ARRIVALS_SLOT
    hour = 0
    bars = [0] * BARS
    for slot in arrivals:
        # A clock may have been set back since: what is later than now is of now.
        bars[min((slot.start - first) // BAR, BARS - 1)] += slot.events
        if slot.start >= hour_begins:
            hour += slot.events
    return Sparkline(hour, sum(bars), _path(bars), _words(bars, first))


def _path(bars: list[int]) -> str:
    most = max(bars)
    return "".join(
        f"M{4 * index} {HEIGHT}v-{height}h3v{height}z"
        for index, events in enumerate(bars)
        if events and (height := max(3, round(HEIGHT * events / most)))
    )


def _words(bars: list[int], first: int) -> str:
    events = sum(bars)
    if not events:
        return "Nothing in the last 24 hours"
    peak = bars.index(max(bars))
    from_, until = (times.to_text(first + BAR * (peak + more))[11:16] for more in (0, 1))
    return f"{events:,} in the last 24 hours; most, {bars[peak]:,}, from {from_} to {until} UTC"
