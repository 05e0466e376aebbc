"""Messages that no tap should write: each ends the run with a line, and no state is ahead."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.exceptions import MissingKeyPropertiesError, RecordsWithoutSchemaException
from singer_sdk.singerlib.exceptions import InvalidInputLine

from tap_vero_segment.errors import UserError
from tests.support.collector import clean_environment
from tests.support.inline_target import send_inline
from tests.support.pipeline import TARGET
from tests.support.rounds import by_rounds, rounds
from tests.support.singer_events import (
    batch_line,
    line,
    position_of,
    records,
    run_lines,
    schema_line,
    state_line,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.tracking_server import TrackingServer

TOLD = (InvalidInputLine, MissingKeyPropertiesError, RecordsWithoutSchemaException, UserError)
"""Errors that are reported in one line."""

SCHEMA = json.loads(schema_line("email_sent"))


def message(kind: str, **fields: Any) -> bytes:
    return line({"type": kind, "stream": "email_sent"} | fields)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\n", "no JSON that can be read"),
        (b"null\n", "JSON, but no object"),
        (line({"type": ["RECORD"]}), "a message of an unknown type"),
        (line({"type": None}), "a message of an unknown type"),
        (line({"type": "STATE"}), "a message without value"),
        (line({"type": "STATE", "value": None}), "a message with an unusable value"),
        (line({"type": "STATE", "value": ["a"]}), "a message with an unusable value"),
        (message("RECORD", record=[1]), "a message with an unusable record"),
        (message("RECORD", record={}, stream=7), "a message with an unusable stream"),
        (message("SCHEMA"), "a message without schema"),
        (message("SCHEMA", schema={}), "a SCHEMA message that cannot be used"),
        (message("SCHEMA", schema={"properties": []}), "a SCHEMA message that cannot be used"),
        (message("SCHEMA", schema={"properties": {"id": 7}}), "a SCHEMA message that cannot be"),
        (
            line(SCHEMA | {"key_properties": 7}),
            "a SCHEMA message that cannot be used",
        ),
        (message("ACTIVATE_VERSION"), "a message without version"),
        (message("ACTIVATE_VERSION", version=1, stream="others"), "before the SCHEMA message"),
        (batch_line("file:///nowhere", stream="others"), "before the SCHEMA message"),
        (message("BATCH", encoding={}, manifest=["a"]), "a BATCH message whose files cannot be"),
        (message("BATCH", encoding={}, manifest=[7]), "a BATCH message whose files cannot be"),
        (message("BATCH", encoding={"format": "csv"}, manifest=["a"]), "a BATCH message whose"),
        (message("BATCH", encoding={"format": "jsonl"}), "a message without manifest"),
    ],
    ids=str,
)
def test_an_odd_message_is_refused_by_its_line(
    server: TrackingServer, text: bytes, said: str
) -> None:
    states: list[dict[str, Any]] = []
    with pytest.raises(InvalidInputLine, match=r"^line 2 is ") as raised:
        send_inline(
            server.config(), [schema_line("email_sent"), text, state_line(1)], states.append
        )
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert states == []


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        gzip.compress(b"{}", mtime=0)[:-6],
        gzip.compress(b"{half", mtime=0),
        gzip.compress(b"7", mtime=0),
    ],
    ids=["not-gzip", "cut", "half-an-object", "number"],
)
def test_a_batch_file_that_cannot_be_read_is_refused(
    server: TrackingServer, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "file").write_bytes(content)
    lines = [schema_line("email_sent"), batch_line(f"file://{tmp_path}/file"), state_line(1)]
    states: list[dict[str, Any]] = []
    with pytest.raises(InvalidInputLine, match=r"^line 2 is a BATCH message whose files cannot be"):
        send_inline(server.config(), lines, states.append)
    assert states == []


def test_activate_version_changes_nothing(server: TrackingServer) -> None:
    lines = [schema_line("email_sent"), message("ACTIVATE_VERSION", version=1), state_line(1)]
    assert send_inline(server.config(), lines) == [{"position": 1}]


ODD = [None, True, -1.5, 10**30, "", "x", "\ud800", [], [None], {}, {"a": 1}, {"type": 5}]


def spoilt(chance: random.Random, lines: list[bytes]) -> list[bytes]:
    """Change a few of some messages' fields, or their order."""
    messages = [json.loads(each) for each in lines]
    if chance.random() < 0.2:
        chance.shuffle(messages)
    for _ in range(chance.randrange(1, 4)):
        holder = chance.choice(messages)
        while chance.random() < 0.6:
            inner = [value for value in holder.values() if isinstance(value, dict) and value]
            holder = chance.choice(inner) if inner else holder
        holder[chance.choice([*holder])] = chance.choice(ODD)
    return [json.dumps(each).encode() + b"\n" for each in messages]


@by_rounds
@pytest.mark.parametrize("seed", range(rounds(40)))
def test_whatever_a_tap_writes_ends_in_a_line_and_no_state_is_ahead(
    server: TrackingServer, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    events = records(12)
    config = server.config(dead_letter=str(tmp_path / "letters"))
    if chance.random() < 0.3:
        config |= {"flattening_enabled": True, "flattening_max_depth": 3}
    if chance.random() < 0.3:
        config["stream_maps"] = {"*": {"__alias__": "'raw_' + __stream_name__"}}
    try:
        states = send_inline(config, spoilt(chance, list(run_lines(events, every=4))))
    except TOLD:
        return
    assert all(position_of(state) in {0, 4, 8, 12} for state in states if "position" in state)


def test_a_state_that_cannot_be_written_is_told_in_a_line(
    server: TrackingServer, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(server.config()), encoding="utf-8")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [*TARGET, "--config", str(tmp_path / "config.json")],
            input=b"".join(run_lines(records(3))),
            stdout=full,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            timeout=60,
            check=False,
        )
    errors = [each for each in done.stderr.decode().splitlines() if "INFO" not in each]
    assert done.returncode == 1
    assert len(errors) == 1, errors
    assert "the state cannot be written: No space left on device" in errors[0]


def test_a_dead_letter_that_cannot_be_kept_holds_the_state_back(server: TrackingServer) -> None:
    nobody = records(1)[0] | {"user_id": None, "anonymous_id": None}
    states: list[dict[str, Any]] = []
    with pytest.raises(UserError, match="dead_letter: cannot write /dev/full: No space left"):
        send_inline(server.config(dead_letter="/dev/full"), run_lines([nobody]), states.append)
    assert states == []
