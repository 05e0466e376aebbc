"""What came in the last day, week or month, by collection, as stacked bars in an SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Reader

MINUTE: Final = 60 * times.SECOND
WIDTH: Final = 960
HEIGHT: Final = 200


class Range(NamedTuple):
    """How far a chart goes back.

    Attributes:
        name: In words.
        bars: How many bars it has.
        bar: Microseconds that one stands for; a divisor of a day.
        each: The same in words.
    """

    name: str
    bars: int
    bar: int
    each: str


RANGES: Final = {
    "24h": Range("24 hours", 48, 30 * MINUTE, "half an hour"),
    "7d": Range("7 days", 56, 3 * 60 * MINUTE, "three hours"),
    "30d": Range("30 days", 60, 12 * 60 * MINUTE, "twelve hours"),
}
DEFAULT: Final = "24h"


class Chart(msgspec.Struct, frozen=True, gc=False):
    """A chart, to be drawn in a box of ``WIDTH`` times ``HEIGHT``.

    Attributes:
        paths: An SVG path for each collection.
        most: How many events the highest bar stands for.
        words: The chart in words.
        ticks: The times where it begins, in its middle and at its end.
    """

    paths: dict[str, str]
    most: int
    words: str
    ticks: list[str]


def read(reader: Reader, name: str, only: str, now: int) -> Chart:
    """Read and draw a chart, without a look at any event.

    Args:
        reader: The store's reading half.
        name: The range's, a key of ``RANGES``.
        only: The slug of the collection that is shown; empty: all of them.
        now: Microseconds since 1970.

    Raises:
        StoreError: The store cannot be read.
    """
    shown = RANGES[name]
    first = (now // shown.bar + 1 - shown.bars) * shown.bar
    streams = [each.stream for each in COLLECTIONS if only in {"", each.stream}]
    counts = {stream: [0] * shown.bars for stream in streams}
    for slot in reader.arrivals(first, shown.bar):
        if slot.collection in counts:
            # A clock may have been set back since: what is later than now is of now.
            bar = min((slot.start - first) // shown.bar, shown.bars - 1)
            counts[slot.collection][bar] += slot.events
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    most = max(sums)
    ends = [times.to_text(first + shown.bar * bar) for bar in (0, shown.bars // 2, shown.bars)]
    part = slice(11, 16) if name == DEFAULT else slice(5, 10)
    return Chart(
        _paths(counts, most),
        most,
        _words(shown, sums, first),
        [*(end[part] for end in ends[:2]), "now"],
    )


def _paths(counts: dict[str, list[int]], most: int) -> dict[str, str]:
    """Return a path for each collection, which stands on those before it."""
    below = [0] * len(next(iter(counts.values())))
    step = WIDTH // len(below)
    paths = {}
    for stream, bars in counts.items():
        path = ""
        for bar, events in enumerate(bars):
            if not events:
                continue
            # By the sums, so that roundings do not add up.
            bottom = round(HEIGHT * below[bar] / most)
            below[bar] += events
            height = round(HEIGHT * below[bar] / most) - bottom
            if height:
                path += f"M{step * bar} {HEIGHT - bottom}v-{height}h{step - 3}v{height}z"
        paths[stream] = path
    return paths


def _words(shown: Range, sums: list[int], first: int) -> str:
    if not any(sums):
        return f"Nothing in the last {shown.name}"
    most = max(sums)
    at = times.to_text(first + shown.bar * sums.index(most))
    return (
        f"{sum(sums):,} events in the last {shown.name}; most in {shown.each}: {most:,}, "
        f"from {at[:10]} {at[11:16]} UTC"
    )
