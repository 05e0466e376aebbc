"""Runs over an archive that end before their time lose nothing."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.archive import Maker, as_written, events_of, write_folder
from tests.support.faulty_s3 import FaultyS3, slow
from tests.support.rounds import by_rounds, rounds
from tests.support.stored import ids_by_stream, ids_of
from tests.support.streams import states_never_run_ahead
from tests.support.tap import Messages, read_messages

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.archive import ArchiveObject
    from tests.support.faulty_s3 import Handler
    from tests.support.forked_tap import ForkedTap, RunningTap
    from tests.support.stored import Stored

ROUNDS = rounds(30)
OBJECTS = Maker().small(6, 1_100)

ENDS = ("SIGTERM", "SIGINT", "SIGKILL", "closed pipe")


def tracked(objects: list[ArchiveObject]) -> list[Stored]:
    """What the streams have that are selected by default."""
    return [event for event in events_of(objects) if "tracks" in event.streams]


class Interrupted(NamedTuple):
    messages: Messages
    early: bool
    """Whether it was interrupted before it had said all."""


def interrupt(running: RunningTap, how: str, lines: int) -> Interrupted:
    """Read some lines of a run, then end it; return what a target has got of it."""
    read = []
    while len(read) < lines and (line := running.stdout.readline()):
        read.append(line)
    early = len(read) == lines
    begun = bool(read)
    if how == "closed pipe":
        running.stdout.close()
        running.wait()
        return Interrupted(read_messages(read), early)
    with suppress(ProcessLookupError):  # it may have come to its end
        running.send_signal(getattr(signal, how))
    read += running.stdout.read().splitlines(keepends=True)
    status = running.wait()
    if how in {"SIGTERM", "SIGINT"}:
        # Before the tap is there to handle it, it does what it does to any process.
        assert status == 0 or not begun, running.stderr()
        assert "Traceback" not in running.stderr() or not begun
        for line in read:
            json.loads(line)
    return Interrupted(read_messages(line for line in read if line.endswith(b"\n")), early)


def slowly(handler: Handler) -> bool:
    """Send objects, but not listings, with pauses, so that a run can end amid a download."""
    return bool(handler.key) and slow(0.0002)(handler)


@by_rounds
def test_interrupted_runs_lose_nothing(tap: ForkedTap, tmp_path: Path):
    chance = random.Random(2_025)
    ended: Counter[str] = Counter()
    url = write_folder(tmp_path / "archive", OBJECTS)
    in_folder = tracked(as_written(tmp_path / "archive", OBJECTS))
    with FaultyS3(OBJECTS) as store:
        store.always = slowly
        bucket = {"source": "s3://bucket", "storage_options": store.options}
        places = [({"source": url}, in_folder), (bucket, tracked(OBJECTS))]
        while sum(ended.values()) < ROUNDS or set(ended) != set(ENDS):
            where, events = chance.choice(places)
            ended += _until_complete(tap, where | {"lookback_seconds": 0}, events, chance)


def _until_complete(
    tap: ForkedTap, config: dict[str, Any], events: list[Stored], chance: random.Random
) -> Counter[str]:
    """Run again and again until a run comes to its end; return how the others ended."""
    ended: Counter[str] = Counter()
    got: dict[str, set[str]] = defaultdict(set)
    state = None
    while True:
        how = chance.choice(ENDS)
        with tap.start(config, state=state) as running:
            messages, early = interrupt(running, how, chance.randrange(5_000))
        states_never_run_ahead(messages, events, got)
        for stream, ids in ids_of(messages.records).items():
            got[stream].update(ids)
        state = messages.state or state
        if not early:
            break
        ended[how] += 1
    expected = {stream: set(ids) for stream, ids in ids_by_stream(events).items()}
    assert got == expected
    return ended
