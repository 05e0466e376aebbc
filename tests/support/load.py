"""Webhooks over many connections at once, as a busy sender posts them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.support.collector import WEBHOOK_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@dataclass
class Load:
    """Posts payloads over kept-alive connections, each as fast as it is answered.

    A connection ends when the payloads do, or when the collector closes it; the payload that was
    on its way then is ``unanswered``.
    """

    url: str
    payloads: Iterator[dict[str, Any]]
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    refused: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    unanswered: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, connections: int = 32) -> None:
        await asyncio.gather(*(self._connection() for _ in range(connections)))

    async def until_acknowledged(self, count: int) -> None:
        """Wait until so many are acknowledged."""
        async with asyncio.timeout(60):
            while len(self.acknowledged) < count:  # noqa: ASYNC110  # the connections do not tell
                await asyncio.sleep(0.001)

    async def _connection(self) -> None:
        address = urlsplit(self.url)
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            return
        waiting: list[dict[str, Any]] = []
        try:
            for payload in self.payloads:
                waiting = [payload]
                status = await _post(reader, writer, json.dumps(payload).encode())
                waiting = []
                if status == 200:
                    self.acknowledged.append(payload)
                else:
                    self.refused.append((status, payload))
        except (OSError, asyncio.IncompleteReadError):
            self.unanswered += waiting
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:
    head = f"POST /vero/{WEBHOOK_TOKEN} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + b"\r\n" + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(answer)
    assert length, answer
    await reader.readexactly(int(length[1]))
    return int(answer[9:12])
