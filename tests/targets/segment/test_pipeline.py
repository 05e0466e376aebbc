"""From a store through the tap and the target to a server, as processes joined by a pipe."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.inputs.segment import from_fields
from tap_vero_segment.record import to_record
from tests.support.collector import clean_environment
from tests.support.payloads import OTHER_TYPES, documented, many
from tests.support.pipeline import records_of_tap, run_pipeline, same
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.tap import read_messages, tap_command
from tests.support.tracking_server import WRITE_KEY
from tests.test_meltano import Project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_target import ForkedTarget
    from tests.support.tracking_server import TrackingServer


def test_what_is_in_the_store_arrives_once_and_as_it_is(
    tmp_path: Path, server: TrackingServer
) -> None:
    path = tmp_path / "vero-events.db"
    payloads = many(1_500) + [documented(vero_type) for vero_type in OTHER_TYPES]
    fill(path, payloads[:1_200])
    config = {"source": url_of(path)}
    states, log = run_pipeline(tmp_path, config, server.config())
    assert "1200 events sent" in log
    fill(path, payloads[1_200:])
    again, log = run_pipeline(tmp_path, config, server.config(), state=states[-1])
    assert f"{len(payloads) - 1_200} events sent" in log
    nothing, log = run_pipeline(tmp_path, config, server.config(), state=again[-1])
    assert "0 events sent" in log
    assert nothing[-1] == again[-1]

    expected = records_of_tap(tmp_path, config)
    assert set(Counter(call["messageId"] for call in server.calls).values()) == {1}
    assert server.accepted.keys() == expected.keys()
    for call in server.calls:
        received = from_fields({**call, "receivedAt": "2030-01-01T00:00:00Z"})
        assert received is not None
        record = to_record(received, BY_EVENT[received.event])
        assert same(record) == same(expected[call["messageId"]])


@pytest.mark.parametrize("stream_maps", [None, {"*": {"user_id": "md5(user_id)"}}])
def test_batch_messages_arrive_too(
    target: ForkedTarget, server: TrackingServer, tmp_path: Path, stream_maps: Any
) -> None:
    path = tmp_path / "vero-events.db"
    ids = fill(path, many(300))
    config = {
        "source": url_of(path),
        "batch_config": {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": f"file://{tmp_path}/batches"},
        },
    } | ({"stream_maps": stream_maps} if stream_maps else {})
    (tmp_path / "batches").mkdir()
    done = subprocess.run(
        tap_command(tmp_path, config),
        env=clean_environment(),
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert b'"BATCH"' in done.stdout
    run = target.run(server.config(), [done.stdout])
    assert run.status == 0, run.stderr
    assert server.accepted.keys() == set(ids)
    assert len(server.calls) == len(ids)
    hashed = {len(call["userId"]) == 32 for call in server.calls}
    assert hashed == {stream_maps is not None}
    assert run.state == read_messages(done.stdout.splitlines()).state


@pytest.mark.slow
def test_meltano_runs_it_and_goes_on_where_it_came_to(
    tmp_path: Path, server: TrackingServer
) -> None:
    project = Project(tmp_path)
    path = tmp_path / "vero-events.db"
    ids = fill(path, many(30))
    for _ in range(2):
        log = project.run(
            "run",
            "tap-vero-segment",
            "target-segment",
            TARGET_SEGMENT_WRITE_KEY=WRITE_KEY,
            TARGET_SEGMENT_ENDPOINT=server.url,
        )
        assert WRITE_KEY not in log
    assert server.accepted.keys() == set(ids)
    assert len(server.calls) == len(ids)
