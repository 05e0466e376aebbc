"""A collector's read API as a source: a real collector, and a server that misbehaves to order."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources import http
from tap_vero_segment.sources.http import HttpSource
from tests.support import event_server
from tests.support.collector import READ_TOKEN
from tests.support.event_server import NDJSON, EventServer, status
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import lines_of
from tests.support.tap import run_tap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.collector import Collector
    from tests.support.event_server import Fault


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Fifty events as a collector serves them."""
    path = tmp_path_factory.mktemp("lines") / "store.db"
    fill(path, many(50))
    return lines_of(path)


@pytest.fixture
def server(lines: list[bytes]) -> Iterator[EventServer]:
    with EventServer(lines) as running:
        yield running


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after two tries, where a test waits for that."""
    monkeypatch.setattr(http, "TRIES", 2)
    monkeypatch.setattr(http, "CONNECT_TRIES", 2)


def ids_in(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["messageId"] for line in lines]


def read(source: HttpSource, after: str | None = None, size: int = 20) -> list[str]:
    return [call.message_id for page in source.pages(after, size) for call in page.calls]


def told(error: pytest.ExceptionInfo[SettingError], setting: str) -> str:
    """One line that names the setting, without the token."""
    text = str(error.value)
    assert error.value.setting == setting
    assert text.startswith(f"{setting}: ")
    assert "\n" not in text
    assert READ_TOKEN not in text
    return text


# A real collector


def test_a_collector_is_read_page_by_page(collector: Collector) -> None:
    ids = fill(collector.store, many(45))
    with HttpSource(collector.url, READ_TOKEN) as source:
        pages = [[call.message_id for call in page.calls] for page in source.pages(None, 20)]
    assert pages == [ids[:20], ids[20:40], ids[40:]]


def test_what_a_collector_takes_meanwhile_is_left_for_the_next_time(collector: Collector) -> None:
    payloads = many(30)
    before = fill(collector.store, payloads[:25])
    with HttpSource(collector.url, READ_TOKEN) as source:
        pages = source.pages(None, 20)
        got = [call.message_id for call in next(pages).calls]
        for payload in payloads[25:]:
            assert collector.post(payload).status_code == 200
        got += [call.message_id for page in pages for call in page.calls]
        assert got == before
    last = json.loads(lines_of(collector.store)[24])["loadedAt"]
    with HttpSource(collector.url, READ_TOKEN) as source:
        assert read(source, after=last) == ids_in(lines_of(collector.store)[25:])


def test_an_empty_collector_has_no_page(collector: Collector) -> None:
    with HttpSource(collector.url, READ_TOKEN) as source:
        assert read(source) == []


def test_a_collector_refuses_a_wrong_token(collector: Collector) -> None:
    with pytest.raises(SettingError) as error:
        HttpSource(collector.url, "wrong")
    told(error, "token")


def test_a_page_is_never_longer_than_the_read_api_allows(
    collector: Collector, tmp_path: Path
) -> None:
    ids = fill(collector.store, many(10_050), group=2_000)
    with HttpSource(collector.url, READ_TOKEN) as source:
        read = [call.message_id for page in source.pages(None, 1_000_000) for call in page.calls]
    assert read == ids


def test_large_events_are_read_few_at_a_time(lines: list[bytes]) -> None:
    large = []
    for line in lines[:20]:
        call = json.loads(line)
        call["properties"] = {"text": "x" * 480_000}
        large.append(json.dumps(call).encode())
    with EventServer(large) as server, HttpSource(server.url, READ_TOKEN) as source:
        pages = [page.calls for page in source.pages(None, 1_000)]
    assert max(map(len, pages)) <= 3
    assert [call.message_id for page in pages for call in page] == ids_in(lines[:20])


# The URL


@pytest.mark.parametrize(
    "form",
    [
        "http://{host}",
        "http://{host}/",
        "http://{host}/v1/events",
        "http://{host}/v1/events/",
        "http://{host}/?limit=1#top",
        "HTTP://{host}",
        "http://somebody:pass-of-word@{host}",
    ],
)
def test_a_url_may_be_written_in_many_ways(
    server: EventServer, lines: list[bytes], form: str
) -> None:
    with HttpSource(form.format(host=server.host), READ_TOKEN) as source:
        assert read(source) == ids_in(lines)
    assert {asked.path for asked in server.asked} == {"/v1/events"}
    assert {asked.authorization for asked in server.asked} == {f"Bearer {READ_TOKEN}"}


@pytest.mark.parametrize("form", ["{url}/vero", "{url}/vero/", "{url}/vero/v1/events"])
def test_a_url_may_have_a_path_before_the_read_api(lines: list[bytes], form: str) -> None:
    with (
        EventServer(lines, prefix="/vero") as server,
        HttpSource(form.format(url=server.url), READ_TOKEN) as source,
    ):
        assert read(source) == ids_in(lines)


def test_user_and_password_of_a_url_are_in_no_error(few_tries: None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SettingError) as error:
            HttpSource(f"http://somebody:pass@word@{host}", READ_TOKEN)
    text = told(error, "source")
    assert host in text
    assert "somebody" not in text
    assert "word" not in text


def test_a_netrc_does_not_replace_the_token(
    server: EventServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(netrc))
    with HttpSource(server.url, READ_TOKEN):
        pass
    assert server.asked[0].authorization == f"Bearer {READ_TOKEN}"


# What passes when it is tried again

PASSING = [
    pytest.param(status(429), id="429"),
    pytest.param(status(500), id="500"),
    pytest.param(status(502, b"<html>Bad Gateway</html>"), id="502"),
    pytest.param(status(503), id="503"),
    pytest.param(status(504), id="504"),
    pytest.param(event_server.reset, id="reset-before-the-answer"),
    pytest.param(event_server.reset_amid, id="reset-amid-the-body"),
    pytest.param(event_server.truncated, id="body-cut-off"),
    pytest.param(status(301, Location="/v1/events?limit=20"), id="redirect-once"),
]


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again_when_opening(
    server: EventServer, lines: list[bytes], fault: Fault
) -> None:
    server.faults.append(fault)
    with HttpSource(server.url, READ_TOKEN) as source:
        assert read(source) == ids_in(lines)


@pytest.mark.parametrize("fault", PASSING[:-1])
def test_what_passes_is_tried_again_while_reading(
    server: EventServer, lines: list[bytes], fault: Fault
) -> None:
    with HttpSource(server.url, READ_TOKEN) as source:
        pages = source.pages(None, 20)
        got = [call.message_id for call in next(pages).calls]
        server.faults.append(fault)
        got += [call.message_id for page in pages for call in page.calls]
    assert got == ids_in(lines)


def test_an_answer_that_comes_too_late_is_asked_for_again(
    server: EventServer, lines: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TIMEOUT", (10.0, 0.5))
    server.faults.append(event_server.late(1.0))
    with HttpSource(server.url, READ_TOKEN) as source:
        assert read(source) == ids_in(lines)


def test_an_answer_that_trickles_in_is_waited_for(server: EventServer, lines: list[bytes]) -> None:
    with HttpSource(server.url, READ_TOKEN) as source:
        server.faults.append(event_server.trickle(pieces=10, pause=0.05))
        assert read(source, size=100) == ids_in(lines)
    assert len(server.asked) == 2


@pytest.mark.parametrize("code", [429, 503])
def test_the_time_that_a_server_asks_for_is_waited(server: EventServer, code: int) -> None:
    server.faults.append(status(code, Retry_After="1"))
    with HttpSource(server.url, READ_TOKEN):
        pass
    first, second = server.asked
    assert second.at - first.at >= 1


def test_a_server_that_asks_for_an_eternity_is_asked_again_before(
    server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "RETRY_AFTER_MAX", 1)
    server.faults.append(status(503, Retry_After="864000"))
    with HttpSource(server.url, READ_TOKEN):
        pass
    assert len(server.asked) == 2


# What does not pass


@pytest.mark.parametrize(
    ("fault", "setting", "says"),
    [
        pytest.param(status(401), "token", "refuses", id="401"),
        pytest.param(status(403), "token", "refuses", id="403"),
        pytest.param(status(404), "source", "404", id="404"),
        pytest.param(status(400), "source", "400", id="400"),
        pytest.param(status(204), "source", "204", id="204"),
        pytest.param(
            status(200, b"<p>Hello", Content_Type="text/html"),
            "source",
            "not a collector",
            id="html",
        ),
        pytest.param(status(200), "source", "not a collector", id="nothing"),
        pytest.param(
            status(200, Content_Type="application/json"),
            "source",
            "not a collector",
            id="empty-json",
        ),
        pytest.param(
            status(200, Content_Type=NDJSON, High_Water_Mark="soon"), "source", "Mark", id="no-mark"
        ),
        pytest.param(status(301, Location="/v1/events"), "source", "Redirects", id="in-a-circle"),
        pytest.param(
            event_server.lines(b'{"type":"identify"}'), "source", "no track call", id="no-track"
        ),
    ],
)
def test_what_cannot_pass_is_told_at_once(
    server: EventServer, fault: Fault, setting: str, says: str
) -> None:
    server.always = fault
    with pytest.raises(SettingError) as error:
        HttpSource(server.url, READ_TOKEN)
    text = told(error, setting)
    assert says in text
    assert server.host in text
    assert len(server.asked) == 1 or says == "Redirects"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(status(429), "429", id="429"),
        pytest.param(status(500), "500", id="500"),
        pytest.param(event_server.reset, "cannot reach", id="reset"),
        pytest.param(event_server.reset_amid, "breaks off", id="reset-amid-the-body"),
        pytest.param(event_server.truncated, "breaks off its answers: the rest", id="body-cut-off"),
    ],
)
def test_what_never_passes_is_told_in_the_end(
    server: EventServer, few_tries: None, fault: Fault, says: str
) -> None:
    server.always = fault
    with pytest.raises(SettingError) as error:
        HttpSource(server.url, READ_TOKEN)
    assert says in told(error, "source")
    assert len(server.asked) == 2


def test_a_token_goes_to_no_other_host(server: EventServer) -> None:
    with EventServer([]) as elsewhere:
        other = elsewhere.url.replace("127.0.0.1", "localhost")
        server.faults.append(status(302, Location=f"{other}/v1/events"))
        with pytest.raises(SettingError) as error:
            HttpSource(server.url, READ_TOKEN)
    told(error, "token")
    assert [asked.authorization for asked in elsewhere.asked] == [None]


def test_a_redirect_to_an_empty_page_is_not_taken_for_nothing_new(server: EventServer) -> None:
    server.faults.append(status(302, Location="/login"))
    server.faults.append(status(200, Content_Type="text/html"))
    with pytest.raises(SettingError) as error:
        HttpSource(server.url, READ_TOKEN)
    assert "after a redirect" in told(error, "source")


def test_a_trial_run_on_a_server_that_is_not_a_collector_fails(
    server: EventServer, tmp_path: Path
) -> None:
    server.always = status(200)
    run = run_tap(tmp_path, {"source": server.url, "token": READ_TOKEN}, "--test")
    assert run.status == 1
    assert "not a collector" in run.stderr
    assert "Traceback" not in run.stderr


BOMB = gzip.compress(b"\n" * 10_000_000) * 40
"""400 MB in 400 KB."""


@pytest.mark.parametrize(
    ("code", "says"), [(200, "more than"), (302, ""), (503, "503"), (404, "404")]
)
def test_of_what_a_server_sends_no_more_is_kept_than_a_page_may_have(
    server: EventServer, few_tries: None, code: int, says: str
) -> None:
    server.always = status(
        code, BOMB, Content_Encoding="gzip", Content_Type=NDJSON, Location="/v1/events"
    )
    tracemalloc.start()
    try:
        with pytest.raises(SettingError) as error:
            HttpSource(server.url, READ_TOKEN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert says in told(error, "source")
    assert peak < 3 * http.MAX_BODY


# Lines


def without(line: bytes, key: str) -> bytes:
    call = json.loads(line)
    del call[key]
    return json.dumps(call).encode()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda line: line[:-10], "no track call", id="cut-off"),
        pytest.param(lambda _: b"", "no track call", id="blank"),
        pytest.param(lambda _: b"null", "no track call", id="null"),
        pytest.param(lambda line: without(line, "messageId"), "no track call", id="no-id"),
        pytest.param(lambda line: without(line, "loadedAt"), "loadedAt", id="no-loadedAt"),
    ],
)
def test_a_line_that_is_no_track_call_is_named_and_not_repeated(
    server: EventServer, lines: list[bytes], spoil: Any, says: str
) -> None:
    with HttpSource(server.url, READ_TOKEN) as source:
        server.always = event_server.lines(lines[0], lines[1], spoil(lines[2]), lines[3])
        with pytest.raises(SettingError) as error:
            read(source)
    text = told(error, "source")
    assert "line 3" in text
    assert says in text
    assert "example.com" not in text.replace(server.host, "")


def test_a_server_without_a_mark_is_read_until_it_has_nothing_more(lines: list[bytes]) -> None:
    with (
        EventServer(lines, marks=False) as server,
        HttpSource(server.url, READ_TOKEN) as source,
    ):
        assert read(source, size=20) == ids_in(lines)
    assert [asked.limit for asked in server.asked] == [1, 20, 20, 20, 20]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [0, 0]], ids=["same", "mixed", "twice"])
def test_a_server_that_repeats_itself_is_told_as_such(
    server: EventServer, lines: list[bytes], order: list[int]
) -> None:
    server.faults.append(event_server.lines(lines[0]))
    server.always = event_server.lines(*(lines[position] for position in order))
    with (
        HttpSource(server.url, READ_TOKEN) as source,
        pytest.raises(SettingError, match="repeats itself"),
    ):
        read(source)


def test_lines_beyond_the_mark_are_left_for_the_next_time(
    server: EventServer, lines: list[bytes]
) -> None:
    newer = server.lines[40:]
    del server.lines[40:]
    with HttpSource(server.url, READ_TOKEN) as source:
        server.lines += newer
        assert read(source, size=30) == ids_in(lines[:40])
        assert read(source, after=newer[0][0]) == []


# The token in what the tap says


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(401, b"you said " + READ_TOKEN.encode()), id="401"),
        pytest.param(status(400, b"you said " + READ_TOKEN.encode()), id="400"),
        pytest.param(event_server.lines(READ_TOKEN.encode()), id="in-a-line"),
        pytest.param(status(301, Location="/v1/events"), id="redirects"),
    ],
)
def test_the_token_is_in_nothing_that_the_tap_says(
    server: EventServer, tmp_path: Path, fault: Fault
) -> None:
    server.always = fault
    config = {"source": server.url, "token": READ_TOKEN}
    run = run_tap(tmp_path, config, env={"LOGLEVEL": "DEBUG"})
    assert run.status == 1
    assert sum("ERROR" in line for line in run.stderr.splitlines()) == 1
    assert "Traceback" not in run.stderr
    assert READ_TOKEN not in run.stderr
    assert READ_TOKEN.encode() not in run.stdout


def test_a_run_over_a_failing_server_says_no_token_and_loses_nothing(
    server: EventServer, lines: list[bytes], tmp_path: Path
) -> None:
    server.faults.extend(
        [
            status(503, Retry_After="0"),
            event_server.truncated,
            event_server.answered,
            event_server.reset,
            event_server.reset_amid,
        ]
    )
    config = {"source": server.url, "token": READ_TOKEN}
    run = run_tap(tmp_path, config, env={"LOGLEVEL": "DEBUG"})
    assert run.status == 0, run.stderr
    assert run.messages.ids("tracks") == ids_in(lines)
    assert not server.faults
    assert READ_TOKEN not in run.stderr
