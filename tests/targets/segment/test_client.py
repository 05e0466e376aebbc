"""How batches are delivered to a server that misbehaves."""

from __future__ import annotations

import gzip
import itertools
import json
import resource
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.errors import SettingError
from tap_vero_segment.targets.segment import calls as calls_module
from tap_vero_segment.targets.segment import client
from tap_vero_segment.targets.segment.calls import OutgoingCall
from tap_vero_segment.targets.segment.client import TrackingApi
from tests.support import tracking_server as api
from tests.support.tracking_server import WRITE_KEY, TrackingServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF", 0.001)
    monkeypatch.setattr(client, "BACKOFF_MAX", 0.005)
    monkeypatch.setattr(client, "JITTER", 0.001)
    monkeypatch.setattr(client, "TIMEOUT", (5.0, 1.0))


@pytest.fixture
def connect() -> Iterator[Callable[[TrackingServer], TrackingApi]]:
    opened: list[TrackingApi] = []

    def connect(server: TrackingServer, write_key: str = WRITE_KEY) -> TrackingApi:
        opened.append(TrackingApi(f"{server.url}/v1/batch", write_key))
        return opened[-1]

    yield connect
    for tracking_api in opened:
        tracking_api.close()


@pytest.fixture
def tracking_api(connect: Any, server: TrackingServer) -> TrackingApi:
    connected: TrackingApi = connect(server)
    return connected


def some(count: int, start: int = 0) -> list[OutgoingCall]:
    return [
        OutgoingCall(
            f"e{number}",
            json.dumps(
                {"type": "track", "messageId": f"e{number}", "event": "Tested", "userId": "7"}
            ).encode(),
        )
        for number in range(start, start + count)
    ]


def ids(calls: list[OutgoingCall]) -> set[str]:
    return {call.id for call in calls}


def test_calls_arrive_as_they_are_zipped_over_few_connections(
    tracking_api: TrackingApi, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "MAX_CALLS", 10)
    calls = some(400)
    assert tracking_api.deliver(calls[:200]) == []
    assert tracking_api.deliver(calls[200:]) == []
    assert list(map(json.loads, (call.body for call in calls))) == sorted(
        server.calls, key=lambda call: int(call["messageId"][1:])
    )
    assert (tracking_api.accepted, tracking_api.requests) == (400, 40)
    assert {asked.zipped for asked in server.asked} == {True}
    assert len({asked.port for asked in server.asked}) <= client.IN_FLIGHT


def test_several_requests_are_under_way_at_once(
    tracking_api: TrackingApi, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "MAX_CALLS", 1)
    monkeypatch.setattr(client, "TIMEOUT", (5.0, 30.0))
    both = threading.Barrier(2, timeout=20)

    def wait_for_the_other(handler: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait()
        handler.answer(404 if both.broken else handler.store())

    server.fault_of = lambda: wait_for_the_other
    assert tracking_api.deliver(some(2)) == []


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(api.status(408), id="408"),
        pytest.param(api.status(429), id="429"),
        pytest.param(api.status(429, Retry_After="soon"), id="retry-after-nonsense"),
        pytest.param(api.status(500), id="500"),
        pytest.param(api.status(502), id="502"),
        pytest.param(api.status(503), id="503"),
        pytest.param(api.status(504), id="504"),
        pytest.param(api.status(529), id="529"),
        pytest.param(api.reset, id="reset"),
        pytest.param(api.hang, id="time-out"),
    ],
)
def test_what_passes_is_tried_again(
    tracking_api: TrackingApi, server: TrackingServer, fault: Any
) -> None:
    server.faults.extend([fault, fault])
    assert tracking_api.deliver(some(5)) == []
    assert ids(some(5)) == server.accepted.keys()
    assert (len(server.asked), tracking_api.requests, tracking_api.accepted) == (3, 3, 5)


@pytest.mark.parametrize(
    "fault", [api.stored_then_reset, api.stored_then_error, api.stored_then_hang]
)
def test_a_batch_is_sent_again_where_the_server_has_not_said_that_it_has_it(
    tracking_api: TrackingApi, server: TrackingServer, fault: Any
) -> None:
    server.faults.append(fault)
    assert tracking_api.deliver(some(5)) == []
    assert [call["messageId"] for call in server.calls] == [call.id for call in some(5)] * 2
    assert tracking_api.accepted == 5


def test_it_waits_as_long_as_the_server_asks_for(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    server.faults.append(api.status(429, Retry_After="1"))
    assert tracking_api.deliver(some(1)) == []
    first, second = server.asked
    assert second.at - first.at >= 1


def test_a_server_that_never_recovers_is_an_error(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    server.fault_of = lambda: api.status(503)
    with pytest.raises(SettingError, match=r"endpoint: .* answers HTTP 503"):
        tracking_api.deliver(some(5))
    assert len(server.asked) == client.TRIES


def test_a_server_that_is_not_there_is_an_error(connect: Any) -> None:
    with TrackingServer() as server:
        pass
    with pytest.raises(SettingError, match=r"endpoint: .* cannot be reached"):
        connect(server).deliver(some(5))


@pytest.mark.parametrize("offenders", [["e0"], ["e1999"], ["e1234"], ["e7", "e8", "e1500"]])
def test_a_bad_call_is_found_and_the_others_arrive(
    tracking_api: TrackingApi,
    server: TrackingServer,
    offenders: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine a response that is late would be one more request, and its calls come twice.
    monkeypatch.setattr(client, "TIMEOUT", (5.0, 30.0))
    server.poison = set(offenders)
    dead = tracking_api.deliver(some(2_000))
    assert [(letter.call.id, letter.reason) for letter in dead] == [
        (offender, "refused with HTTP 400") for offender in offenders
    ]
    assert ids(some(2_000)) - server.poison == server.accepted.keys()
    assert len(server.calls) == len(server.accepted) == tracking_api.accepted
    # Twice the halves of each level, and that twice while it could yet be the zipping's fault.
    assert len(server.asked) <= 2 + 4 * 11 * len(offenders)


def test_a_batch_that_is_too_large_for_this_server_is_halved(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    def at_most_a_hundred(handler: Any) -> None:
        handler.answer(413 if len(handler.batch) > 100 else handler.store())

    server.fault_of = lambda: at_most_a_hundred
    assert tracking_api.deliver(some(700)) == []
    assert ids(some(700)) == server.accepted.keys()


def test_a_server_that_refuses_everything_is_the_fault_and_not_the_calls(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    server.fault_of = lambda: api.status(400)
    with pytest.raises(SettingError, match=r"endpoint: .* refuses whatever it is sent"):
        tracking_api.deliver(some(2_000))
    assert len(server.asked) < 1_000


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_write_key_ends_it_at_once(
    tracking_api: TrackingApi, server: TrackingServer, status: int
) -> None:
    server.fault_of = lambda: api.status(status)
    with pytest.raises(SettingError, match=f"write_key: .* refuses it .HTTP {status}.") as raised:
        tracking_api.deliver(some(5))
    assert raised.value.setting == "write_key"
    assert len(server.asked) == 1


def test_another_servers_write_key_is_refused(connect: Any, server: TrackingServer) -> None:
    with pytest.raises(SettingError) as raised:
        connect(server, "another-key").deliver(some(5))
    assert raised.value.setting == "write_key"
    assert server.calls == []


@pytest.mark.parametrize("status", [204, 201])
def test_any_success_is_one(tracking_api: TrackingApi, server: TrackingServer, status: int) -> None:
    server.fault_of = lambda: api.status(status)
    assert tracking_api.deliver(some(5)) == []
    assert tracking_api.accepted == 5


@pytest.mark.parametrize(
    "body",
    [
        b'{"success": true}',
        b'{"success": true, "errors": [], "error": null, "rejected": 0}',
        b'{"ok": true}',
        b"OK",
        b'"OK"',
        b"[]",
        b'{"id": "7"}',
        b" ",
    ],
)
def test_servers_say_success_in_their_own_ways(
    tracking_api: TrackingApi, server: TrackingServer, body: bytes
) -> None:
    server.fault_of = lambda: api.status(200, body)
    assert tracking_api.deliver(some(5)) == []
    assert tracking_api.accepted == 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"success": false}', "says that the events were not accepted"),
        (b'\xef\xbb\xbf{"Success":"false"}', "says that the events were not accepted"),
        (b'{"ok": false}', "says that the events were not accepted"),
        (b'{"success": true, "errors": ["hidden"]}', "names an error"),
        (b'{"error": {"message": "hidden"}}', "names an error"),
        (b'{"rejected": 2}', "names an error"),
        (b"\n<!DOCTYPE html><title>hidden</title>", "is a web page"),
        (b"x" * (client.MAX_RESPONSE + 1), "longer than a Tracking API's"),
    ],
)
@pytest.mark.parametrize("status", [200, 202])
def test_a_success_that_is_none_is_an_error(
    tracking_api: TrackingApi, server: TrackingServer, body: bytes, said: str, status: int
) -> None:
    server.fault_of = lambda: api.status(status, body)
    with pytest.raises(
        SettingError, match=f"endpoint: .* answers HTTP {status}, .* {said}"
    ) as told:
        tracking_api.deliver(some(5))
    assert "hidden" not in str(told.value)
    assert tracking_api.accepted == 0


def test_a_response_that_breaks_off_is_no_success(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    server.fault_of = lambda: api.status(200, b'{"succ', Content_Length="100")
    with pytest.raises(SettingError, match="its response cannot be read: "):
        tracking_api.deliver(some(5))


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_response_is_bounded_in_memory(
    connect: Any, server: TrackingServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A megabyte of gzip is a gigabyte of zeros."""
    monkeypatch.setattr(client, "TRIES", 2)
    zeros = gzip.compress(bytes(1 << 20)) * 256  # members that follow each other
    server.fault_of = lambda: api.status(status, zeros, Content_Encoding="gzip")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SettingError):
        connect(server).deliver(some(5))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # kilobytes


@pytest.mark.parametrize("status", [301, 302, 307, 308, 404, 405, 422])
def test_anything_else_is_an_error_at_once(
    tracking_api: TrackingApi, server: TrackingServer, status: int
) -> None:
    server.fault_of = lambda: api.status(status, Location=f"{server.url}/v1/batch")
    with pytest.raises(SettingError, match=f"endpoint: .* answers HTTP {status}$"):
        tracking_api.deliver(some(5))
    assert len(server.asked) == 1


def refusing_gzip(status: int) -> Any:
    return lambda handler: handler.answer(status if handler.zipped else handler.store())


@pytest.mark.parametrize("status", [400, 415])
def test_a_server_that_reads_no_gzip_is_sent_none_from_then_on(
    tracking_api: TrackingApi, server: TrackingServer, status: int
) -> None:
    server.fault_of = lambda: refusing_gzip(status)
    for start in range(0, 30, 10):
        assert tracking_api.deliver(some(10, start)) == []
    assert ids(some(30)) == server.accepted.keys()
    assert [asked.zipped for asked in server.asked] == [True, False, False, False]


def test_a_bad_call_is_found_also_where_no_gzip_is_read(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    server.poison = {"e3"}
    server.fault_of = lambda: refusing_gzip(400)
    assert [dead.call.id for dead in tracking_api.deliver(some(50))] == ["e3"]
    assert ids(some(50)) - {"e3"} == server.accepted.keys()


def test_once_gzip_was_read_a_bad_request_is_not_the_zippings_fault(
    tracking_api: TrackingApi, server: TrackingServer
) -> None:
    tracking_api.deliver(some(1, 100))
    server.poison = {"e3"}
    tracking_api.deliver(some(50))
    assert {asked.zipped for asked in server.asked} == {True}


def test_what_follows_a_failure_is_not_sent(
    tracking_api: TrackingApi, server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "MAX_CALLS", 1)
    order = itertools.count()
    server.fault_of = lambda: api.status(401) if next(order) >= 20 else None
    with pytest.raises(SettingError):
        tracking_api.deliver(some(1_000))
    assert len(server.asked) < 1_000
