from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING

import pytest
import requests

from tap_vero_segment.collector import settings
from tap_vero_segment.errors import SettingError
from tests.support.collector import SECRETS, Collector, run_collector
from tests.support.payloads import documented
from tests.support.raw import connect, read_answer, request

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = "127.0.0.1"
LISTED = "198.51.100.7"
OTHER = "203.0.113.9"


def served(folder, **told: str) -> Collector:
    return Collector(
        folder, env=SECRETS | {f"VERO_COLLECTOR_{key.upper()}": told[key] for key in told}
    )


def status(collector: Collector, *forwarded: str) -> int:
    headers = {"X-Forwarded-For": ", ".join(forwarded)} if forwarded else {}
    return collector.post(documented(), headers=headers).status_code


@pytest.fixture(scope="module")
def proxied(tmp_path_factory) -> Iterator[Collector]:
    """A collector that believes this machine, and serves whom it names."""
    folder = tmp_path_factory.mktemp("collector")
    listed = f"{LISTED}/31 2001:db8::/32".replace(".7/", ".6/")
    with served(folder, allow_from=listed, trust_proxy=HERE) as collector:
        yield collector


@pytest.mark.parametrize("told", [HERE, "127.0.0.0/8", "10.0.0.0/8, ::ffff:127.0.0.0/104"])
def test_who_is_listed_may_ask(tmp_path, told):
    with served(tmp_path, allow_from=told) as collector:
        assert status(collector) == 200


def test_who_is_not_listed_may_only_ask_how_it_is(tmp_path):
    with served(tmp_path, allow_from=f"10.0.0.0/8,{LISTED} ::1") as collector:
        assert status(collector) == 403
        # Without a trusted proxy nobody is believed to be another.
        assert status(collector, LISTED) == 403
        for path in ("/v1/events", "/nothing", "/metrics", "/", "//health", "/health/"):
            assert collector.get(path).status_code == 403
        assert requests.head(f"{collector.url}/v1/events", timeout=30).content == b""
        refused = requests.post(f"{collector.url}/v1/b", b"{}", timeout=30)
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (403, "*")
        for path in ("/health", "/ready"):
            assert collector.get(path).status_code == 200


def test_a_list_can_be_given_as_options(tmp_path):
    class Listed(Collector):
        def command(self, *words: str) -> list[str]:
            more = ["--allow-from", "10.0.0.0/8", "--allow-from", HERE, "--trust-proxy", HERE]
            return super().command(*words, *more)

    with Listed(tmp_path) as collector:
        assert status(collector) == 200
        assert status(collector, OTHER) == 403
        assert status(collector, "10.1.2.3") == 200


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([LISTED], 200),
        ([f"{LISTED}:4711"], 200),
        ([f"::ffff:{LISTED}"], 200),
        (["2001:db8::17"], 200),
        (["[2001:db8::17]:4711"], 200),
        ([OTHER, LISTED], 200),
        ([LISTED, OTHER], 403),
        ([LISTED, OTHER, HERE], 403),
        ([OTHER], 403),
        (["2001:db9::17"], 403),
        (["unknown"], 403),
        ([LISTED, ""], 403),
        ([LISTED, "x" * 300], 403),
        ([], 403),
    ],
)
def test_behind_a_trusted_proxy_the_client_counts(proxied, forwarded, expected):
    """The last one that is no proxy of ours: what stands before it, the client may have made up."""
    assert status(proxied, *forwarded) == expected


def test_a_trailer_is_no_header(proxied):
    """The proxy sets its header; the client's trailer comes behind it."""
    body = json.dumps(documented()).encode()
    head = request(b"", f"X-Forwarded-For: {OTHER}", "Transfer-Encoding: chunked")
    head = head.replace(b"Content-Length: 0\r\n", b"")
    chunks = b"%x\r\n%b\r\n0\r\nX-Forwarded-For: %b\r\n\r\n" % (len(body), body, LISTED.encode())
    with connect(proxied) as client:
        client.sendall(head + chunks)
        assert read_answer(client).status == 403


def test_proxies_that_are_not_trusted_are_not_believed(tmp_path):
    with served(tmp_path, allow_from=f"{LISTED} {HERE}", trust_proxy="10.0.0.0/8") as collector:
        assert status(collector, OTHER) == 200


def test_a_client_of_ipv4_is_one_on_a_socket_of_ipv6_too(tmp_path):
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        settings = {"host": "::", "allow_from": f"{HERE}/32", "trust_proxy": "127.0.0.0/30"}
        with served(tmp_path, **settings) as collector:
            port = collector.url.rpartition(":")[2]
            collector.url = f"http://{HERE}:{port}"
            assert status(collector) == 200
            assert status(collector, OTHER) == 403
            collector.url = f"http://[::1]:{port}"
            assert status(collector) == 403
        return
    pytest.skip("no IPv6 here")


@pytest.mark.parametrize("setting", ["allow_from", "trust_proxy"])
@pytest.mark.parametrize("value", ["nowhere", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8;::1"])
def test_what_is_no_network_is_told_in_a_line(tmp_path, setting, value):
    done = run_collector(
        "serve", cwd=tmp_path, env=SECRETS | {f"VERO_COLLECTOR_{setting.upper()}": value}
    )

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"{setting}: " in line
    assert value in line
    assert not (tmp_path / "vero-events.db").exists()


def test_a_network_of_mapped_addresses_is_one_of_ipv4():
    [network] = settings.networks(["::ffff:192.0.2.0/120"], "allow_from")

    assert str(network) == "192.0.2.0/24"
    with pytest.raises(SettingError):
        settings.networks([""], "allow_from")
