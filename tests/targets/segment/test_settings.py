"""Settings: what they mean, and what is said of those, and of messages, that cannot be used."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tap_vero_segment.errors import SettingError
from tap_vero_segment.targets.segment.settings import Settings
from tests.support import docs
from tests.support.inline_target import send_inline
from tests.support.singer_events import (
    batch_line,
    line,
    record_line,
    records,
    run_lines,
    schema_line,
    state_line,
)
from tests.support.tracking_server import WRITE_KEY

if TYPE_CHECKING:
    from tests.support.forked_target import Ended, ForkedTarget
    from tests.support.tracking_server import TrackingServer


def is_refused(run: Ended, word: str) -> str:
    """One line of error that names what is wrong, status 1, and no state."""
    assert run.status == 1, run.stderr
    assert len(run.errors()) == 1, run.stderr
    assert word in run.errors()[0]
    assert "Traceback" not in run.stderr
    assert run.states == []
    return run.errors()[0]


@pytest.mark.parametrize(
    ("setting", "config"),
    [
        pytest.param("write_key", {}, id="no-write-key"),
        pytest.param("write_key", {"write_key": ""}, id="empty-write-key"),
        pytest.param("write_key", {"write_key": ["hidden-secret"]}, id="write-key-list"),
        pytest.param("write_key", {"write_key": 4711}, id="write-key-number"),
        pytest.param("write_key", {"write_key": "pasted-secret\n"}, id="line-end"),
        pytest.param("write_key", {"write_key": "two secrets"}, id="space"),
        pytest.param("write_key", {"write_key": "secret:word"}, id="colon"),
        pytest.param("write_key", {"write_key": "Schlüssel-secret"}, id="not-ascii"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": 7}, id="endpoint-number"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "api.segment.io"}, id="no-scheme"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "ftp://host"}, id="ftp"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "https://"}, id="no-host"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "http://[::1"}, id="no-url"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "http://h:port"}, id="no-port"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "https://secret:@h"}, id="user"),
        pytest.param("endpoint", {"write_key": "k", "endpoint": "https://h?k=secret"}, id="query"),
        pytest.param("dead_letter", {"write_key": "k", "dead_letter": ["secret"]}, id="letter"),
        pytest.param("stream_maps", {"write_key": "k", "stream_maps": "secret"}, id="maps-text"),
        pytest.param(
            "stream_maps.*.a", {"write_key": "k", "stream_maps": {"*": {"a": "secret ="}}}, id="map"
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_in_one_line_and_not_repeated(
    target: ForkedTarget, setting: str, config: dict[str, Any]
) -> None:
    error = is_refused(target.run(config), setting)
    assert "secret" not in error
    assert "4711" not in error


def test_a_missing_write_key_is_told_with_where_it_belongs(target: ForkedTarget) -> None:
    error = is_refused(target.run({}), "write_key: ")
    assert "--config FILE" in error
    assert "TARGET_SEGMENT_WRITE_KEY with --config=ENV" in error


def test_a_setting_that_there_is_not_is_told_with_the_one_that_was_meant(
    target: ForkedTarget, server: TrackingServer
) -> None:
    config = server.config() | {"writekey": "a-secret", "add_record_metadata": True}
    run = target.run(config)
    assert run.status == 0, run.stderr
    (warning,) = [line for line in run.stderr.splitlines() if "WARNING" in line]
    assert "there is no setting 'writekey'" in warning
    assert "'write_key' was meant" in warning
    assert "a-secret" not in run.stderr


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, "https://api.segment.io/v1/batch"),
        ("", "https://api.segment.io/v1/batch"),
        ("https://events.eu1.segmentapis.com", "https://events.eu1.segmentapis.com/v1/batch"),
        ("https://events.eu1.segmentapis.com/v1", "https://events.eu1.segmentapis.com/v1/batch"),
        ("http://127.0.0.1:8321/", "http://127.0.0.1:8321/v1/batch"),
        ("http://127.0.0.1:8321/v1/batch", "http://127.0.0.1:8321/v1/batch"),
        ("https://proxy.example/segment", "https://proxy.example/segment/v1/batch"),
    ],
)
def test_batches_go_to_the_endpoints_batch_path(endpoint: str | None, url: str) -> None:
    config = {"write_key": "k"} | ({} if endpoint is None else {"endpoint": endpoint})
    assert Settings.read(config).url == url


def test_a_write_key_is_what_segment_gives_out() -> None:
    assert Settings.read({"write_key": "aZ09-_=+/"}).write_key == "aZ09-_=+/"
    with pytest.raises(SettingError):
        Settings.read({"write_key": "a b"})


def test_settings_come_from_the_environment(target: ForkedTarget, server: TrackingServer) -> None:
    env = {
        "TARGET_SEGMENT_WRITE_KEY": WRITE_KEY,
        "TARGET_SEGMENT_ENDPOINT": server.url,
        "TARGET_SEGMENT_DEAD_LETTER": "letters",
    }
    events = [*records(3), records(1)[0] | {"id": "nobody", "user_id": None}]
    run = target.run({}, run_lines(events), "--config=ENV", env=env)
    assert run.status == 0, run.stderr
    assert server.accepted.keys() == {record["id"] for record in records(3)}


def test_a_variable_that_cannot_be_read_is_told_by_its_name(target: ForkedTarget) -> None:
    env = {"TARGET_SEGMENT_WRITE_KEY": "secret", "TARGET_SEGMENT_STREAM_MAPS": "{secret"}
    run = target.run({}, (), "--config=ENV", env=env)
    is_refused(run, "stream_maps: TARGET_SEGMENT_STREAM_MAPS holds no JSON")
    assert "secret" not in run.stderr


def test_an_expression_that_fails_is_told_by_stream_and_column(
    target: ForkedTarget, server: TrackingServer
) -> None:
    maps = {"email_*": {"user_id": "config['salt'] + anonymous_id"}}
    config = server.config(stream_maps=maps, stream_map_config={"salt": "secret"})
    run = target.run(config, run_lines(records(5)))
    is_refused(run, f"stream_maps: {records(1)[0]['event']}.user_id: it fails on an event")
    assert "secret" not in run.stderr


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ("line 2 is no JSON", [schema_line("email_sent"), b'{"type": "RECORD", "stre\n']),
        ("line 1 is no JSON", [b"\xff\xfe\n"]),
        ("line 1 is no JSON", [b"[" * 10_000 + b"\n"]),
        ("line 1 is JSON, but no object", [b"[]\n"]),
        ("line 1 is a message without type", [line({"stream": "email_sent"})]),
        ("line 1 is a message without record", [line({"type": "RECORD", "stream": "email_sent"})]),
        ("line 1 is a message of an unknown type", [line({"type": "GREETING", "a": "@"})]),
        (
            "line 1 is a message of type ACTIVATE_VERSION before the SCHEMA message of its stream",
            [line({"type": "ACTIVATE_VERSION", "stream": "email_sent", "version": 1})],
        ),
        (
            "line 2 is a BATCH message whose files cannot be read: No such file or directory",
            [schema_line("email_sent"), batch_line("file:///@absent/batch.gz")],
        ),
        ("email_sent", [record_line(records(1)[0], "email_sent")]),
        ("key_properties", [schema_line("email_sent"), record_line({"a": "@"}, "email_sent")]),
    ],
    ids=[
        "cut-off",
        "no-text",
        "deep",
        "array",
        "no-type",
        "no-record",
        "type",
        "version",
        "batch",
        "order",
        "key",
    ],
)
def test_a_message_that_cannot_be_used_is_told_in_one_line_and_not_repeated(
    target: ForkedTarget, server: TrackingServer, said: str, lines: list[bytes]
) -> None:
    run = target.run(server.config(), [*lines, state_line(1)])
    assert "the tap: " in is_refused(run, said)
    assert "@" not in run.stderr
    assert server.asked == []


def test_a_stream_without_events_is_told_before_anything_is_sent(
    target: ForkedTarget, server: TrackingServer
) -> None:
    things = schema_line("things", {"properties": {"id": {"type": "integer"}}})
    run = target.run(server.config(), [*run_lines(records(5)), things])
    is_refused(run, "stream things: no event name")
    assert server.asked == []


def test_flattened_events_are_sent_as_they_were(
    target: ForkedTarget, server: TrackingServer
) -> None:
    events = records(20)
    assert any(record["properties"] for record in events)
    flattening = {"flattening_enabled": True, "flattening_max_depth": 2}
    for config in (server.config(), server.config(**flattening)):
        assert target.run(config, run_lines(events)).status == 0
    plain, flattened = server.calls[: len(events)], server.calls[len(events) :]
    assert flattened == plain


def test_tracks_is_ignored_with_a_notice(target: ForkedTarget, server: TrackingServer) -> None:
    events = records(5)
    in_tracks = [record_line(record, "tracks") for record in events]
    run = target.run(
        server.config(), [schema_line("tracks"), *in_tracks, *run_lines(events), state_line(6)]
    )
    assert run.status == 0
    assert len(server.calls) == len(events)
    assert server.accepted.keys() == {record["id"] for record in events}
    assert "stream tracks is not sent" in run.stderr
    assert "5 records of tracks not sent" in run.stderr
    assert run.state == {"position": 6}


NOBODY = records(1)[0] | {"id": "nobody", "user_id": None, "anonymous_id": None}
LONG = records(2)[1] | {"id": "long", "properties": {"text": "x" * 40_000}}


@pytest.mark.parametrize(
    ("record", "reason"), [(NOBODY, "no identity"), (LONG, "longer than 32768 bytes")]
)
def test_without_a_dead_letter_file_an_undeliverable_event_ends_the_run(
    target: ForkedTarget, server: TrackingServer, record: dict[str, Any], reason: str
) -> None:
    lines = list(run_lines([*records(5), record]))
    run = target.run(server.config(), lines)
    place = lines.index(record_line(record)) + 1
    said = f"line {place} of the input, event {record['id']} can never be delivered: {reason}"
    error = is_refused(run, said)
    assert f"stream {record['event']}: " in error
    assert "dead_letter" in error
    assert "@" not in run.stderr


def test_a_refused_event_without_a_dead_letter_file_ends_the_run(
    target: ForkedTarget, server: TrackingServer
) -> None:
    record = records(5)[3]
    server.poison = {record["id"]}
    lines = list(run_lines(records(5)))
    run = target.run(server.config(), lines)
    place = lines.index(record_line(record)) + 1
    said = f"line {place} of the input, event {record['id']} can never be delivered: refused with"
    is_refused(run, f"{said} HTTP 400")


def test_an_event_of_a_foreign_stream_is_named_by_its_line_and_not_by_its_key(
    target: ForkedTarget, server: TrackingServer
) -> None:
    text = {"type": ["string", "null"]}
    columns = dict.fromkeys(("email", "event", "user_id", "created_at"), text)
    orders = [schema_line("orders", {"properties": columns}, ["email"])]
    for number, user in enumerate(["1", "2", None, "4"]):
        key = {"email": f"person{number}@example.com", "created_at": "2026-11-23T00:00:00Z"}
        orders.append(record_line(key | {"event": "Ordered", "user_id": user}, "orders"))
    # What a stream map drops is a line all the same.
    maps = {"orders": {"__filter__": "user_id != '1'"}}
    run = target.run(server.config(stream_maps=maps), orders)
    is_refused(run, "stream orders: line 4 of the input, event ")
    assert "@" not in run.stderr


def test_dead_letters_hold_the_call_and_the_reason_and_are_for_the_owner_only(
    target: ForkedTarget, server: TrackingServer
) -> None:
    path = target.folder / "letters"
    refused = records(5)[3]
    server.poison = {refused["id"]}
    events = [*records(5), NOBODY, LONG]
    run = target.run(server.config(dead_letter=str(path)), run_lines(events))
    assert run.status == 0, run.stderr
    assert run.state == {"position": 7}
    letters = {letter["id"]: letter for letter in map(json.loads, path.read_text().splitlines())}
    assert {name: letter["reason"] for name, letter in letters.items()} == {
        "nobody": "no identity",
        "long": "longer than 32768 bytes",
        refused["id"]: "refused with HTTP 400",
    }
    for record in (NOBODY, LONG, refused):
        letter = letters[record["id"]]
        assert letter["stream"] == record["event"]
        assert letter["call"]["messageId"] == record["id"]
        assert letter["call"]["event"] == record["event_text"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "4 events sent in " in run.stderr
    assert ", 3 dead letters" in run.stderr


def test_a_dead_letter_file_that_cannot_be_written_is_told_before_anything_is_sent(
    target: ForkedTarget, server: TrackingServer
) -> None:
    config = server.config(dead_letter=str(target.folder / "absent" / "letters"))
    is_refused(target.run(config, run_lines(records(5))), "dead_letter: cannot write")
    assert server.asked == []


def test_the_figures_are_told_in_one_line(target: ForkedTarget, server: TrackingServer) -> None:
    run = target.run(server.config(), run_lines(records(50)))
    streams = {record["event"] for record in records(50)}
    expected = f"50 events sent in {len(streams)} requests, 0 dead letters"
    told = [said for said in run.stderr.splitlines() if "events sent" in said]
    assert len(told) == 1
    assert told[0].endswith(expected)


@pytest.mark.parametrize("path", ["", "/v1/batch"])
def test_what_the_documentation_says_makes_events_of_another_taps_records(
    target: ForkedTarget, server: TrackingServer, path: str
) -> None:
    (text,) = docs.blocks("loading/target-segment.md", "yaml")
    (loader,) = yaml.safe_load(text)
    assert loader["name"] == "target-segment"
    columns = {"id": {"type": "integer"}, "customer": {"type": "string"}, "created_at": {}}
    order = {"id": 1, "customer": "c-1", "created_at": "2026-11-23T00:00:00Z"}
    lines = [schema_line("orders", {"properties": columns}), record_line(order, "orders")]
    config = server.config(**loader["config"]) | {"endpoint": f"{server.url}{path}"}
    assert target.run(config, lines).status == 0
    (call,) = server.calls
    assert (call["event"], call["userId"]) == ("Order Completed", "c-1")


def test_a_stream_map_that_names_no_column_of_its_stream_sends_nothing(server: TrackingServer):
    maps = {"email_sent": {"context_trait_email": None}}
    with pytest.raises(SettingError, match="context_traits_email was meant"):
        send_inline(server.config(stream_maps=maps), run_lines(records(5)))
    assert server.calls == []


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ({"email_snt": {"context_traits_email": None}}, "no stream email_snt came in"),
        ({"*": {"context_trait_email": None}}, "context_traits_email was meant"),
        ({"email_*": {"link_url": None}}, None),
    ],
    ids=str,
)
def test_stream_maps_that_had_no_effect_are_said_at_the_end(server, caplog, maps, said):
    send_inline(server.config(stream_maps=maps), run_lines(records(60)))
    said_all = [each.getMessage() for each in caplog.records]
    warnings = [each for each in said_all if "stream_maps" in each]
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]
