"""BATCH: files that hold what the RECORD messages would have held."""

from __future__ import annotations

import gzip
import random
import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.archive import (
    FIRST_DAY,
    ArchiveObject,
    lines_of,
    path_of,
    text_of,
    track,
    zipped,
)
from tests.support.batches import JSONL, PARQUET, batches_to, local, rows_of, unpacked
from tests.support.faulty_s3 import FaultyS3
from tests.support.odd import odd
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.store import fill
from tests.support.stored import ids_by_stream, stored, url_of
from tests.support.streams import ALL_STREAMS, DEFAULT_STREAMS, bookmark_of, catalog_of
from tests.support.tap import read_messages, select

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A store with every type, with odd values, and with more than a page."""
    path = tmp_path / "store.db"
    every_type = [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES]
    fill(path, every_type + odd() + many(1_200))
    return path


MAPS = {
    "email_sent": {"recipient": "context_traits_email", "context_traits_email": None},
    "email_bounced": {"__filter__": "bounce_type == 'soft'"},
    "email_opened": {"__alias__": "opened"},
    "email_delivered": None,
    "clicks": {"__source__": "email_link_clicked", "__else__": None, "id": "id"},
    "email_unsubscribed": {"user_id": "md5(user_id)"},
}


ENCODINGS = [
    pytest.param(JSONL, id="gzip"),
    pytest.param({"format": "jsonl", "compression": "none"}, id="plain"),
    pytest.param(PARQUET, id="parquet"),
]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="plain"),
        pytest.param({"stream_maps": MAPS}, id="maps"),
        pytest.param({"flattening_enabled": True, "flattening_max_depth": 2}, id="flattening"),
        pytest.param({"deselect": "context_traits_email"}, id="selection"),
    ],
)
def test_files_hold_what_the_records_would(
    tap: ForkedTap,
    everything: Path,
    tmp_path: Path,
    config: dict[str, Any],
) -> None:
    catalog = catalog_of(*ALL_STREAMS)
    config = config | {"source": url_of(everything)}
    if column := config.pop("deselect", None):
        for stream in ALL_STREAMS:
            select(catalog, stream, column=column, selected=False)
    plain = tap.good(config, catalog=catalog)
    assert len(plain.records) > 10
    for encoding in (JSONL, PARQUET):
        batches = batches_to(tmp_path / encoding["format"], encoding=encoding)
        batched = unpacked(tap.good(config | batches, catalog=catalog))
        assert batched.records == plain.records
        assert batched.schemas == plain.schemas
        assert batched.state == plain.state


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_deselected_address_is_in_no_file(
    tap: ForkedTap, tmp_path: Path, encoding: dict[str, Any]
) -> None:
    path = tmp_path / "store.db"
    fill(path, [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES])
    catalog = catalog_of(*ALL_STREAMS)
    for stream in ALL_STREAMS:
        select(catalog, stream, column="context_traits_email", selected=False)
    folder = tmp_path / "files"
    batches = batches_to(folder, encoding=encoding)
    tap.good({"source": url_of(path)} | batches, catalog=catalog)
    files = [file.read_bytes() for file in folder.iterdir()]
    assert len(files) == len(ALL_STREAMS)
    for content in map(gzip.decompress, files) if encoding == JSONL else files:
        assert b"loaded_at" in content
        assert b"2015-06-22T23:37:18" in content or b"user_" in content or b"resub" in content
        assert b"context_traits_email" not in content
        assert b"steve@getvero.com" not in content


def test_a_state_follows_the_batches_that_it_takes_for_read(
    tap: ForkedTap, everything: Path, tmp_path: Path
) -> None:
    events = stored(everything)
    messages = tap.good({"source": url_of(everything)} | batches_to(tmp_path / "files", size=100))
    written: dict[str, list[str]] = {}
    states = 0
    for message in messages.all:
        if message["type"] == "BATCH":
            (url,) = message["manifest"]
            rows = rows_of(local(url), message["encoding"])
            assert 1 <= len(rows) <= 100
            written.setdefault(message["stream"], []).extend(row["id"] for row in rows)
        elif message["type"] == "STATE":
            states += 1
            bookmark = bookmark_of(message["value"], "tracks") or ""
            passed = [event for event in events if event.loaded_at <= bookmark]
            expected = ids_by_stream(passed)
            assert {stream: written[stream] for stream in written} == {
                stream: expected[stream] for stream in expected if stream in messages.schemas
            }
    assert states >= len(events) // 100
    assert messages.all[-1]["type"] == "STATE"
    again = tap.good(
        {"source": url_of(everything)} | batches_to(tmp_path / "files"), state=messages.state
    )
    assert {message["type"] for message in again.all} == {"SCHEMA", "STATE"}
    assert again.state == messages.state


ROUNDS = {"jsonl": rounds(8, least=3), "parquet": 2}
"""Interruptions of each way, by format: a small file of Parquet takes many times as long."""


@by_rounds
@pytest.mark.parametrize(
    ("way", "encoding"),
    [
        pytest.param("SIGTERM", JSONL, id="SIGTERM-jsonl"),
        pytest.param("SIGINT", PARQUET, id="SIGINT-parquet", marks=pytest.mark.slow),
        pytest.param("SIGKILL", JSONL, id="SIGKILL-jsonl"),
        pytest.param("SIGKILL", PARQUET, id="SIGKILL-parquet", marks=pytest.mark.slow),
    ],
)
def test_interrupted_batches_together_give_what_was_stored(
    tap: ForkedTap, everything: Path, tmp_path: Path, way: str, encoding: dict[str, Any]
) -> None:
    chance = random.Random(way)
    folder = tmp_path / "files"
    # So small that the pipe cannot hold the messages of half a run.
    config = {"source": url_of(everything)} | batches_to(folder, 20, encoding)
    expected = ids_by_stream(stored(everything))
    interruptions = 0
    while interruptions < ROUNDS[encoding["format"]]:
        state: dict[str, Any] | None = None
        got: dict[str, list[str]] = {}
        complete = False
        while not complete:
            # A page has eight batches at most, so that each run gets past its first state.
            until = chance.randrange(9, 60)
            with tap.start(config, state=state) as running:
                output = b""
                while output.count(b'"type":"BATCH"') < until and not complete:
                    line = running.stdout.readline()
                    output += line
                    complete = not line
                if not complete:
                    interruptions += 1
                    running.send_signal(signal.Signals[way])
                    output += running.stdout.read()
                status = running.wait()
            assert status == 0 or (not complete and way == "SIGKILL"), running.stderr()
            # Each file of each manifest is read, those after the last state too.
            messages = unpacked(read_messages(output.split(b"\n")[:-1]))
            last = max(at for at, message in enumerate([START, *messages.all]) if is_state(message))
            before, after = messages.all[:last], messages.all[last:]
            if way != "SIGKILL":
                assert not any(message["type"] == "RECORD" for message in after)
                assert not list(folder.glob(".*"))
            # What came after the last state comes again.
            for message in before:
                if message["type"] == "RECORD":
                    got.setdefault(message["stream"], []).append(message["record"]["id"])
            state = messages.state or state
        assert got == {stream: expected[stream] for stream in DEFAULT_STREAMS}


@pytest.mark.parametrize("encoding", [JSONL, PARQUET], ids=["jsonl", "parquet"])
def test_a_run_that_fails_tells_it_in_one_line_and_leaves_no_file(
    tap: ForkedTap, everything: Path, tmp_path: Path, encoding: dict[str, Any]
) -> None:
    folder = tmp_path / "files"
    # In a page, tracks come last, when the other streams' files are open.
    config = {"source": url_of(everything), "stream_maps": {"tracks": {"ratio": "1 / 0"}}}
    run = tap.run(config | batches_to(folder, 5_000, encoding))
    assert run.status == 1
    (told,) = [line for line in run.stderr.splitlines() if "INFO" not in line]
    assert "stream_maps: tracks.ratio: " in told
    assert not list(folder.iterdir())


START = {"type": "STATE"}
"""Stands for the state that a run starts with."""


def is_state(message: dict[str, Any]) -> bool:
    return bool(message["type"] == "STATE")


def test_objects_without_any_event_of_ours_move_the_bookmark_at_once(
    tap: ForkedTap, tmp_path: Path
) -> None:
    moments = [FIRST_DAY + timedelta(days=1, hours=hour) for hour in range(3)]
    content = zipped(lines_of([track(1, "Order Completed", FIRST_DAY)]))
    objects = [
        ArchiveObject(path_of("source", 0, f"{number}.gz"), content, moment, [])
        for number, moment in enumerate(moments)
    ]
    with FaultyS3(objects) as store:
        config = {"source": "s3://bucket", "storage_options": store.options}
        messages = tap.good(config | batches_to(tmp_path / "files"))
    bookmarks = [bookmark_of(state, "tracks") for state in messages.states if state["bookmarks"]]
    assert bookmarks[: len(moments)] == [text_of(moment) for moment in moments]
    assert not list((tmp_path / "files").iterdir())
