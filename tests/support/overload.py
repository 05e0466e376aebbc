"""More webhooks than a collector can take, from a process of its own, and how long they waited.

``python -m tests.support.overload`` measures a collector before, during and after an overload.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from tests.support.collector import Collector
from tests.support.payloads import documented
from tests.support.raw import request
from tests.support.resident import resident

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
_PLACE = b"10000000"
RAMP = 0.0005
"""Seconds between the first requests of two clients: they do not all come at once."""
PAUSE = 0.02
"""Seconds before a client that was hung up on comes again: it does not heed Retry-After."""


@dataclass
class Outcome:
    """What became of a load.

    Attributes:
        seconds: How long it lasted.
        acknowledged: The users' numbers whose webhooks were answered with 200.
        refused: How many were answered with 503.
        without_retry_after: How many of those did not say when to come back.
        others: How many were answered with anything else.
        unanswered: How many were not.
        waits: Seconds from sending to the answer, of each that was acknowledged while all
            clients were there; sorted.
    """

    seconds: float
    acknowledged: list[int]
    refused: int
    without_retry_after: int
    others: int
    unanswered: int
    waits: list[float]

    @property
    def rate(self) -> float:
        return len(self.waits) / self.seconds

    def percentile(self, percent: float) -> float:
        return self.waits[min(len(self.waits) - 1, int(len(self.waits) * percent / 100))]

    def __str__(self) -> str:
        return (
            f"{self.rate:,.0f} acknowledged a second (p50 {self.percentile(50) * 1000:.0f} ms, "
            f"p99 {self.percentile(99) * 1000:.0f} ms, most {self.waits[-1] * 1000:.0f} ms), "
            f"{self.refused / self.seconds:,.0f} refused a second"
        )


def overload(url: str, first: int, connections: int, seconds: float) -> Outcome:
    """Load a collector from another process.

    Args:
        url: The collector's.
        first: The first user's number; each webhook is another user's.
        connections: How many clients there are, each of which sends as soon as it is answered.
        seconds: For how long.
    """
    with tempfile.NamedTemporaryFile("r+", suffix=".json") as result:
        arguments = [url, first, connections, seconds, result.name]
        command = [sys.executable, "-m", "tests.support.overload", "--generate"]
        subprocess.run([*command, *map(str, arguments)], check=True, timeout=seconds + 60)
        return Outcome(**json.load(result))


class _Generator:
    def __init__(self, url: str, first: int, connections: int, seconds: float) -> None:
        payload = documented() | {"user": {"id": int(_PLACE), "email": "steve@getvero.com"}}
        self.before, self.after = request(json.dumps(payload).encode()).split(_PLACE)
        self.number = int(_PLACE) + first
        self.address = urlsplit(url)
        self.connections = connections
        self.seconds = seconds
        self.outcome = Outcome(seconds, [], 0, 0, 0, 0, [])
        self.counting = False
        self.ending = False

    async def run(self) -> Outcome:
        clients = []
        for _ in range(self.connections):
            clients.append(asyncio.create_task(self._client()))
            await asyncio.sleep(RAMP)
        self.counting = True
        await asyncio.sleep(self.seconds)
        self.counting = False
        self.ending = True
        await asyncio.wait(clients, timeout=20)
        self.outcome.waits.sort()
        return self.outcome

    async def _client(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.ending:
            ended = loop.create_future()
            try:
                await loop.create_connection(
                    lambda ended=ended: _Client(self, ended),
                    self.address.hostname,
                    self.address.port,
                )
            except OSError:
                await asyncio.sleep(PAUSE)
                continue
            await ended
            await asyncio.sleep(PAUSE)


class _Client(asyncio.Protocol):
    """A connection that sends a webhook as soon as the one before is answered."""

    def __init__(self, generator: _Generator, ended: asyncio.Future[None]) -> None:
        self.generator = generator
        self.ended = ended
        self.number: int | None = None
        self.received = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        generator = self.generator
        self.number = generator.number
        generator.number += 1
        self.sent_at = time.monotonic()
        self.transport.write(generator.before + b"%d" % self.number + generator.after)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(_LENGTH.search(head)[1]):
            return
        self.received = b""
        self.answered(int(head[9:12]), head)

    def answered(self, status: int, head: bytes) -> None:
        outcome = self.generator.outcome
        if status == 200:
            if self.generator.counting:
                outcome.waits.append(time.monotonic() - self.sent_at)
            outcome.acknowledged.append(self.number)
        elif status == 503:
            outcome.refused += self.generator.counting
            outcome.without_retry_after += b"\r\nretry-after: " not in head
        else:
            outcome.others += 1
        self.number = None
        if self.generator.ending or b"\r\nconnection: close" in head:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, _error) -> None:
        self.generator.outcome.unanswered += self.number is not None
        if not self.ended.done():
            self.ended.set_result(None)


def _measure(seconds: float, connections: int, settings: list[str]) -> None:
    from tests.support.collector import SECRETS

    environment = SECRETS | dict(setting.split("=", 1) for setting in settings)
    with (
        tempfile.TemporaryDirectory() as folder,
        Collector(Path(folder), env=environment) as collector,
    ):
        assert collector.process
        for first, (name, clients) in enumerate(
            [("before", 64), ("overload", connections), ("after", 64)]
        ):
            outcome = overload(collector.url, first * 10_000_000, clients, seconds)
            memory = resident(collector.process.pid) / 1024 / 1024
            sys.stdout.write(f"{name}: {clients} clients: {outcome}; {memory:.0f} MB\n")
        lines = [line for line in collector.log().splitlines() if " INFO " not in line]
        sys.stdout.writelines(f"{line}\n" for line in lines[:10])


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generate", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=3_000)
    parser.add_argument("--set", action="append", default=[], help="VERO_COLLECTOR_…=…")
    arguments = parser.parse_args()
    if not arguments.generate:
        _measure(arguments.seconds, arguments.connections, arguments.set)
        return
    url, first, connections, seconds, result = arguments.generate
    generator = _Generator(url, int(first), int(connections), float(seconds))
    outcome = uvloop.run(generator.run())
    Path(result).write_text(json.dumps(vars(outcome)), encoding="utf-8")


if __name__ == "__main__":
    _main()
