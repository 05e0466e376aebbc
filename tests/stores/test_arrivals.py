"""How many events came when, as every store counts it."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.stores.base import (
    ARRIVALS_FINE,
    ARRIVALS_KEPT,
    ARRIVALS_SLOT,
    Arrivals,
    StoreError,
)
from tap_vero_segment.stores.open import open_reader
from tests.stores.test_any_store import events, letters, prune_all, read
from tests.support.collector import Collector
from tests.support.payloads import documented, many

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Event, Reader

SLOT = times.from_text("2026-11-23T09:25:00Z")
MINUTE = 60 * times.SECOND
HOUR = 60 * MINUTE


def test_a_slot_begins_at_a_multiple_of_five_minutes():
    assert ARRIVALS_SLOT == 5 * MINUTE
    assert ARRIVALS_KEPT == 31 * 24 * 60 * MINUTE
    assert SLOT % ARRIVALS_SLOT == 0


def scan(reader: Reader) -> list[Arrivals]:
    """What a look at every event gives."""
    found: Counter[tuple[int, str]] = Counter()
    for call in read(reader):
        at = times.from_text(call["loadedAt"])
        found[at - at % ARRIVALS_SLOT, BY_EVENT[call["event"]].stream] += 1
    return [Arrivals(stream, start, count) for (start, stream), count in sorted(found.items())]


def by_slot(reader: Reader) -> dict[int, int]:
    """How many came in each slot, of all collections."""
    found: Counter[int] = Counter()
    for arrivals in reader.arrivals(0):
        found[arrivals.start] += arrivals.events
    return dict(found)


@pytest.mark.parametrize("seed", range(2))
def test_new_events_are_counted_by_collection_and_slot(open_writer, url, seed):
    chance = random.Random(seed)
    now = 0
    writer = open_writer(lambda: now)
    moments = sorted(SLOT + chance.randrange(60 * MINUTE) for _ in range(15))
    moments[7] = SLOT - 60 * MINUTE  # the clock steps back, and loaded_at does not
    for number, now in enumerate(moments):  # noqa: B007
        some = events(chance.randint(1, 30), chance.choice([number, number, 0]))
        writer.write([*some, *some[:3]], letters(2, str(number)), 2)

    with open_reader(url, "store") as reader:
        counted = reader.arrivals(0)
        assert counted == scan(reader)
        assert len({arrivals.start for arrivals in counted}) > 3
        assert len({arrivals.collection for arrivals in counted}) > 3
        after = counted[len(counted) // 2].start
        assert reader.arrivals(after) == [row for row in counted if row.start >= after]
        assert reader.arrivals(after + 1) == [row for row in counted if row.start > after]
        hours: Counter[tuple[int, str]] = Counter()
        for row in counted:
            hours[row.start - row.start % HOUR, row.collection] += row.events
        assert reader.arrivals(0, HOUR) == [
            Arrivals(stream, start, count) for (start, stream), count in sorted(hours.items())
        ]


def test_a_commit_that_spans_two_slots_counts_in_both(open_writer, url):
    open_writer(lambda: SLOT - 7).write(events(30), [])

    with open_reader(url, "store") as reader:
        assert by_slot(reader) == {SLOT - ARRIVALS_SLOT: 7, SLOT: 23}
        assert reader.arrivals(0) == scan(reader)


def test_duplicates_are_not_counted_and_begin_no_slot(open_writer, url):
    now = SLOT
    writer = open_writer(lambda: now)
    some = events(10)
    writer.write(some, [])
    now += 2 * ARRIVALS_SLOT
    writer.write(some, [])

    with open_reader(url, "store") as reader:
        assert by_slot(reader) == {SLOT: 10}


def test_a_resolved_letter_counts(writer, reader):
    writer.write(events(5), letters(2))
    one, other = reader.dead_letters(0, 10)
    writer.resolve(one.number, events(9, seed=3))
    writer.resolve(other.number, events(9, seed=3))

    assert sum(by_slot(reader).values()) == 14
    assert reader.arrivals(0) == scan(reader)


def test_slots_are_kept_for_31_days_before_the_newest_one(open_writer, url):
    now = 0
    begins = SLOT - SLOT % HOUR
    writer = open_writer(lambda: now)
    with open_reader(url, "store") as reader:
        for number, now in enumerate([begins, begins + HOUR, begins + ARRIVALS_KEPT + MINUTE]):  # noqa: B007
            writer.write(events(number + 1, number), [])
        assert by_slot(reader) == {begins: 1, begins + HOUR: 2, begins + ARRIVALS_KEPT: 3}

        now += ARRIVALS_SLOT
        writer.write(events(4, seed=4), [])
        newest = begins + ARRIVALS_KEPT + ARRIVALS_SLOT
        kept = {begins + HOUR: 2, begins + ARRIVALS_KEPT: 3, newest: 4}
        assert by_slot(reader) == kept
        writer.write(events(5, seed=5), [])
        assert by_slot(reader) == kept | {newest: 9}


def test_slots_older_than_48_hours_are_added_up_to_hours(open_writer, url):
    now = 0
    writer = open_writer(lambda: now)
    begins = SLOT - SLOT % HOUR
    counted: Counter[int] = Counter()
    for seed, hours in enumerate([*range(0, 180, 5), 48 * 60 + 30, 48 * 60 + 65, 49 * 60 + 120]):
        now = begins + hours * MINUTE
        writer.write(events(1 + seed % 3, seed), [])
        counted[now] += 1 + seed % 3

    newest = now
    expected: Counter[int] = Counter()
    for at, several in counted.items():
        whole = newest - ARRIVALS_FINE
        old = at < whole - whole % HOUR
        expected[at - at % HOUR if old else at] += several
    with open_reader(url, "store") as reader:
        assert by_slot(reader) == expected
        assert len(expected) == 3 + 3 < len(counted)
        collections = Counter(each.collection for each in reader.arrivals(0, 12 * HOUR))
        assert max(collections.values()) <= 2 + 1


def test_a_write_that_fails_counts_nothing(open_writer, url):
    now = SLOT
    writer = open_writer(lambda: now)
    writer.write(events(3), [])
    good, bad = events(2, seed=9)
    now += ARRIVALS_KEPT + ARRIVALS_SLOT
    with pytest.raises(StoreError):
        writer.write([good, bad._replace(collection=None)], [])

    with open_reader(url, "store") as reader:
        assert by_slot(reader) == {SLOT: 3}
        writer.write([good], [])
        assert by_slot(reader) == {SLOT + ARRIVALS_KEPT + ARRIVALS_SLOT: 1}


def test_pruning_leaves_them(writer, reader):
    writer.write(events(30), [])
    counted = reader.arrivals(0)
    prune_all(writer, times.LATEST)

    assert read(reader) == []
    assert reader.arrivals(0) == counted
    assert sum(by_slot(reader).values()) == 30


def test_writers_at_once_count_all_of_theirs(open_writer, url):
    moments = iter(range(SLOT, SLOT + 10_000 * MINUTE, 2 * MINUTE // 10))
    groups: list[list[list[Event]]] = [
        [events(1 + number % 7, 100 * one + number // 2) for number in range(40)]
        for one in range(2)
    ]

    def work(some: list[list[Event]]) -> int:
        writer = open_writer(moments.__next__)
        return sum(writer.write(group, []) for group in some)

    with ThreadPoolExecutor(2) as pool:
        new = sum(pool.map(work, groups))

    with open_reader(url, "store") as reader:
        assert sum(by_slot(reader).values()) == new == len(read(reader))
        assert len(by_slot(reader)) > 1
        assert reader.arrivals(0) == scan(reader)


def test_a_killed_collector_has_counted_what_it_stored(url, tmp_path):
    with Collector(tmp_path, store_url=url) as collector:
        for payload in many(20):
            collector.post(payload)
        collector.kill()
        collector.start()
        for payload in [*many(20), documented("sent")]:
            collector.post(payload)
        collector.kill()

    with open_reader(url, "store") as reader:
        assert sum(by_slot(reader).values()) == 21
        assert reader.arrivals(0) == scan(reader)
