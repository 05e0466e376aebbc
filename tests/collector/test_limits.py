from __future__ import annotations

import contextlib
import json
import re
import resource
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment.collector.connection_limits import IDLE_SECONDS, unmapped
from tap_vero_segment.collector.request import BodyBudget
from tap_vero_segment.collector.responses import HTTPError
from tap_vero_segment.limits import MAX_BODY, MAX_HEAD, MAX_PIPELINE
from tests.support.collector import READ_TOKEN, SECRETS, WRITE_KEY, Collector, wait_until
from tests.support.events import read_events
from tests.support.leaks import assert_tells_nothing
from tests.support.locked import locked
from tests.support.payloads import documented
from tests.support.raw import connect, is_closed, read_answer, read_answers, request
from tests.support.resident import resident

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 0.6
BODY = json.dumps(documented()).encode()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that waits a second for its clients."""
    settings = SECRETS | {"VERO_COLLECTOR_CLIENT_TIMEOUT": str(TIMEOUT)}
    with Collector(tmp_path_factory.mktemp("collector"), env=settings) as running:
        yield running
        assert_tells_nothing(running.log())


def is_serving(collector: Collector) -> bool:
    return collector.post(documented()).status_code == 200


def is_serving_if_let_in(collector: Collector) -> bool:
    try:
        return is_serving(collector)
    except requests.ConnectionError:
        return False


# The head


@pytest.mark.parametrize(
    "head",
    [
        request(b"", "X-Long: " + "x" * MAX_HEAD),
        request(b"", *(f"X-{number}: {'x' * 100}" for number in range(200))),
        request(b"", path="/" + "x" * MAX_HEAD),
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * MAX_HEAD,
    ],
    ids=["header", "headers", "path", "trailer"],
)
def test_a_long_head_is_refused(strict, head):
    with connect(strict) as client:
        client.sendall(head)

        answers = read_answers(client, 2)

    assert [answer.status for answer in answers] == [431]
    assert is_serving(strict)


def test_a_head_without_end_takes_no_memory(strict):
    before = resident(strict.process.pid)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(strict)) for _ in range(100)]
        for client in clients:
            client.settimeout(TIMEOUT)
            with contextlib.suppress(OSError):
                client.sendall(b"POST / HTTP/1.1\r\nX: " + b"x" * MIB)
        grown = resident(strict.process.pid) - before

    assert grown < 20 * MIB
    assert is_serving(strict)


def test_a_head_within_the_limit_will_do(strict):
    with connect(strict) as client:
        client.sendall(request(BODY, "X-Long: " + "x" * (MAX_HEAD - 200)))

        assert read_answer(client).status == 200


def test_what_is_no_http_is_refused(strict):
    with connect(strict) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")

        answer = read_answer(client)

        assert answer.status == 400
        assert answer.headers["Connection"] == "close"
        assert is_closed(client)


# Time


@pytest.mark.parametrize(
    "begun",
    [b"P", request(BODY)[:40], request(BODY)[: -len(BODY)], request(BODY)[:-1]],
    ids=["byte", "head", "no body", "body"],
)
def test_a_request_must_arrive_in_time(strict, begun):
    with connect(strict) as client:
        started = time.monotonic()
        client.sendall(begun)

        answer = read_answer(client)

        assert time.monotonic() - started >= TIMEOUT
        assert answer.status == 408
        assert answer.headers["Connection"] == "close"
        assert is_closed(client)
    assert "timeout" in strict.log()


def test_a_request_that_trickles_in_must_arrive_in_time_too(strict):
    with connect(strict) as client:
        client.settimeout(TIMEOUT / 20)
        deadline = time.monotonic() + 10
        received = b""
        for byte in request(BODY):
            client.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                received = client.recv(100)
                break
            assert time.monotonic() < deadline

    assert received.startswith(b"HTTP/1.1 408 ")


def test_a_connection_must_be_used_in_time(strict):
    with connect(strict) as client:
        assert is_closed(client)


@pytest.mark.parametrize("sent", [b"\r\n", request(BODY) + b"\r\n"], ids=["new", "used"])
def test_line_ends_do_not_keep_a_connection(strict, sent):
    with connect(strict) as client:
        client.sendall(sent)
        read_answers(client, sent.count(b"HTTP"))
        client.sendall(b"\r\n")

        with contextlib.suppress(AssertionError):
            assert read_answer(client).status == 408
        assert is_closed(client)


def test_a_kept_connection_may_be_idle_for_longer(strict):
    with connect(strict) as client:
        client.sendall(request(BODY))
        assert read_answer(client).status == 200
        time.sleep(2 * TIMEOUT)
        client.sendall(request(BODY))

        assert read_answer(client).status == 200


def test_a_client_that_does_not_read_is_cut_off(strict):
    """Its answers pile up in the collector until the connection is cut."""
    asked = request(b"", f"Authorization: Bearer {READ_TOKEN}", method="GET", path="/v1/events")
    long = documented() | {"filler": "x" * 400_000}
    for number in range(20):
        assert strict.post(long | {"user": {"id": number}}).status_code == 200
    before = strict.log().count("response_not_read")
    with connect(strict) as client:
        client.sendall(asked)
        deadline = time.monotonic() + 15
        while strict.log().count("response_not_read") == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert is_serving(strict)


def test_a_client_that_reads_slowly_is_not_cut_off(strict):
    long = documented() | {"filler": "x" * 400_000}
    for number in range(20):
        assert strict.post(long | {"user": {"id": number}}).status_code == 200
    asked = request(b"", f"Authorization: Bearer {READ_TOKEN}", method="GET", path="/v1/events")
    with connect(strict) as client:
        client.sendall(asked)
        started = time.monotonic()
        length, received = 0, b""
        while time.monotonic() - started < 3 * TIMEOUT:
            received += client.recv(200_000)
            time.sleep(TIMEOUT / 10)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        size = len(body)
        while size < length:
            more = client.recv(1_000_000)
            assert more
            size += len(more)


# Numbers


def test_connections_are_limited(tmp_path):
    settings = SECRETS | {"VERO_COLLECTOR_MAX_CONNECTIONS": "8"}
    with Collector(tmp_path, env=settings) as collector, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(collector)) for _ in range(8)]
        for client in clients:
            client.sendall(request(BODY))
            assert read_answer(client).status == 200

        with connect(collector) as further:
            answer = read_answer(further)
        for client in clients:
            client.sendall(request(BODY))
            assert read_answer(client).status == 200
        clients.pop().close()

        assert answer.status == 503
        assert answer.headers["Retry-After"]
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if collector.post(documented()).status_code == 200:
                    break
            assert time.monotonic() < deadline


def test_few_open_files_mean_few_connections(tmp_path):
    class Limited(Collector):
        def command(self, *words: str) -> list[str]:
            return ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *super().command(*words)]

    with Limited(tmp_path) as collector, contextlib.ExitStack() as stack:
        told = re.search(r"limited to 256: (\d+) connections are served", collector.log())
        assert told
        served = int(told[1])
        clients = [stack.enter_context(connect(collector)) for _ in range(3 * served)]

        # Places that were taken a moment ago are not given up: what was sent may not be read yet.
        wait_until(lambda: is_serving_if_let_in(collector))
        assert read_answer(clients[0]).status == 503
        assert is_closed(clients[0])


def test_idle_connections_make_room_for_new_ones(tmp_path):
    settings = SECRETS | {"VERO_COLLECTOR_MAX_CONNECTIONS": "8"}
    with Collector(tmp_path, env=settings) as collector, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(collector)) for _ in range(8)]
        for client in clients:
            client.sendall(request(BODY))
            assert read_answer(client).status == 200
        time.sleep(IDLE_SECONDS * 1.2)

        assert collector.post(documented()).status_code == 200
        assert all(is_closed(client) for client in clients)


def test_many_requests_ahead_of_their_answers_are_answered_in_order(strict):
    payloads = [documented() | {"message_id": str(number)} for number in range(MAX_PIPELINE)]
    bodies = [json.dumps(payload).encode() for payload in payloads]
    sent = [request(body) if number % 2 else request(b"[]") for number, body in enumerate(bodies)]
    with connect(strict) as client:
        client.sendall(b"".join(sent))
        answers = read_answers(client, len(sent))

    assert [answer.status for answer in answers] == [400, 200] * (MAX_PIPELINE // 2)


def test_what_is_sent_ahead_of_many_responses_takes_no_memory(collector):
    """A request of a few bytes costs kilobytes while it waits for its turn; read in time, it is
    answered."""
    before = resident(collector.process.pid)
    many = 14_000
    ahead = request(BODY) + b"GET /health HTTP/1.1\r\n\r\n" * many
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(collector.store))
        clients = [stack.enter_context(connect(collector)) for _ in range(30)]
        for client in clients:
            client.settimeout(0.5)
            with contextlib.suppress(OSError):
                client.sendall(ahead)
        grown = resident(collector.process.pid) - before

    assert grown < 40 * MIB
    assert is_serving(collector)


@pytest.mark.parametrize("more", [200, 2_000])
def test_all_that_is_sent_ahead_is_answered(strict, more):
    with connect(strict) as client:
        client.sendall(request(BODY) + b"GET /health HTTP/1.1\r\n\r\n" * more + request(b"[]"))
        answers = read_answers(client, more + 2)

    assert [answer.status for answer in answers] == [200] * (more + 1) + [400]


@pytest.mark.parametrize(
    ("behind", "status"),
    [(b"no HTTP\r\n\r\n", 400), (request(b"", "X: " + "x" * MAX_HEAD), 431), (b"POST / H", 408)],
    ids=["no HTTP", "head", "half"],
)
def test_what_is_before_a_fault_is_answered(strict, behind, status):
    with connect(strict) as client:
        client.sendall(request(BODY) * 3 + behind)

        answers = read_answers(client, 5)

    assert [answer.status for answer in answers] == [200, 200, 200, status]


def test_clients_that_vanish_leave_no_fault_in_the_log(strict):
    """Each with requests ahead of their answers, of which one is at work."""
    for number in range(100):
        with connect(strict) as client:
            client.sendall((request(BODY) * 4)[: -(number % 3)])
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert is_serving(strict)
    assert "Exception" not in strict.log()
    assert_tells_nothing(strict.log())


def test_half_received_bodies_take_no_more_than_their_room(tmp_path):
    """Of 300 bodies of half a megabyte, all but their ends have come."""
    begun = request(b"x" * (MAX_BODY - 1_000))[:-1]
    with Collector(tmp_path) as collector, contextlib.ExitStack() as stack:
        before = resident(collector.process.pid)
        clients = [stack.enter_context(connect(collector)) for _ in range(300)]
        for client in clients:
            client.sendall(begun)
        deadline = time.monotonic() + 30
        while len(refused := select.select(clients, [], [], 0)[0]) < 170:
            assert time.monotonic() < deadline
        grown = resident(collector.process.pid) - before

        assert is_serving(collector)
        for client in clients:
            client.sendall(b"x")
        answers = [read_answer(client) for client in clients]
        assert is_serving(collector)

    statuses = [answer.status for answer in answers]
    assert set(statuses) == {400, 503}
    assert 100 <= statuses.count(400) <= 130
    assert len(refused) <= 200
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status == 503)
    assert grown < 130 * MIB  # all of the bodies would be 150


class Holder:
    """A request, as far as a budget knows it."""

    given_up = False

    def give_up(self) -> None:
        self.given_up = True


def test_a_body_budget_is_given_back():
    budget = BodyBudget(100)
    first, second = Holder(), Holder()
    budget.take(first, 60)
    with pytest.raises(HTTPError) as refused:
        budget.take(second, 60)
    budget.give_back(first)
    budget.take(second, 60)
    budget.take(second, 40)

    assert (refused.value.status, refused.value.reason) == (503, "overloaded")
    assert not first.given_up


def test_a_body_budget_for_strangers_gives_up_the_oldest():
    budget = BodyBudget(100, evict=True)
    first, second, third = Holder(), Holder(), Holder()
    budget.take(first, 60)
    budget.take(second, 40)
    budget.take(third, 50)
    with pytest.raises(HTTPError):  # the oldest itself makes none give way
        budget.take(second, 60)

    assert [holder.given_up for holder in (first, second, third)] == [True, False, False]


# Upgrade


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "headers",
    [
        ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ("Connection: upgrade", "Upgrade: websocket"),
    ],
    ids=["h2c", "websocket"],
)
def test_a_request_to_upgrade_is_served_as_any_other(collector, headers, chunked):
    sent = request(BODY, *headers)
    if chunked:
        length = b"Content-Length: %d" % len(BODY)
        sent = sent.replace(length, b"Transfer-Encoding: chunked").removesuffix(BODY)
        sent += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    with connect(collector) as client:
        for part in (sent, sent[:50], sent[50:200], sent[200:]):
            client.sendall(part)
            time.sleep(0.01)
        answers = read_answers(client, 2)

    assert [answer.status for answer in answers] == [200, 200]
    assert [event["event"] for event in read_events(collector)] == ["Email Sent"]


def test_a_tunnel_is_refused(collector):
    with connect(collector) as client:
        client.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")

        assert read_answer(client).status == 405


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
        ("::nonsense", "::nonsense"),
    ],
)
def test_an_address_of_ipv4_is_one_however_it_is_written(given, meant):
    assert unmapped(given) == meant


def test_secrets_are_asked_before_a_body_is_read(tmp_path):
    """Who has no secret takes no room."""
    with Collector(tmp_path) as collector, connect(collector) as client:
        for path in ("/vero/wrong", "/v1/track"):
            head = request(b"x" * 1_000, "Authorization: Basic d3Jvbmc6", path=path)[:-1_000]
            client.sendall(head)

            assert read_answer(client).status in {401, 404}
            client.sendall(b"x" * 1_000)
        assert WRITE_KEY not in collector.log()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_connections_are_taken_again_when_there_are_descriptors(tmp_path):
    with Collector(tmp_path) as collector:
        assert is_serving(collector)
        pid = collector.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, before[1]))  # it has more than that open
        with connect(collector) as client:
            client.sendall(request(BODY))
            wait_until(lambda: "no connection can be taken: Too many open files" in collector.log())
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

            assert read_answer(client).status == 200
        assert collector.log().count("no connection can be taken") <= 5  # once a second
