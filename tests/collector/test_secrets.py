from __future__ import annotations

import hmac
import http.client
import json
import socket
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import pytest

from tap_vero_segment.collector.http import same_secret
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, Collector, run_collector
from tests.support.leaks import FRAGMENT, assert_tells_nothing
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented

BODIES = [
    *(json.dumps(documented(vero_type)).encode() for vero_type in EMAIL_TYPES + OTHER_TYPES),
    f"{FRAGMENT} someone@example.com".encode(),
    json.dumps([FRAGMENT]).encode(),
    json.dumps({"type": f"{FRAGMENT} someone@example.com"}).encode(),
    json.dumps({"type": "sent", FRAGMENT: "someone@example.com"})[:-1].encode(),
    f'{{"type": "sent", "a": "{FRAGMENT}'.encode() + b'\xff"}',
    b'{"%b":' % FRAGMENT.encode() * 9_000,
    b"x" * 600_000,
]
PATHS = [
    f"/vero/{WEBHOOK_TOKEN}",
    f"/vero/{WEBHOOK_TOKEN}x",
    f"/vero/{FRAGMENT}",
    f"/v1/events?after={FRAGMENT}&limit=1",
    f"/v1/events?limit={FRAGMENT}",
    f"/{WEBHOOK_TOKEN}",
    f"/v1/events?token={READ_TOKEN}",
    "/vero/%FF%00",
]
AUTHORIZATIONS = [f"Bearer {READ_TOKEN}", f"Bearer {READ_TOKEN}x", f"Basic {READ_TOKEN}", FRAGMENT]


def test_the_log_tells_no_secret_and_nothing_of_what_came_in(tmp_path):
    with Collector(tmp_path) as collector:
        address = urlsplit(collector.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)

        def request(method: str, path: str, body: bytes | None, authorization: str) -> None:
            connection.request(method, path, body, {"Authorization": authorization})
            connection.getresponse().read()

        with closing(connection):
            for body in BODIES:
                request("POST", PATHS[0], body, AUTHORIZATIONS[0])
            for path in PATHS:
                for method in ("GET", "POST", "DELETE"):
                    for authorization in AUTHORIZATIONS:
                        request(method, path, None, authorization)
        for garbage in (PATHS[0].encode(), b"GET " + PATHS[0].encode() + b" NONSENSE\r\n\r\n"):
            with socket.create_connection((address.hostname, address.port)) as raw:
                raw.sendall(garbage + b"\r\n\r\n")
                raw.shutdown(socket.SHUT_WR)
                raw.recv(10_000)
        make_a_fault(collector)
        log = collector.log()

    assert "dead letter" in log
    assert "nothing of a group" in log
    assert_tells_nothing(log)


def make_a_fault(collector: Collector) -> None:
    """Have the store refuse an event: the error must not repeat it."""
    with apsw.Connection(str(collector.store)) as store:
        store.execute("CREATE TRIGGER refuse BEFORE INSERT ON events "
                      "BEGIN SELECT RAISE(ABORT, 'refused'); END")  # fmt: skip
    store.close()
    payload = documented() | {"a": FRAGMENT}
    assert collector.post(payload).status_code == 503


@pytest.mark.parametrize(
    "body", [FRAGMENT.encode(), b'["%b"]' % FRAGMENT.encode(), b'{"%b' % FRAGMENT.encode()]
)
def test_an_answer_repeats_nothing_of_the_body(collector, body):
    answer = collector.post(body)

    assert answer.status_code == 400
    assert FRAGMENT not in answer.text
    assert_tells_nothing(str(answer.headers))


def test_secrets_are_no_arguments(tmp_path):
    """Every user of a machine can read the arguments of its processes."""
    usage = run_collector("serve", "--help", cwd=tmp_path).stdout
    options = {word.strip(",") for word in usage.split() if word.startswith("--")}

    assert options == {
        "--store",
        "--host",
        "--port",
        "--segment-legacy-batches",
        "--log-format",
        "--allow-from",
        "--trust-proxy",
        "--max-pending",
        "--max-connections",
        "--client-timeout",
        "--help",
    }


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_a_running_collector_shows_no_secret(collector):
    arguments = Path(f"/proc/{collector.process.pid}/cmdline").read_bytes().decode()

    assert "serve" in arguments
    assert_tells_nothing(arguments)


@pytest.mark.parametrize(
    ("given", "secret", "same"),
    [
        (b"secret", "secret", True),
        (b"secret", "Secret", False),
        (b"secret ", "secret", False),
        (b"", "secret", False),
        ("größe".encode(), "größe", True),
        ("größe".encode("latin-1"), "größe", False),
        (b"\xff\xfe\x00", "secret", False),
        (b"secret", "größe", False),
    ],
)
def test_secrets_are_compared_whatever_was_given(given, secret, same):
    assert same_secret(given, secret) is same


def test_secrets_are_compared_in_constant_time(monkeypatch):
    compared = []

    def compare_digest(one, other):
        compared.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)

    assert same_secret(b"given", "secret")
    assert compared == [(b"given", b"secret")]


@pytest.mark.parametrize("path", ["/vero/gr%C3%B6%C3%9Fe", "/vero/%FF%FE", "/vero/%F0%9F%92%A9"])
def test_a_token_that_is_not_ascii_is_a_wrong_token(collector, path):
    address = urlsplit(collector.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    with closing(connection):
        connection.request("POST", path, b"{}")

        assert connection.getresponse().status == 404
