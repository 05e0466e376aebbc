"""Readers that follow a shared store while collectors write it."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

import requests

from tap_vero_segment import times
from tap_vero_segment.stores.base import StoreBusyError
from tap_vero_segment.stores.postgres.reader import PostgresReader
from tests.support.collector import READ_TOKEN
from tests.support.stored import every_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from tests.support.collector import Collector

    Read = Callable[[int, int], list[bytes]]
    """Returns the lines after a cursor, at most so many."""

MOST_WAIT = 0.05
"""Seconds between two polls, at most."""


class Seen(NamedTuple):
    """An event as a reader got it."""

    loaded_at: str
    id: str
    user: str


class Follower(threading.Thread):
    """Polls at random intervals for what is after the last event it got, as taps do.

    As a context manager it reads on until nothing more is there; what it met then comes out.

    Attributes:
        seen: What it got, in that order.
        busy: How often it was told that trying again helps.
    """

    def __init__(self, read: Read, chance: Random) -> None:
        super().__init__(daemon=True)
        self._read = read
        self._chance = chance
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self.seen: list[Seen] = []
        self.busy = 0

    def run(self) -> None:
        try:
            ending = False
            while self._poll() or not ending:
                ending = self._ending.wait(self._chance.uniform(0, MOST_WAIT))
        except BaseException as error:  # noqa: BLE001  # told by the thread that waits for this one
            self._failure = error

    def _poll(self) -> bool:
        cursor = times.from_text(self.seen[-1].loaded_at) if self.seen else 0
        try:
            lines = self._read(cursor, self._chance.choice([100, 1_000, 10_000]))
        except StoreBusyError:
            if self._ending.is_set():
                raise
            self.busy += 1
            return True
        for line in lines:
            call = json.loads(line)
            self.seen.append(Seen(call["loadedAt"], call["messageId"], call["userId"]))
        return bool(lines)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self.join(timeout=60)
        assert not self.is_alive()
        if self._failure is not None:
            raise self._failure


@contextmanager
def by_store(url: str, chance: Random) -> Iterator[Read]:
    """Read the database, now up to a high-water mark as the tap does, now as far as it goes."""

    def read(after: int, limit: int) -> list[bytes]:
        bounded = chance.random() < 0.5
        mark = reader.high_water() if bounded else None
        return [] if bounded and mark is None else reader.lines(after, mark, limit)

    with PostgresReader(url, "store") as reader:
        yield read


@contextmanager
def by_http(collectors: Sequence[Collector], chance: Random) -> Iterator[Read]:
    """Read through the read API, each time of another collector."""
    headers = {"Authorization": f"Bearer {READ_TOKEN}"}

    def read(after: int, limit: int) -> list[bytes]:
        parameters = {"limit": str(limit)} | ({"after": times.to_text(after)} if after else {})
        url = f"{chance.choice(collectors).url}/v1/events"
        response = session.get(url, params=parameters, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        return response.content.splitlines()

    with requests.Session() as session:
        yield read


def everything(url: str) -> list[Seen]:
    """Return all that a store holds."""
    with PostgresReader(url, "store") as reader:
        calls = map(json.loads, every_line(reader))
        return [Seen(call["loadedAt"], call["messageId"], call["userId"]) for call in calls]
