from __future__ import annotations

import asyncio
import random
from itertools import chain, count, pairwise

from tests.support.collector import Collector
from tests.support.events import read_events, status
from tests.support.leaks import assert_tells_nothing
from tests.support.load import Load
from tests.support.payloads import documented
from tests.support.rounds import by_rounds, rounds

ROUNDS = rounds(20)


@by_rounds
def test_no_acknowledged_event_is_lost_to_a_crash(tmp_path):
    """Kill it under load, start it again on the same store, and see that all it has said holds."""
    chance = random.Random(20)
    fresh = (documented() | {"user": {"id": number}} for number in count())
    acknowledged: set[str] = set()
    unanswered: list[dict] = []
    events: list[dict] = []

    with Collector(tmp_path) as collector:

        def read_on() -> None:
            events.extend(read_events(collector, events[-1]["loadedAt"] if events else None))
            assert acknowledged - {event["userId"] for event in events} == set()

        async def crash(load: Load) -> None:
            running = asyncio.create_task(load.run(connections=32))
            await load.until_acknowledged(chance.randint(50, 500))
            collector.process.kill()
            await running

        for _ in range(ROUNDS):
            # As Vero may: what was not answered is sent again, whether it was stored or not.
            load = Load(collector.url, chain(unanswered, fresh))
            asyncio.run(crash(load))
            collector.kill()
            assert load.refused == []
            acknowledged |= {str(payload["user"]["id"]) for payload in load.acknowledged}
            unanswered = load.unanswered
            collector.start()
            read_on()

        assert read_events(collector) == events
    assert len(acknowledged) >= 50 * ROUNDS
    assert len({event["messageId"] for event in events}) == len(events)
    assert len({event["userId"] for event in events}) == len(events)
    assert all(one["loadedAt"] < next_one["loadedAt"] for one, next_one in pairwise(events))
    assert status(collector)["events"] == len(events)
    assert_tells_nothing(collector.log())
