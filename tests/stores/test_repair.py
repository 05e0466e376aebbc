"""Events that a wrong clock has put in the future: taken back, in order, with nothing lost."""

from __future__ import annotations

from contextlib import closing, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment import times
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import Exported
from tap_vero_segment.stores.open import open_reader, open_writer, repair_clock
from tap_vero_segment.stores.postgres import repair as postgres_repair
from tap_vero_segment.stores.sqlite import repair as sqlite_repair
from tests.stores.test_any_store import counted, events, ids, letters, loaded, prune_all, read, scan

if TYPE_CHECKING:
    from tests.stores.conftest import Open

YEARS = 73 * 365 * 86_400 * times.SECOND


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(sqlite_repair, "PAGE", 7)
    monkeypatch.setattr(postgres_repair, "PAGE", 7)


def fill(open_writer: Open, before: int = 20, after: int = 30) -> None:
    """Some events of the present, and some after the clock was wrong."""
    ahead = 0
    writer = open_writer(lambda: times.now() + ahead)
    if before:
        writer.write(events(before, seed=1), letters(2))
    ahead = YEARS
    writer.write(events(1, seed=2), [])
    ahead = 0
    for number in range(after):
        writer.write(events(1, seed=3 + number), [])
    writer.close()


@pytest.mark.parametrize("before", [20, 0])
def test_events_of_the_future_are_loaded_at_the_present(open_writer, url, before):
    fill(open_writer, before)
    with open_reader(url, "store") as reader:
        was = read(reader)
        assert reader.clock_behind() > YEARS // 2
        assert reader.count_after(times.now()) == 31

    assert repair_clock(url, "store") == 31
    assert repair_clock(url, "store") == 0

    now = times.now()
    with open_reader(url, "store") as reader:
        found = read(reader)
        at = loaded(reader)
        assert reader.clock_behind() == reader.count_after(now) == 0
        assert at[-1] <= now
        assert all(one < later for one, later in pairwise(at))
        assert at[:before] == [times.from_text(call["loadedAt"]) for call in was[:before]]
        assert counted(reader) == scan(reader)
        slots = [arrivals for arrivals in reader.arrivals(0) if arrivals.start > now]
        assert slots == []
        # Those before were forgotten when the future began, 48 hours after them and more.
        assert sum(arrivals.events for arrivals in reader.arrivals(0)) == 31
    for call in (*was, *found):
        del call["loadedAt"]
    assert found == was

    # It goes on at the present, and knows what it has.
    with closing(open_writer()) as writer:
        assert writer.write([*events(1, seed=2), *events(5, seed=99)], []) == 5
        assert writer.check() == 0
    with open_reader(url, "store") as reader:
        assert now < loaded(reader)[-1] <= times.now()
        assert counted(reader) == scan(reader)
    with closing(open_writer()) as writer:
        assert prune_all(writer, times.LATEST) == before + 36


def test_what_archives_have_ends_at_the_same_events(open_writer, url):
    fill(open_writer)
    with open_reader(url, "store") as reader:
        at = loaded(reader)
    ends = {"before": 12, "first": 20, "amid": 33, "last": 50}
    with closing(open_writer()) as writer:
        for name, place in ends.items():
            writer.mark_exported(name, Exported(at[place], times.LATEST))
        writer.mark_exported("between", Exported(at[20] - 1, times.LATEST))
        writer.plan_export("planned", Exported(at[33], times.LATEST))
        for name, place in ends.items():
            writer.add_forward(name, name, at[place], 0)

    repair_clock(url, "store")

    with open_reader(url, "store") as reader:
        at = loaded(reader)
        has = reader.exports()
        for name, place in ends.items():
            assert has[name] == [Exported(at[place], times.LATEST)]
        assert at[19] <= has["between"][0].until < at[20]
        forwards = {each.destination: each.until for each in reader.forwards()}
        assert forwards == {name: at[place] for name, place in ends.items()}
    with closing(open_writer()) as writer:
        plan = writer.plan_export("planned", Exported(times.LATEST, times.LATEST)).planned
    assert plan == Exported(at[33], times.LATEST)


def test_where_all_of_the_future_was_pruned_the_clock_is_right_again(open_writer, url):
    fill(open_writer, before=0)
    with closing(open_writer()) as writer:
        prune_all(writer, times.LATEST)

    assert repair_clock(url, "store") == 0

    with closing(open_writer()) as writer, open_reader(url, "store") as reader:
        assert reader.clock_behind() == 0
        writer.write(events(3), [])
        assert times.now() - loaded(reader)[-1] < times.SECOND * 60


def test_a_clock_that_was_a_moment_ahead_leaves_no_room_and_order_is_kept(open_writer, url):
    now = times.now()
    ahead = 0
    writer = open_writer(lambda: now + ahead)
    writer.write(events(10, seed=1), [])
    ahead = 3600 * times.SECOND
    writer.write(events(40, seed=2), [])
    with open_reader(url, "store") as reader:
        order = ids(reader)
    writer.close()

    assert repair_clock(url, "store") == 40

    with open_reader(url, "store") as reader:
        assert ids(reader) == order
        assert all(one < later for one, later in pairwise(loaded(reader)))


@pytest.mark.parametrize("steps", [1, 4])
def test_broken_off_it_goes_on(open_writer, url, monkeypatch, steps):
    fill(open_writer)
    with open_reader(url, "store") as reader:
        order = ids(reader)
    taken = 0

    class BrokenError(Exception):
        pass

    def breaks(moving: object, *arguments: object) -> object:
        nonlocal taken
        taken += 1
        if taken > steps:
            raise BrokenError
        return step(moving, *arguments)

    kind: Any = sqlite_repair if url.startswith("sqlite") else postgres_repair
    name = "_move" if url.startswith("sqlite") else "_step"
    step = getattr(kind.Moving, name)
    with monkeypatch.context() as patched, suppress(BrokenError):
        patched.setattr(kind.Moving, name, breaks)
        repair_clock(url, "store")

    with open_reader(url, "store") as reader:
        assert ids(reader) == order
        assert counted(reader) == scan(reader)
        left = reader.count_after(times.now())
    with closing(open_writer()) as writer:  # and can be written to meanwhile
        writer.write(events(3, seed=99), [])
    assert repair_clock(url, "store") == left + 3
    with open_reader(url, "store") as reader:
        assert ids(reader)[:-3] == order
        assert all(one < later for one, later in pairwise(loaded(reader)))
        assert counted(reader) == scan(reader)


def test_a_store_that_is_open_elsewhere_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/vero-events.db"
    with closing(open_writer(url, "store")) as writer:
        writer.write(events(3), [])
        with pytest.raises(UserError, match="stop the collector"):
            repair_clock(url, "store")
        assert writer.write(events(3, seed=1), []) == 3


def test_collectors_on_postgresql_go_on_meanwhile(database):
    with closing(open_writer(database, "store")) as collector:
        writer = type(collector)(database, "store", lambda: times.now() + YEARS)
        writer.write(events(10, seed=1), [])
        writer.close()
        collector.write(events(10, seed=2), [])
        assert collector.check() > YEARS // 2

        assert repair_clock(database, "store") == 20

        collector.write(events(10, seed=3), [])
        assert collector.check() == 0
    with open_reader(database, "store") as reader:
        assert len(ids(reader)) == 30
        assert loaded(reader)[-1] <= times.now()
