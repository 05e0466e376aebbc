"""What strangers do at once, and what those notice of it who have a secret."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import requests

from tap_vero_segment.limits import MAX_BODY
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, WRITE_KEY, Collector
from tests.support.payloads import documented
from tests.support.raw import connect, read_answer, request
from tests.support.resident import resident
from tests.support.rounds import by_rounds, rounds

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

MIB = 1024 * 1024
HEALTH_SECONDS = 0.25
"""How soon a collector says that it is alive, whatever strangers do."""
ROUNDS = rounds(9, least=3)
TRACK = "/v1/track"
CALL = {"event": "Email Sent", "userId": "7", "messageId": "m", "properties": {}}


def opened(stack: contextlib.ExitStack, collector: Collector, count: int, sent: bytes) -> None:
    """Send something over so many connections, which stay open."""
    for _ in range(count):
        with contextlib.suppress(OSError):
            stack.enter_context(connect(collector)).sendall(sent)


def half_sent_heads(stack: contextlib.ExitStack, collector: Collector) -> None:
    opened(stack, collector, 1_300, f"POST /vero/{WEBHOOK_TOKEN} HTTP/1.1\r\nX-".encode())


def silent(stack: contextlib.ExitStack, collector: Collector) -> None:
    opened(stack, collector, 1_300, b"")


def kept_after_a_response(stack: contextlib.ExitStack, collector: Collector) -> None:
    opened(stack, collector, 1_300, request(method="GET", path="/health"))


def half_sent_bodies(path: str, *headers: str) -> Callable[..., None]:
    """All that there is room for, to the last kilobyte."""

    def attack(stack: contextlib.ExitStack, collector: Collector) -> None:
        for count, size in ((145, 450_000), (300, 8_000), (16, 500), (40, 200)):
            opened(stack, collector, count, request(b" " * size, *headers, path=path)[:-1])
            requests.get(f"{collector.url}/health", timeout=30)

    return attack


def askers(sent: bytes, connections: int) -> Callable[..., None]:
    """Ask over many connections at once, again and again."""

    def ask(clients: list[socket.socket], ended: threading.Event) -> None:
        while not ended.is_set():
            for client in clients:
                client.sendall(sent)
            for client in clients:
                client.recv(65_536)

    def attack(stack: contextlib.ExitStack, collector: Collector) -> None:
        ended = threading.Event()
        clients = [stack.enter_context(connect(collector)) for _ in range(connections)]
        thread = threading.Thread(target=ask, args=(clients, ended))
        stack.callback(thread.join, 30)
        stack.callback(ended.set)
        thread.start()

    return attack


def guess(headers: str = "", path: str = "/login") -> bytes:
    return request(urlencode({"token": "a-guess"}).encode(), *filter(None, [headers]), path=path)


ATTACKS = {
    "half-sent heads": half_sent_heads,
    "silent": silent,
    "kept": kept_after_a_response,
    "half-sent bodies to track": half_sent_bodies(TRACK),
    "half-sent bodies to segment": half_sent_bodies("/segment", "X-Signature: 00"),
    "half-sent bodies to segment, unsigned": half_sent_bodies("/segment"),
    "half-sent bodies to a wrong token": half_sent_bodies("/vero/wrong"),
    "ready": askers(request(method="GET", path="/ready"), 300),
    "metrics": askers(request(method="GET", path="/metrics"), 50),
    "login": askers(guess(), 50),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        yield running


def in_two_pieces(collector: Collector, sent: bytes) -> int:
    with connect(collector) as client:
        client.sendall(sent[:-10])
        # Answered, it has read what came before.
        assert requests.get(f"{collector.url}/health", timeout=30).status_code == 200
        client.sendall(sent[-10:])
        return read_answer(client).status


def basic(user: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:'.encode()).decode()}"


@by_rounds
@pytest.mark.parametrize("name", ATTACKS)
def test_senders_and_monitors_notice_nothing(attacked, name):
    health = []
    statuses = []
    before = resident(attacked.process.pid)
    with contextlib.ExitStack() as stack:
        ATTACKS[name](stack, attacked)
        for number in range(ROUNDS):
            began = time.monotonic()
            assert requests.get(f"{attacked.url}/health", timeout=30).status_code == 200
            health.append(time.monotonic() - began)
            body = json.dumps(documented() | {"message_id": f"{name} {number}"}).encode()
            call = json.dumps(CALL | {"messageId": f"{name} {number}"}).encode()
            keyed = json.dumps(CALL | {"writeKey": WRITE_KEY}).encode()
            statuses += [
                attacked.post(body).status_code,
                in_two_pieces(attacked, request(body)),
                in_two_pieces(attacked, request(call, basic(WRITE_KEY), path=TRACK)),
                in_two_pieces(attacked, request(keyed, path=TRACK)),
            ]
        grown = resident(attacked.process.pid) - before

    assert statuses == [200] * 4 * ROUNDS
    # The least of them: the machine is busy with the attack itself.
    assert min(health) < HEALTH_SECONDS
    assert grown < 90 * MIB


def test_guesses_are_slowed_down_logged_and_counted(tmp_path):
    with Collector(tmp_path) as collector, connect(collector) as client:
        statuses = []
        for _ in range(100):
            client.sendall(guess())
            statuses.append(read_answer(client))
        last = statuses[-1]
        metrics = requests.get(f"{collector.url}/metrics", timeout=30).text
        right = {"token": READ_TOKEN}
        time.sleep(int(last.headers["Retry-After"]))
        login = requests.post(f"{collector.url}/login", right, timeout=30, allow_redirects=False)
        for path, headers in (
            ("/vero/a-guess", ""),
            (TRACK, basic("a-guess")),
            ("/v1/events", "Authorization: Bearer a-guess"),
        ):
            client.sendall(guess(headers, path).replace(b"POST /v1/events", b"GET /v1/events"))
            assert read_answer(client).status in {401, 404}
        assert collector.stop() == 0
        log = collector.log()

    assert {answer.status for answer in statuses} == {401, 429}
    assert 80 <= [answer.status for answer in statuses].count(429) <= 90
    assert "no-store" in last.headers["Cache-Control"]
    assert 'reason="too_many_guesses"' in metrics
    assert login.status_code == 303
    assert "wrong or missing secrets: 1 at /login; from 127.0.0.1" in log
    assert "1 at /vero/" in log
    assert log.count("wrong or missing secrets") == 2
    assert "a-guess" not in log


def test_slow_readers_of_large_pages_take_little_memory(tmp_path):
    """Without a bound, each of sixty would hold a page of its own."""
    asked = request(
        b"", f"Authorization: Bearer {READ_TOKEN}", method="GET", path="/v1/events?limit=16"
    )
    with Collector(tmp_path) as collector, contextlib.ExitStack() as stack:
        for number in range(16):
            long = documented() | {"filler": "x" * (MAX_BODY - 2_000), "message_id": str(number)}
            assert collector.post(long).status_code == 200
        whole = collector.get("/v1/events?limit=16").content
        before = resident(collector.process.pid)
        opened(stack, collector, 60, asked)
        refused = collector.get("/v1/events?limit=16")
        grown = resident(collector.process.pid) - before
        assert collector.post(documented()).status_code == 200

    assert len(whole) > 7 * MIB
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert grown < 150 * MIB
