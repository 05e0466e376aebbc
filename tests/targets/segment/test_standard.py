"""The SDK's standard tests of targets.

Their streams are tables of things, not of events: each of them is refused at its SCHEMA message, as
it should be. With stream maps that give them what an event needs, all of them pass.
"""

from __future__ import annotations

import importlib.resources
import json
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.testing import get_target_test_class, target_test_streams
from singer_sdk.testing.suites import target_tests

from tap_vero_segment.errors import UserError
from tap_vero_segment.targets.segment import TargetSegment
from tests.support.inline_target import own_signal_handlers, send_inline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.tracking_server import TrackingServer

AS_EVENTS = {"event_text": "'Tested'", "user_id": "'7'", "timestamp": "'2026-11-23'"}
CONFIG: dict[str, Any] = {"stream_maps": {"*": AS_EVENTS}}

NO_STREAM = {
    "cli_prints": "reads no stream",
    "invalid_schema": "its schema has no columns at all",
    "record_before_schema": "begins with a record, for which there is a test above",
}
"""Standard tests that are not about a stream without events."""


@pytest.fixture(autouse=True)
def configured(server: TrackingServer) -> Iterator[None]:
    CONFIG.update(server.config())
    with own_signal_handlers():
        yield


class TestStandard(get_target_test_class(TargetSegment, config=CONFIG)):  # type: ignore[misc]
    """All of them, on the streams as events."""


BAD_RECORDS = {"record_missing_key_property"}
"""Standard tests whose records are refused, as they ask for."""

STREAMS = sorted({test.name or "" for test in target_tests.tests} - NO_STREAM.keys())


@pytest.mark.parametrize("name", STREAMS)
def test_a_standard_stream_that_has_no_events_is_refused_at_its_schema(
    server: TrackingServer, name: str
) -> None:
    path = importlib.resources.files(target_test_streams) / f"{name}.singer"
    first, *_ = path.read_bytes().splitlines(keepends=True)
    with pytest.raises(UserError) as raised:
        send_inline(server.config(), [first])
    said = str(raised.value)
    assert said.startswith(f"stream {json.loads(first)['stream']}: no event name ")
    assert "\n" not in said


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in BAD_RECORDS])
def test_the_records_of_a_standard_stream_arrive_as_the_events_that_they_are_mapped_to(
    server: TrackingServer, name: str
) -> None:
    path = importlib.resources.files(target_test_streams) / f"{name}.singer"
    lines = path.read_bytes().splitlines(keepends=True)
    messages = [json.loads(line) for line in lines]
    send_inline(server.config(stream_maps={"*": AS_EVENTS}), lines)
    sent = [message["record"] for message in messages if message["type"] == "RECORD"]
    assert len(server.calls) == len(sent)
    arrived = [call.get("properties", {}) for call in server.calls]
    for record in sent:
        columns = {name: value for name, value in record.items() if name.lower().strip("_") != "id"}
        assert any(columns.items() <= properties.items() for properties in arrived)
