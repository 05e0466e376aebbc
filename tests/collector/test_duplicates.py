from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.support.collector import Collector
from tests.support.events import read_events, status
from tests.support.load import Load
from tests.support.payloads import many
from tests.support.rounds import by_rounds, rounds

EVENTS = 1_000
TIMES = rounds(100)


@by_rounds
def test_a_storm_of_duplicates_is_stored_once(tmp_path):
    """The same events from 32 connections at once, each many times, in no order."""
    payloads = many(EVENTS)
    storm = payloads * TIMES
    random.Random(5).shuffle(storm)

    with Collector(tmp_path) as collector:
        load = Load(collector.url, iter(storm))
        asyncio.run(load.run(connections=32))
        events = read_events(collector)
        figures = status(collector)

    assert load.refused == []
    assert load.unanswered == []
    answered = Counter(payload["user"]["id"] for payload in load.acknowledged)
    assert answered == Counter(dict.fromkeys(range(EVENTS), TIMES))
    assert sorted(int(event["userId"]) for event in events) == list(range(EVENTS))
    assert len({event["messageId"] for event in events}) == EVENTS
    assert figures["events"] == EVENTS
    assert figures["quarantined"] == 0
