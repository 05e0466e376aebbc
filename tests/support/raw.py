"""Requests as bytes, for clients that no HTTP library would be."""

from __future__ import annotations

import http.client
import io
import re
import socket
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from tests.support.collector import WEBHOOK_TOKEN

if TYPE_CHECKING:
    from tests.support.collector import Collector

SECONDS = 30
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def connect(collector: Collector, host: str = "") -> socket.socket:
    address = urlsplit(collector.url)
    client = socket.create_connection((host or address.hostname, address.port), timeout=SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def request(
    body: bytes = b"", *headers: str, method: str = "POST", path: str = f"/vero/{WEBHOOK_TOKEN}"
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_answers(client: socket.socket, count: int) -> list[Answer]:
    """Read so many answers; fewer, if the connection is closed before."""
    answers: list[Answer] = []
    received = b""
    while len(answers) < count:
        head, separator, rest = received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if separator and length and len(rest) >= int(length[1]):
            first, _, lines = head.partition(b"\r\n")
            headers = http.client.parse_headers(io.BytesIO(lines + b"\r\n\r\n"))
            answers.append(Answer(int(first[9:12]), headers, rest[: int(length[1])]))
            received = rest[int(length[1]) :]
            continue
        try:
            more = client.recv(65_536)
        except ConnectionResetError:
            break
        if not more:
            break
        received += more
    return answers


def read_answer(client: socket.socket) -> Answer:
    [answer] = read_answers(client, 1)
    return answer


def is_closed(client: socket.socket) -> bool:
    """Wait until the collector closes the connection, having sent nothing more."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
