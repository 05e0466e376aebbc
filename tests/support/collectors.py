"""Several collectors on one database, and load on all of them."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.collector import Collector
from tests.support.load import Load
from tests.support.payloads import documented

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path
    from random import Random


@contextmanager
def running_collectors(count: int, folder: Path, database: str) -> Iterator[list[Collector]]:
    """Start collectors on one database, all at the same time."""
    collectors = []
    for number in range(count):
        home = folder / f"collector-{number}"
        home.mkdir(exist_ok=True)
        collectors.append(Collector(home, store_url=database))
    with ExitStack() as stack:
        for collector in collectors:
            stack.push(collector)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(Collector.start, collectors))
        yield collectors


class Payloads:
    """Payloads that go on until they are stopped, some of them again and again.

    Args:
        chance: Which ones are repeated.
        repeated: The share of payloads that were posted before, perhaps to another collector.
        numbers: What tells the others apart.
    """

    def __init__(
        self, chance: Random, repeated: float = 0, numbers: Iterator[int] | None = None
    ) -> None:
        self._chance = chance
        self._repeated = repeated
        self._numbers = numbers or itertools.count()
        self._last = 0
        self.stopped = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while not self.stopped:
            if self._chance.random() < self._repeated:
                # Not long ago, so that the two may be on their way at the same time.
                number = self._chance.randint(max(0, self._last - 200), self._last)
            else:
                self._last = number = next(self._numbers)
            yield documented() | {"user": {"id": number}}

    def stop(self) -> None:
        self.stopped = True


@asynccontextmanager
async def under_load(
    collectors: Sequence[Collector], payloads: Payloads, connections: int = 8
) -> AsyncIterator[list[Load]]:
    """Post to all of them as fast as they answer; at the end, wait for the last answers."""
    loads = [Load(collector.url, iter(payloads)) for collector in collectors]
    async with asyncio.TaskGroup() as tasks:
        for load in loads:
            tasks.create_task(load.run(connections))
        try:
            yield loads
        finally:
            payloads.stop()


async def acknowledge_more(loads: Sequence[Load], count: int) -> None:
    """Wait until so many more are acknowledged, by all of them together."""
    wanted = sum(len(load.acknowledged) for load in loads) + count
    async with asyncio.timeout(60):
        while sum(len(load.acknowledged) for load in loads) < wanted:  # noqa: ASYNC110  # as in Load
            await asyncio.sleep(0.001)


def users(loads: Sequence[Load]) -> set[str]:
    """Return the users of what was acknowledged: each payload has one of its own."""
    return {str(payload["user"]["id"]) for load in loads for payload in load.acknowledged}


def statuses(loads: Sequence[Load]) -> list[int]:
    """Return the statuses of what was refused."""
    return [status for load in loads for status, _ in load.refused]
