"""What every store must do, whatever it is made of: the protocols of ``stores.base``."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import (
    DeadLetter,
    Event,
    Exported,
    Exports,
    LetterGroup,
    LetterHead,
    Refused,
    Span,
    Summary,
    Total,
)
from tap_vero_segment.stores.exports import merged, missing
from tap_vero_segment.stores.open import open_reader
from tests.support.payloads import many
from tests.support.stored import every_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Reader, Writer
    from tests.stores.conftest import Open

START = times.from_text("2026-11-23T09:24:00Z")
WEEK = 7 * 86_400_000_000


def events(number: int, seed: int = 7, received_at: Callable[[], int] = times.now) -> list[Event]:
    """Events of every kind; of another seed, others."""
    some = []
    for place, payload in enumerate(many(number, seed=seed)):
        event = read_vero(json.dumps(payload).encode(), received_at())
        name = f"{seed}-{place}"
        call = json.dumps(json.loads(event.call) | {"messageId": name}).encode()
        some.append(event._replace(id=name, call=call))
    return some


def letters(number: int, name: str = "a") -> list[DeadLetter]:
    return [
        DeadLetter(i, "vero", "a reason", b"\0%b%d" % (name.encode(), i)) for i in range(number)
    ]


def read(reader: Reader, after: int = 0) -> list[dict]:
    return [json.loads(line) for line in every_line(reader, after)]


def ids(reader: Reader) -> list[str]:
    return [call["messageId"] for call in read(reader)]


def loaded(reader: Reader) -> list[int]:
    return [times.from_text(call["loadedAt"]) for call in read(reader)]


def scan(reader: Reader) -> dict[str, Total]:
    """The totals that a look at every event gives."""
    found: dict[str, Total] = {}
    streams = {collection.event: collection.stream for collection in COLLECTIONS}
    for call in read(reader):
        at = times.from_text(call["loadedAt"])
        stream = streams[call["event"]]
        total = found.get(stream, Total(stream, 0, at, at))
        found[stream] = total._replace(events=total.events + 1, last_loaded_at=at)
    return found


def counted(reader: Reader) -> dict[str, Total]:
    return {total.collection: total for total in reader.summary().totals if total.events}


def prune_all(writer: Writer, before: int, until: int = times.LATEST) -> int:
    deleted = 0
    while step := writer.prune(before, until):
        deleted += step
    return deleted


# Writing and reading


def test_an_empty_store_says_so(reader):
    assert reader.high_water() is None
    assert reader.lines(0, None, 10) == []
    assert reader.newest(10) == []
    assert reader.newest(10, "email_sent") == []
    assert reader.event(times.now()) is None
    assert reader.arrivals(0) == []
    assert reader.summary() == Summary([], 0, 0)
    assert reader.dead_letters(0, 10) == []
    assert reader.exports() == {}
    assert reader.span(times.EARLIEST, times.LATEST, 0, times.LATEST) is None
    assert reader.size() > 0


def test_what_was_written_is_read_in_the_order_of_writing(writer, reader):
    groups = [events(number, seed) for seed, number in enumerate((1, 30, 7))]
    for group in groups:
        assert writer.write(group, []) == len(group)

    written = [event for group in groups for event in group]
    assert ids(reader) == [event.id for event in written]
    for call, event in zip(read(reader), written, strict=True):
        assert {**json.loads(event.call), "loadedAt": call["loadedAt"]} == call
    assert all(one < later for one, later in pairwise(loaded(reader)))
    assert reader.high_water() == loaded(reader)[-1]


def test_a_page_is_bounded_at_both_ends_and_in_size(writer, reader):
    writer.write(events(20), [])
    at = loaded(reader)

    page = reader.lines(at[4], at[14], 100)
    assert [times.from_text(json.loads(line)["loadedAt"]) for line in page] == at[5:15]
    assert len(reader.lines(at[4], None, 3)) == 3
    assert reader.lines(at[-1], None, 3) == []


def test_an_event_is_stored_once_within_a_group_and_between_groups(writer, reader):
    some = events(10)

    assert writer.write([*some, *some], []) == 10
    assert writer.write(some[::-1], []) == 0
    assert writer.write([*some, *events(5, seed=9)], []) == 5
    assert ids(reader) == [event.id for event in [*some, *events(5, seed=9)]]
    assert counted(reader) == scan(reader)


def test_odd_ids_and_bodies_are_kept_as_they_are(writer, reader):
    [event] = events(1)
    odd = ["x" * 5_000, "x" * 4_999 + "y", "", " ", "ümläut 👟", "'; DROP TABLE events", "%s", "{}"]
    call = json.loads(event.call)
    some = [
        event._replace(id=name, call=json.dumps(call | {"messageId": name}).encode())
        for name in odd
    ]

    assert writer.write(some, []) == len(odd)
    assert writer.write(some, []) == 0
    assert ids(reader) == odd


def test_a_large_group_is_stored(writer, reader):
    writer.write(events(5_000), [])

    assert len(loaded(reader)) == 5_000
    assert counted(reader) == scan(reader)


def test_dead_letters_are_kept_once_and_as_they_came(writer, reader):
    some = letters(7)
    writer.write([], some[:5])
    writer.write(events(3), some, 4)
    writer.write([], [], 5)

    kept = reader.dead_letters(0, 100)
    assert [letter for _, letter in kept] == some
    assert all(one < later for one, later in pairwise(number for number, _ in kept))
    assert reader.dead_letters(kept[2].number, 2) == kept[3:5]
    heads = [
        LetterHead(number, letter.received_at, letter.input, letter.reason, len(letter.body))
        for number, letter in kept[::-1]
    ]
    assert reader.letter_heads(3) == heads[:3]
    assert reader.letter_heads(100) == heads
    assert reader.letter_heads(2, before=heads[2].number) == heads[3:5]
    summary = reader.summary()
    assert (summary.dead_letters, summary.ignored) == (7, 9)


def test_a_body_from_another_input_is_another_letter(writer, reader):
    [letter] = letters(1)
    writer.write([], [letter, letter._replace(input="segment")])

    assert reader.summary().dead_letters == 2


# loaded_at


def test_a_clock_that_steps_back_does_not_take_loaded_at_back(open_writer, url):
    now = START
    writer = open_writer(lambda: now)
    hour = 3_600_000_000
    for seed, now in enumerate([START, START + 10, START - hour, START - hour, START + 5]):  # noqa: B007
        writer.write(events(20, seed), [])

    with open_reader(url, "store") as reader:
        at = loaded(reader)
    assert len(at) == 100
    assert all(one < later for one, later in pairwise(at))
    assert at[0] == START


def test_loaded_at_does_not_go_back_in_a_later_process_or_after_all_was_pruned(open_writer, url):
    open_writer(lambda: START).write(events(20), [])
    with open_reader(url, "store") as reader:
        last = loaded(reader)[-1]
        assert prune_all(open_writer(), times.LATEST) == 20
        assert loaded(reader) == []
        # A tap whose bookmark it is, must not take the store for another one.
        assert reader.high_water() == last
        open_writer(lambda: START - WEEK).write(events(20, seed=3), [])
        assert loaded(reader)[0] > last


# Dead letters that are read after all


def test_a_resolved_letter_becomes_events_at_the_end(writer, reader):
    writer.write(events(5), letters(3))
    before = reader.high_water()
    kept = reader.dead_letters(0, 10)
    [mended] = events(1, seed=9)

    assert writer.resolve(kept[1].number, [mended]) == 1

    assert [call["messageId"] for call in read(reader, before)] == [mended.id]
    assert reader.dead_letters(0, 10) == [kept[0], kept[2]]
    assert counted(reader) == scan(reader)


def test_a_letter_is_resolved_once(writer, reader):
    writer.write([], letters(1))
    [kept] = reader.dead_letters(0, 10)
    assert writer.resolve(kept.number, events(2)) == 2

    assert writer.resolve(kept.number, events(2, seed=9)) == 0
    assert len(ids(reader)) == 2


def test_a_letter_may_hold_nothing_new(writer, reader):
    writer.write(events(2), letters(2))
    one, other = reader.dead_letters(0, 10)

    assert writer.resolve(one.number, events(2)) == 0
    assert writer.resolve(other.number, []) == 0
    assert reader.dead_letters(0, 10) == []
    assert len(ids(reader)) == 2


def test_the_number_of_a_letter_is_not_used_again(writer, reader):
    writer.write([], letters(2))
    numbers = [kept.number for kept in reader.dead_letters(0, 10)]
    for number in numbers:
        writer.resolve(number, [])
    writer.write([], letters(1))

    assert reader.dead_letters(0, 10)[0].number > max(numbers)


def test_letters_are_discarded_all_or_none(writer, reader):
    writer.write(events(2), letters(4))
    kept = reader.dead_letters(0, 10)
    one, two, three, four = (each.number for each in kept)

    assert writer.discard([three, 998, one, 997, 998]) == [997, 998]
    assert reader.dead_letters(0, 10) == kept
    assert writer.discard([three, one, three]) == []
    assert [each.number for each in reader.dead_letters(0, 10)] == [two, four]
    assert writer.discard([one, two]) == [one]
    assert (reader.summary().dead_letters, reader.summary().letters_deleted) == (2, 2)
    assert len(ids(reader)) == 2

    writer.write([], letters(1))  # what was deleted may come again
    assert reader.dead_letters(four, 10)[0].letter == kept[0].letter


def test_letters_are_grouped_by_their_reasons(writer, reader):
    reasons = [
        ("vero", "not JSON", 3),
        ("import", "a: b/events.ndjson: line 7: not JSON", 2),
        ("vero", "a fault in the mapping: KeyError", 4),
        ("import", "events.ndjson: line 7: not JSON", 1),
        ("import", "events.ndjson: line 9: a fault in the mapping: KeyError", 1),
        ("import", "no place", 1),
        ("vero", "long " * 2_000, 1),
    ]
    some = [
        DeadLetter(times.now() - moment, source, reason, b"%d of %d" % (number, index))
        for index, (source, reason, several) in enumerate(reasons)
        for number, moment in enumerate([5, 1, 3, 2][:several])
    ]
    writer.write([], some)
    kept = reader.dead_letters(0, 100)

    groups = reader.letter_groups()

    names = ("not JSON", "line 7: not JSON", "a fault in the mapping: KeyError", "no place")
    of_group = {
        names[0]: [*kept[:3], kept[9]],
        names[1]: kept[3:5],  # where the file's name has what ends it
        names[2]: [*kept[5:9], kept[10]],
        names[3]: [kept[11]],
        ("long " * 2_000)[:300]: [kept[12]],
    }
    assert groups == sorted(
        (
            LetterGroup(
                reason,
                len(those),
                those[0].number,
                those[-1].number,
                min(each.letter.received_at for each in those),
                max(each.letter.received_at for each in those),
            )
            for reason, those in of_group.items()
        ),
        key=lambda group: -group.last,
    )
    for reason, those in of_group.items():
        numbers = [each.number for each in those]
        assert [head.number for head in reader.letter_heads(100, reason=reason)] == numbers[::-1]
        assert reader.letter_heads(100, numbers[0], reason) == []


# Exports


def test_what_was_exported_is_known_for_each_archive(writer, reader):
    writer.mark_exported("s3://one", Exported(50, 900))
    for until, before in ((70, 900), (60, 800), (80, 500), (75, 500), (70, 950), (90, 200)):
        writer.mark_exported("s3://two", Exported(until, before))

    two = [Exported(70, 950), Exported(80, 500), Exported(90, 200)]
    assert reader.exports() == {"s3://one": [Exported(50, 900)], "s3://two": two}
    writer.mark_exported("s3://two", Exported(90, 950))
    assert reader.exports()["s3://two"] == [Exported(90, 950)]


def test_one_plan_of_an_export_stands_until_it_is_done(writer, reader):
    one, other = Exported(50, 900), Exported(60, 800)
    assert writer.plan_export("s3://a", one) == Exports([], one)
    assert writer.plan_export("s3://a", other) == Exports([], one)
    assert writer.plan_export("s3://b", other) == Exports([], other)
    assert reader.exports() == {}
    writer.mark_exported("s3://a", Exported(10, 100))
    assert writer.plan_export("s3://a", other) == Exports([Exported(10, 100)], one)
    writer.mark_exported("s3://a", one)
    assert writer.plan_export("s3://a", other) == Exports([one], other)


@pytest.mark.parametrize("seed", range(3))
def test_a_span_is_that_of_a_scan(open_writer, url, seed):
    chance = random.Random(seed)
    spread(open_writer, chance)
    with open_reader(url, "store") as reader:
        found = times_of(reader)
        for _ in range(30):
            since, before, after, until = (
                chance.choice([START + chance.randrange(10 * WEEK), *chance.choice(found)])
                for _ in range(4)
            )
            within = [
                (loaded_at, received_at)
                for loaded_at, received_at in found
                if since <= received_at < before and after < loaded_at <= until
            ]
            ends = [f(each) for each in zip(*within, strict=True) for f in (min, max)]
            expected = Span(*ends) if within else None
            assert reader.span(since, before, after, until) == expected


@pytest.mark.parametrize("seed", range(20))
def test_what_an_archive_lacks_and_what_it_has_is_everything(seed):
    """Whatever exports there were: no event is left out, and none comes twice."""
    chance = random.Random(seed)
    everything = [(chance.randrange(1, 40), chance.randrange(40)) for _ in range(200)]
    written: list[Exported] = []
    has: list[tuple[int, int]] = []
    until = 0
    for _ in range(8):
        until = chance.randint(until, 40)
        wanted = Exported(until, chance.randrange(41))
        for part in missing(written, wanted):
            has += [
                (loaded_at, received_at)
                for loaded_at, received_at in everything
                if part.after < loaded_at <= part.until and part.since <= received_at < part.before
            ]
        written = merged([*written, wanted])
        assert sorted(has) == sorted(
            (loaded_at, received_at)
            for loaded_at, received_at in everything
            if any(loaded_at <= each.until and received_at < each.before for each in written)
        )


# Pruning


def spread(open_writer: Open, chance: random.Random, groups: int = 30) -> None:
    """Fill a store with groups over ten weeks."""
    now = START
    writer = open_writer(lambda: now)
    moments = sorted(START + chance.randrange(10 * WEEK) for _ in range(groups))

    def received_at() -> int:
        """Mostly just now, or long ago, or by a clock that was wrong."""
        moments = [now, now - 3, now - 3 * WEEK, now + 2 * WEEK]
        return chance.choices(moments, (20, 20, 1, 1))[0]

    for seed, now in enumerate(moments):  # noqa: B007
        writer.write(events(chance.randint(1, 40), seed, received_at), [])


def times_of(reader: Reader) -> list[tuple[int, int]]:
    return [
        (times.from_text(call["loadedAt"]), times.from_text(call["receivedAt"]))
        for call in read(reader)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_pruning_deletes_what_lies_before_and_nothing_else(open_writer, url, seed):
    chance = random.Random(seed)
    spread(open_writer, chance)
    writer = open_writer()
    with open_reader(url, "store") as reader:
        for _ in range(4):
            at = times_of(reader)
            before = chance.choice([at[0][1], chance.randrange(START, START + 10 * WEEK)])
            until = chance.choice([chance.choice(at)[0], times.LATEST])
            kept = [
                call
                for call, (loaded_at, received_at) in zip(read(reader), at, strict=True)
                if received_at >= before or loaded_at > until
            ]

            assert prune_all(writer, before, until) == len(at) - len(kept)

            assert read(reader) == kept
            assert counted(reader) == scan(reader)
            assert writer.prune(before, until) == 0
        prune_all(writer, times.LATEST)
        assert read(reader) == []
        assert counted(reader) == {}


def test_pruned_events_may_come_again(open_writer, url):
    some = events(30)
    open_writer(lambda: START).write(some, [])
    open_writer(lambda: START + 3 * WEEK).write(events(10, seed=9), [])
    writer = open_writer()
    assert prune_all(writer, times.LATEST, START + 2 * WEEK) == 30

    assert writer.write(some, []) == 30
    with open_reader(url, "store") as reader:
        assert sorted(ids(reader)) == sorted(event.id for event in [*some, *events(10, seed=9)])


def test_pruning_leaves_dead_letters_and_exports(writer, reader):
    writer.write(events(30), letters(3))
    writer.mark_exported("s3://one", Exported(50, 60))
    prune_all(writer, times.LATEST)

    assert reader.summary().dead_letters == 3
    assert reader.exports() == {"s3://one": [Exported(50, 60)]}


def test_a_store_is_written_while_it_is_pruned(open_writer, url):
    writer, pruner = open_writer(), open_writer()
    with open_reader(url, "store") as reader:
        for seed in range(10):
            writer.write(events(100, seed), [])
            middle = loaded(reader)[len(loaded(reader)) // 2]
            pruner.prune(times.LATEST, middle)
            assert writer.write(events(20, seed + 100), []) == 20
            assert counted(reader) == scan(reader)


def test_what_was_refused_adds_up(writer, reader):
    assert reader.refused() == []
    writer.add_refused([Refused("wrong_secret", 2, 50), Refused("too_large", 1, 60)])
    writer.add_refused([Refused("wrong_secret", 3, 40)])
    assert reader.refused() == [Refused("too_large", 1, 60), Refused("wrong_secret", 5, 50)]


def test_a_whole_store_is_read_to_its_end(writer, reader):
    writer.write(events(30), letters(3))
    counted = []
    reader.check_all(counted.append)
    assert sum(counted) == 30
    assert not reader.nearly_full()
