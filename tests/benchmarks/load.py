"""Posts webhooks over many connections as fast as they are answered, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from itertools import count

import uvloop

from tests.support.payloads import documented

PAYLOADS = 500


def requests(token: str, seed: int) -> list[tuple[bytes, bytes]]:
    """Requests in two parts, between which a number goes that makes each event another one."""
    chance = random.Random(seed)
    made = []
    for _ in range(PAYLOADS):
        kind = chance.choice(("sent", "delivered", "opened", "clicked", "bounced"))
        payload = documented(kind) | {"message_id": f"{chance.randbytes(12).hex()}@veromail.com"}
        payload["user"] = {"id": "NUMBER", "email": f"{chance.randbytes(4).hex()}@example.com"}
        head, tail = json.dumps(payload).split("NUMBER")
        size = len(head) + len(tail) + 20
        start = (
            f"POST /vero/{token} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            f"Content-Length: {size}\r\n\r\n"
        )
        made.append((f"{start}{head}".encode(), tail.encode()))
    return made


class Client(asyncio.Protocol):
    """One connection, which posts again as soon as it is answered."""

    def __init__(self, templates, numbers, end, latencies, refused) -> None:
        self.templates = templates
        self.numbers = numbers
        self.end = end
        self.latencies = latencies
        self.refused = refused
        self.done = asyncio.get_running_loop().create_future()
        self.held = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.post()

    def post(self) -> None:
        self.started = time.perf_counter()
        if self.started > self.end:
            self.transport.close()
            return
        number = next(self.numbers)
        head, tail = self.templates[number % PAYLOADS]
        self.transport.write(b"%b%020d%b" % (head, number, tail))

    def data_received(self, data) -> None:
        self.held += data
        if not self.held.endswith(b"}"):
            return
        (self.latencies if self.held.startswith(b"HTTP/1.1 200") else self.refused).append(
            time.perf_counter() - self.started
        )
        self.held = b""
        self.post()

    def connection_lost(self, error) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def main(port: int, token: str, connections: int, seconds: float, seed: int) -> None:
    templates = requests(token, seed)
    # Numbers of this run only, so that no event is a duplicate of an earlier run's.
    numbers = count(time.time_ns() // 1_000)
    latencies: list[float] = []
    refused: list[float] = []
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        Client(templates, numbers, started + seconds, latencies, refused)
        for _ in range(connections)
    ]
    await asyncio.gather(
        *(loop.create_connection(lambda one=one: one, "127.0.0.1", port) for one in clients)
    )
    await asyncio.gather(*(client.done for client in clients))
    taken = time.perf_counter() - started
    latencies.sort()
    figures = {
        "seconds": taken,
        "answered": len(latencies),
        "refused": len(refused),
        "p50": latencies[len(latencies) // 2],
        "p99": latencies[len(latencies) * 99 // 100],
    }
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    port, token, connections, seconds, seed = sys.argv[1:]
    uvloop.run(main(int(port), token, int(connections), float(seconds), int(seed)))
