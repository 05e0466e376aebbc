from __future__ import annotations

import hmac
import http.client
import json
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import pytest

from tap_vero_segment.collector.request import same_secret
from tap_vero_segment.collector.settings import Secrets
from tap_vero_segment.errors import SettingError
from tests.support.collector import (
    READ_TOKEN,
    SECRETS,
    WEBHOOK_TOKEN,
    Collector,
    clean_environment,
    collector_command,
    run_collector,
)
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
        "--segment-deletes",
        "--url",
        "--forward",
        "--forward-from",
        "--forward-skip-refused",
        "--log-format",
        "--allow-from",
        "--trust-proxy",
        "--max-pending",
        "--max-connections",
        "--client-timeout",
        "--help",
    }


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_a_running_collector_shows_no_secret(tmp_path):
    with Collector(tmp_path, forked=False) as collector:
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


BROUGHT_ALONG = [
    ("{}\n", "ends with a line end"),
    ("{}\r\n", "ends with a line end"),
    ('"{}"', "a quotation mark stands"),
    ("'{}'", "a quotation mark stands"),
    ('{}"', "a quotation mark stands"),
    ("“{}”", "a quotation mark stands"),
    (" {}", "a blank stands"),
    ("{}\t", "a blank stands"),
    ("\N{NO-BREAK SPACE}{}", "a blank stands"),
    ("\N{ZERO WIDTH SPACE}{}", "a control character or an invisible one"),
    ("\N{BYTE ORDER MARK}{}", "a control character or an invisible one"),
    ("{}\x07", "a control character or an invisible one"),
    ("{0}\n{0}", "contains a line end"),
    (" ", "a blank stands"),
    ('""', "a quotation mark stands"),
]
"""What stands around a secret that was copied, mounted or given by ``docker --env-file``."""


@pytest.mark.parametrize(("form", "said"), BROUGHT_ALONG)
@pytest.mark.parametrize("end", ["", "_PREVIOUS"])
@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_brings_something_along_is_refused(name, end, form, said):
    value = form.format("hidden-secret-of-the-tests")

    with pytest.raises(SettingError, match=f"^{name}{end}: .*{said}") as raised:
        Secrets.from_environment(SECRETS | {f"{name}{end}": value})
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("secret", ["a b", "größe", "it's", 'a"b', "a#b?c=d", "="])
def test_what_stands_inside_a_secret_is_the_users_own(secret):
    assert Secrets.from_environment({"VERO_COLLECTOR_READ_TOKEN": secret}).read_token == (secret,)


@pytest.mark.parametrize("name", ["READ_TOKEN", "STORE", "HOST"])
def test_serve_refuses_it_in_one_line(tmp_path, name):
    given = SECRETS | {f"VERO_COLLECTOR_{name}": "hidden-value-of-the-tests\n"}
    done = run_collector("serve", "--port", "0", cwd=tmp_path, env=given)

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    setting = f"--{name.lower()}" if name in {"STORE", "HOST"} else f"VERO_COLLECTOR_{name}"
    assert line.startswith(f"vero-collector: {setting}: it ends with a line end")
    assert "hidden" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "content", "warns"),
    [
        (0o600, "VERO_COLLECTOR_READ_TOKEN=a", False),
        (0o400, "VERO_COLLECTOR_READ_TOKEN=a", False),
        (0o640, "VERO_COLLECTOR_READ_TOKEN=a", True),
        (0o604, "VERO_COLLECTOR_READ_TOKEN_PREVIOUS=a", True),
        (0o644, "VERO_COLLECTOR_PORT=8321", False),
    ],
)
def test_a_file_of_secrets_that_others_can_read_is_warned_of(tmp_path, mode, content, warns):
    (tmp_path / ".env").write_text(content + "\n", encoding="utf-8")
    (tmp_path / ".env").chmod(mode)

    done = run_collector("status", cwd=tmp_path)

    assert ("run chmod 600 .env" in done.stderr) is warns
    assert (f"(mode {mode:o})" in done.stderr) is warns


def test_serve_warns_of_it_once_and_in_the_logs_format(tmp_path):
    (tmp_path / ".env").write_text("VERO_COLLECTOR_READ_TOKEN=0123456789abcdef\n")
    (tmp_path / ".env").chmod(0o644)
    with Collector(tmp_path, env={"VERO_COLLECTOR_LOG_FORMAT": "json"}) as collector:
        messages = [json.loads(line)["message"] for line in collector.log().splitlines()]

    assert len([each for each in messages if "chmod 600 .env" in each]) == 1


def test_too_few_open_files_are_reported_in_one_line(tmp_path):
    command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *collector_command("serve")]
    done = subprocess.run(
        [*command, "--port", "0"],
        cwd=tmp_path,
        env=clean_environment() | SECRETS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "open files are limited to 64" in line
    assert "ulimit -n" in line
