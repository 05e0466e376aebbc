"""Equal content without a time of its own: the same event within ten minutes, another one later."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tests.stores.test_any_store import ids, read

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Event, Reader, Writer

SLOT = times.from_text("2026-11-23T09:20:00Z")
MINUTE = 60 * times.SECOND


def resubscribed(received_at: int, user: int = 1) -> Event:
    body = json.dumps({"type": "resubscribed", "user": {"id": user}}).encode()
    return read_vero(body, received_at)


def letter(received_at: int, body: bytes = b"nonsense") -> DeadLetter:
    return DeadLetter(received_at, "vero", "not JSON", body)


def receipts(reader: Reader) -> list[tuple[str, int]]:
    """The users and times of receipt of all events."""
    return [(call["userId"], times.from_text(call["receivedAt"])) for call in read(reader)]


def letter_receipts(reader: Reader) -> list[int]:
    return [kept.letter.received_at for kept in reader.dead_letters(0, 10_000)]


@pytest.mark.parametrize("first", [SLOT, SLOT + 1, SLOT + 5 * MINUTE, SLOT + 10 * MINUTE - 1])
def test_ten_minutes_are_exact_wherever_they_begin(writer, reader, first):
    end = first + 10 * MINUTE
    assert writer.write([resubscribed(first)], [letter(first)]) == 1
    for again in (first, first + 1, first + 3 * times.SECOND, end - 1, end, first - 10 * MINUTE):
        assert writer.write([resubscribed(again)], [letter(again)]) == 0
    assert writer.write([resubscribed(end + 1)], [letter(end + 1)]) == 1
    assert writer.write([resubscribed(first - 10 * MINUTE - 1)], []) == 1

    assert letter_receipts(reader) == [first, end + 1]
    assert len(set(ids(reader))) == 3


def test_what_has_a_time_is_the_same_event_whenever_it_comes(writer, reader):
    body = json.dumps({"type": "unsubscribed", "unsubscribed_at": SLOT // times.SECOND}).encode()
    for later in (0, 20 * MINUTE, 100 * 24 * 60 * MINUTE):
        writer.write([read_vero(body, SLOT + later)], [])

    assert len(ids(reader)) == 1


def test_an_equal_body_of_another_input_is_another_dead_letter(writer, reader):
    writer.write([], [letter(SLOT), letter(SLOT)._replace(input="segment")])

    assert reader.summary().dead_letters == 2


@pytest.mark.parametrize("seed", range(3))
def test_random_receipts_come_to_what_a_plain_model_says(writer, reader, seed):
    chance = random.Random(seed)
    expected: list[tuple[str, int]] = []
    expected_letters: list[int] = []
    for _ in range(15):
        group = []
        for _ in range(chance.randint(0, 12)):
            # As in a replay: in no order, near each other and far apart, often on a border.
            at = SLOT + chance.randrange(60) * MINUTE + chance.choice([-1, 0, 0, 1])
            group.append((str(chance.randint(1, 2)), at))
        new = []
        for user, at in group:
            known = [other for name, other in expected + new if name == user]
            if not any(abs(at - other) <= 10 * MINUTE for other in known):
                new.append((user, at))
        for _, at in group:
            if not any(abs(at - other) <= 10 * MINUTE for other in expected_letters):
                expected_letters.append(at)
        some = [resubscribed(at, int(user)) for user, at in group]
        assert writer.write(some, [letter(at) for _, at in group]) == len(new)
        expected += new

    assert receipts(reader) == expected
    assert letter_receipts(reader) == expected_letters
    assert len(set(ids(reader))) == len(expected)


def test_collectors_that_get_the_same_at_once_store_it_once(database):
    border = SLOT + 10 * MINUTE  # beside which the ids differ
    rounds = 20

    def deliver(number: int) -> int:
        with closing(PostgresWriter(database, "store")) as writer:
            return sum(
                writer.write(
                    [resubscribed(border + number - 2 + 30 * MINUTE * place)],
                    [letter(border + number - 2 + 30 * MINUTE * place)],
                )
                for place in range(rounds)
            )

    PostgresWriter(database, "store").close()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(deliver, range(4))) == rounds

    with open_reader(database, "store") as reader:
        assert len(ids(reader)) == reader.summary().dead_letters == rounds


def test_a_letter_s_replay_keeps_to_the_rule(writer: Writer, reader: Reader):
    writer.write([resubscribed(SLOT + 9 * MINUTE)], [letter(SLOT), letter(SLOT + 20 * MINUTE)])
    one, other = reader.dead_letters(0, 10)

    assert writer.resolve(one.number, [resubscribed(SLOT)]) == 0
    assert writer.resolve(other.number, [resubscribed(SLOT + 20 * MINUTE)]) == 1
    assert reader.summary().dead_letters == 0
