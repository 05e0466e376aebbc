"""``tracks``, whatever it is called: its events come with their collections, and go out once."""

from __future__ import annotations

import gzip
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.collection import COMMON_COLUMNS
from tap_vero_segment.errors import UserError
from tap_vero_segment.targets.segment.mapping import is_tracks
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

if TYPE_CHECKING:
    from pathlib import Path

    from tap_vero_segment.record import Record
    from tests.support.tracking_server import TrackingServer

EVENTS = records(40)
COMMON = {column.name for column in COMMON_COLUMNS}
TEXT = {"type": ["string", "null"]}


def in_tracks(record: Record) -> Record:
    return {name: value for name, value in record.items() if name in COMMON}


def with_tracks(tracks: str = "tracks") -> list[bytes]:
    """Each event twice, as the tap writes it: in its collection and in ``tracks``."""
    lines = [schema_line("tracks"), *run_lines(EVENTS[:0])]
    lines += [schema_line(stream) for stream in sorted({each["event"] for each in EVENTS})]
    for record in EVENTS:
        lines += [record_line(in_tracks(record), tracks), record_line(record)]
    return [*lines, state_line(len(EVENTS))]


def renamed(lines: list[bytes], name: str) -> list[bytes]:
    return [each.replace(b'"tracks"', f'"{name}"'.encode()) for each in lines]


@pytest.mark.parametrize(
    "stream_map",
    [
        {"__alias__": "'raw_' + __stream_name__"},
        {"__alias__": "__stream_name__ + '_v2'"},
        {"__alias__": "'all_of_them'"},
        {"source": "'vero'", "__alias__": "'raw_' + __stream_name__"},
        {"source": "'vero'"},
        {"context_traits_email": None, "__alias__": "'raw_' + __stream_name__"},
    ],
    ids=str,
)
@pytest.mark.parametrize("flattening", [{}, {"flattening_enabled": True}], ids=["", "flattened"])
def test_renamed_streams_are_sent_once_with_all_their_columns(
    server: TrackingServer, stream_map: dict[str, Any], flattening: dict[str, Any]
) -> None:
    send_inline(server.config(), run_lines(EVENTS))
    plain, server.calls = server.calls, []
    if flattening:
        flattening = flattening | {"flattening_max_depth": 1}
    config = server.config(stream_maps={"*": stream_map}, **flattening)
    states = send_inline(config, with_tracks())
    assert {call["messageId"] for call in server.calls} == {record["id"] for record in EVENTS}
    assert len(server.calls) == len(EVENTS)
    if "context_traits_email" not in stream_map:
        of_id = {call["messageId"]: call["properties"] for call in plain}
        for call in server.calls:
            added = {"source": "vero"} if "source" in stream_map else {}
            assert call["properties"] == of_id[call["messageId"]] | added
    assert states[-1] == {"position": len(EVENTS)}


@pytest.mark.parametrize("order", [("email_sent", "tracks"), ("tracks", "email_sent")])
def test_streams_that_the_tap_has_given_one_name_are_sent_once(
    server: TrackingServer, order: tuple[str, ...]
) -> None:
    """The last SCHEMA message of a name holds for all of its records."""
    lines = [*map(schema_line, order)]
    lines = [
        each.replace(f'"{name}"'.encode(), b'"all"')
        for each, name in zip(lines, order, strict=True)
    ]
    for record in EVENTS:
        lines += [record_line(in_tracks(record), "all"), record_line(record, "all")]
    assert send_inline(server.config(), [*lines, state_line(1)]) == [{"position": 1}]
    assert [call["messageId"] for call in server.calls] == [record["id"] for record in EVENTS]
    assert all(call["properties"]["email_id"] for call in server.calls)


@pytest.mark.parametrize("columns", [{"artist": TEXT}, {"properties": {"type": "object"}}], ids=str)
@pytest.mark.parametrize("event", ["event", "event_text"])
def test_another_taps_stream_of_that_name_is_sent(
    server: TrackingServer, columns: dict[str, Any], event: str
) -> None:
    song = {"id": "s-1", event: "Song Played", "user_id": "7", "timestamp": "2026-11-23T09:24:00Z"}
    schema = {"properties": dict.fromkeys(song, TEXT) | columns}
    lines = [schema_line("tracks", schema), record_line(song, "tracks"), state_line(1)]
    assert send_inline(server.config(), lines) == [{"position": 1}]
    assert [call["event"] for call in server.calls] == ["Song Played"]


@pytest.mark.parametrize(
    ("stream", "columns", "expected"),
    [
        ("tracks", COMMON, True),
        ("raw_tracks", COMMON, True),
        ("raw_tracks", COMMON - {"context"}, True),
        ("raw_tracks", COMMON | {"added"}, True),
        ("raw_tracks", COMMON | {"campaign_id"}, False),
        ("raw_tracks", COMMON | {"properties"}, False),
        ("email_sent", COMMON, False),
        # Segment's own tables, as another tap reads them.
        ("tracks", COMMON - {"loaded_at", "context"} | {"uuid_ts", "context_page_url"}, True),
        ("signed_out", COMMON - {"loaded_at", "context"} | {"uuid_ts"}, False),
        ("order_completed", COMMON - {"context"} | {"uuid_ts", "total"}, False),
    ],
)
def test_tracks_is_known_by_its_columns(stream: str, columns: set[str], expected: bool) -> None:  # noqa: FBT001
    assert is_tracks(stream, columns) is expected


@pytest.mark.parametrize("name", ["tracks", "raw_tracks"])
@pytest.mark.parametrize("others", [[], ["user_created"]], ids=["alone", "with-users"])
def test_only_tracks_is_an_error_and_the_state_stays(
    server: TrackingServer, monkeypatch: pytest.MonkeyPatch, name: str, others: list[str]
) -> None:
    monkeypatch.setattr("tap_vero_segment.targets.segment.target.DRAIN_AT", 1)
    lines = [schema_line("tracks"), *map(schema_line, others)]
    for position, record in enumerate(EVENTS, start=1):
        lines += [record_line(in_tracks(record), "tracks"), state_line(position)]
    states: list[dict[str, Any]] = []
    with pytest.raises(UserError, match="select the collections' streams"):
        send_inline(server.config(), renamed(lines, name), states.append)
    assert states == []
    assert server.asked == []


def test_only_tracks_in_files_is_an_error_too(server: TrackingServer, tmp_path: Path) -> None:
    path = tmp_path / "tracks.jsonl.gz"
    path.write_bytes(gzip.compress(line(in_tracks(EVENTS[0]))))
    lines = [
        schema_line("tracks"),
        batch_line(f"file://{path}", stream="tracks"),
        state_line(1),
    ]
    states: list[dict[str, Any]] = []
    with pytest.raises(UserError, match="only tracks came in"):
        send_inline(server.config(), lines, states.append)
    assert states == []


def test_a_state_between_tracks_and_the_collections_waits_for_them(
    server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tap reads table after table."""
    monkeypatch.setattr("tap_vero_segment.targets.segment.target.DRAIN_AT", 1)
    lines = [schema_line("tracks"), record_line(in_tracks(EVENTS[0]), "tracks"), state_line(1)]
    stream = EVENTS[0]["event"]
    lines += [schema_line(stream), record_line(EVENTS[0]), state_line(2)]
    assert {"position": 1} not in send_inline(server.config(), lines)
    assert len(server.calls) == 1


def test_events_that_came_with_tracks_only_are_counted_and_named(
    server: TrackingServer, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("target-segment")
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger.name)
    lines = [schema_line("tracks"), schema_line("email_sent")]
    lines += [record_line(in_tracks(record), "tracks") for record in EVENTS]
    lines += [record_line(record) for record in EVENTS if record["event"] == "email_sent"]
    send_inline(server.config(), [*lines, state_line(1)])
    logger.removeHandler(caplog.handler)
    others = [record for record in EVENTS if record["event"] != "email_sent"]
    assert len(server.calls) == len(EVENTS) - len(others)
    streams = ", ".join(sorted({record["event"] for record in others}))
    said = f"{len(others)} events came with tracks only and were not sent: select their streams"
    assert f"{said} ({streams})" in caplog.messages
    assert f"{len(EVENTS)} records of tracks not sent" in caplog.messages
