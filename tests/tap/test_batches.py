"""BATCH: files that hold what the RECORD messages would have held."""

from __future__ import annotations

import gzip
import json
import random
import signal
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.odd import odd
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.store import fill
from tests.support.stored import ids_by_stream, stored, url_of
from tests.support.streams import ALL_STREAMS, DEFAULT_STREAMS, bookmark_of, catalog_of
from tests.support.tap import Messages, read_messages, select

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap


def batches_to(folder: Path, size: int = 10_000) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return {
        "batch_config": {
            "encoding": {"format": "jsonl", "compression": "gzip"},
            "storage": {"root": folder.as_uri(), "prefix": "part-"},
            "batch_size": size,
        }
    }


def rows_of(manifest: list[str]) -> list[dict[str, Any]]:
    rows = []
    for url in manifest:
        with gzip.open(unquote(urlsplit(url).path), "rt", encoding="utf-8") as file:
            rows += [json.loads(line) for line in file.read().split("\n") if line]
    return rows


def unpacked(messages: Messages) -> Messages:
    """The same messages, with a RECORD for each row of a BATCH in its place."""
    lines: list[str] = []
    for message in messages.all:
        assert message["type"] != "RECORD"
        if message["type"] == "BATCH":
            assert message["encoding"] == {"format": "jsonl", "compression": "gzip"}
            lines += [
                json.dumps({"type": "RECORD", "stream": message["stream"], "record": row})
                for row in rows_of(message["manifest"])
            ]
        else:
            lines.append(json.dumps(message))
    return read_messages(lines)


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
    tap: ForkedTap, everything: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    catalog = catalog_of(*ALL_STREAMS)
    config = config | {"source": url_of(everything)}
    if column := config.pop("deselect", None):
        for stream in ALL_STREAMS:
            select(catalog, stream, column=column, selected=False)
    plain = tap.good(config, catalog=catalog)
    batched = unpacked(tap.good(config | batches_to(tmp_path / "files"), catalog=catalog))
    assert batched.records == plain.records
    assert batched.schemas == plain.schemas
    assert batched.state == plain.state
    assert len(batched.records) > 10


def test_a_deselected_address_is_in_no_file(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill(path, [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES])
    catalog = catalog_of(*ALL_STREAMS)
    for stream in ALL_STREAMS:
        select(catalog, stream, column="context_traits_email", selected=False)
    folder = tmp_path / "files"
    tap.good({"source": url_of(path)} | batches_to(folder), catalog=catalog)
    texts = [gzip.decompress(file.read_bytes()) for file in folder.iterdir()]
    assert len(texts) == len(ALL_STREAMS)
    for text in texts:
        assert b'"loaded_at"' in text
        assert b"context_traits_email" not in text
        assert b"steve@getvero.com" not in text


def test_a_state_follows_the_batches_that_it_takes_for_read(
    tap: ForkedTap, everything: Path, tmp_path: Path
) -> None:
    events = stored(everything)
    messages = tap.good({"source": url_of(everything)} | batches_to(tmp_path / "files", size=100))
    written: dict[str, list[str]] = {}
    states = 0
    for message in messages.all:
        if message["type"] == "BATCH":
            rows = rows_of(message["manifest"])
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


@pytest.mark.parametrize("way", ["SIGTERM", "SIGKILL"])
def test_interrupted_batches_together_give_what_was_stored(
    tap: ForkedTap, everything: Path, tmp_path: Path, way: str
) -> None:
    chance = random.Random(way)
    # So small that the pipe cannot hold the messages of half a run.
    config = {"source": url_of(everything)} | batches_to(tmp_path / "files", size=20)
    state: dict[str, Any] | None = None
    got: dict[str, list[str]] = {}
    interruptions = 0
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
        messages = unpacked(read_messages(output.split(b"\n")[:-1]))
        last = max(at for at, message in enumerate([START, *messages.all]) if is_state(message))
        before, after = messages.all[:last], messages.all[last:]
        if way == "SIGTERM":
            assert not any(message["type"] == "RECORD" for message in after)
        # What came after the last state comes again.
        for message in before:
            if message["type"] == "RECORD":
                got.setdefault(message["stream"], []).append(message["record"]["id"])
        state = messages.state or state
    expected = ids_by_stream(stored(everything))
    assert got == {stream: expected[stream] for stream in DEFAULT_STREAMS}
    assert interruptions >= 2


START = {"type": "STATE"}
"""Stands for the state that a run starts with."""


def is_state(message: dict[str, Any]) -> bool:
    return bool(message["type"] == "STATE")
