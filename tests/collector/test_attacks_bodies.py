"""Bodies that are made to keep the collector busy: others are served meanwhile."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment.limits import MAX_BODY
from tests.support.collector import SEGMENT_SECRET, WEBHOOK_TOKEN, WRITE_KEY, Collector
from tests.support.leaks import assert_tells_nothing
from tests.support.payloads import documented
from tests.support.resident import resident

if TYPE_CHECKING:
    from collections.abc import Iterator

HEALTH_SECONDS = 0.25
MIB = 1024 * 1024
HALVES = [chr(code) for code in range(0xD800, 0xE000)]


def filled(unit: str) -> str:
    """An array of as many units as a body can hold."""
    return f"[{','.join([unit] * ((MAX_BODY - 2_000) // (len(unit) + 1)))}]"


VALUES = {
    "keys of two halves": json.dumps(
        {one + other: 1 for one in HALVES[-160:] for other in HALVES[-160:]}
    ),
    "arrays": filled("[]"),
    "deep arrays": filled("[" * 90 + "]" * 90),
    "a half and objects": '["\\ud800",' + filled('{"":0}')[1:],
    "floats": filled("1.7976931348623157e308"),
    "long integers": filled("9" * 4_000),
}
CALL = '{"type":"track","event":"Email Sent","userId":"u"}'
SMALL = ",".join([CALL] * 2_500)
FIELDS = ",".join(f'"{number:04}":0' for number in range(3_000))


def vero(body: bytes) -> tuple[str, bytes, dict[str, str]]:
    return f"/vero/{WEBHOOK_TOKEN}", body, {}


def tracking(body: str) -> tuple[str, bytes, dict[str, str]]:
    return "/v1/batch", gzip.compress(body.encode()), {"Content-Encoding": "gzip"}


def segment(body: bytes) -> tuple[str, bytes, dict[str, str]]:
    signature = hmac.new(SEGMENT_SECRET.encode(), body, hashlib.sha1).hexdigest()
    return "/segment", body, {"X-Signature": signature}


ATTACKS = {
    **{
        f"vero: {name}": vero(f'{{"type":"sent","x":{value}}}'.encode())
        for name, value in VALUES.items()
    },
    "vero: braces of a form": vero(b"{&" * (MAX_BODY // 2)),
    "vero: percent signs": vero(b"%7B" + b"%" * (MAX_BODY - 3)),
    "batch: keys of two halves": tracking(
        '{"batch":['
        + ",".join(
            f'{{"type":"track","event":"Email Sent","x":{json.dumps(dict.fromkeys(keys, 1))}}}'
            for keys in [[a + b for a in HALVES[-48:] for b in HALVES[-48:]][:1_800]] * 15
        )
        + "]}"
    ),
    "batch: a long context": tracking(f'{{"context":{{"x":"{"x" * 32_000}"}},"batch":[{SMALL}]}}'),
    "batch: many fields": tracking(f'{{{FIELDS},"batch":[{SMALL}]}}'),
    "batch: a context as long as it may be": tracking(
        f'{{"context":{{{FIELDS[:1_600].rpartition(",")[0]}}},"batch":[{SMALL}]}}'
    ),
    "segment: calls": segment(filled(CALL).encode()),
    "segment: keys of two halves": segment(
        f'[{CALL[:-1]},"x":{VALUES["keys of two halves"]}}}]'.encode()
    ),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with Collector(tmp_path_factory.mktemp("collector")) as running:
        assert running.post(documented()).status_code == 200
        yield running
        assert_tells_nothing(running.log())


def median_of_time(waited: list[float]) -> float:
    """The wait in which half of all the time was spent: many short ones do not hide a long one."""
    spent = 0.0
    for seconds in sorted(waited):
        spent += seconds
        if spent >= sum(waited) / 2:
            break
    return seconds


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_others_are_served_beside_it(attacked, attack):
    """Whoever asks while it is read has the response at once."""
    path, body, headers = attack
    statuses = []

    def post() -> None:
        for _ in range(2):
            url = attacked.url + path
            auth = (WRITE_KEY, "")
            with requests.post(url, body, headers=headers, auth=auth, timeout=120) as response:
                statuses.append(response.status_code)

    def health() -> float:
        began = time.monotonic()
        assert session.get(f"{attacked.url}/health", timeout=120).status_code == 200
        return time.monotonic() - began

    sender = threading.Thread(target=post)
    waited = []
    with requests.Session() as session:
        usual = max(health() for _ in range(5))  # another process can keep this machine busy
        sender.start()
        while sender.is_alive():
            waited.append(health())
            time.sleep(0.005)
    sender.join()

    assert set(statuses) <= {200, 400}
    assert median_of_time(waited) < HEALTH_SECONDS + usual


def test_what_is_stored_is_a_small_multiple_of_what_came(tmp_path):
    with Collector(tmp_path) as collector:
        assert collector.post(documented()).status_code == 200
        before, sent = resident(collector.process.pid), 0
        for path, body, headers in ATTACKS.values():
            url = collector.url + path
            sent += MAX_BODY
            requests.post(url, body, headers=headers, auth=(WRITE_KEY, ""), timeout=120)
        grown = resident(collector.process.pid) - before
        collector.stop()
        stored = sum(file.stat().st_size for file in tmp_path.glob("vero-events.db*"))

    assert stored < 5 * sent
    assert grown < 150 * MIB
