"""The chart of what came in the last day, week or month."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.collector.live_page import chart
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.stores.test_any_store import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.stores.base import Reader

NOW = times.from_text("2026-11-23T09:24:00Z")
HOUR = 3_600 * times.SECOND
AGO = {30 * 24: 5, 29 * 24: 40, 6 * 24: 30, 23: 7, 0: 20}
"""Events by how many hours ago they came."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"
    now = 0
    writer = SqliteWriter(url, "store", lambda: now)
    for seed, (hours, several) in enumerate(AGO.items()):
        now = NOW - hours * HOUR
        writer.write(events(several, seed), [])
    writer.close()
    with open_reader(url, "store") as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "words", "ticks"),
    [
        (
            "24h",
            "27 events in the last 24 hours; most in half an hour: 20, from 2026-11-23 09:00 UTC",
            ["09:30", "21:30", "now"],
        ),
        (
            "7d",
            "57 events in the last 7 days; most in three hours: 30, from 2026-11-17 09:00 UTC",
            ["11-16", "11-20", "now"],
        ),
        (
            "30d",
            "97 events in the last 30 days; most in twelve hours: 40, from 2026-10-25 00:00 UTC",
            ["10-24", "11-08", "now"],
        ),
    ],
)
def test_it_shows_what_came(reader, name, words, ticks):
    drawn = chart.read(reader, name, "", NOW)

    assert (drawn.words, drawn.ticks) == (words, ticks)
    heights: dict[str, int] = {}
    for path in drawn.paths.values():
        for x, bottom, height in re.findall(r"M(\d+) (\d+)v-(\d+)h", path):
            # Each stands on what is below it.
            assert int(bottom) == chart.HEIGHT - heights.get(x, 0)
            heights[x] = heights.get(x, 0) + int(height)
    assert max(heights.values()) == chart.HEIGHT
    assert all(int(x) < chart.WIDTH for x in heights)


def test_it_shows_one_collection_alone(reader):
    alone = chart.read(reader, "30d", "email_sent", NOW)
    assert list(alone.paths) == ["email_sent"]
    assert 0 < alone.most < chart.read(reader, "30d", "", NOW).most
    nothing = chart.read(reader, "24h", "", NOW + 48 * HOUR)
    assert (nothing.words, nothing.most) == ("Nothing in the last 24 hours", 0)
    assert set(nothing.paths.values()) == {""}
