"""Runs a target through the phases."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.collector import clean_environment
from tests.support.s3 import without_aws
from tests.targets.matrix.compare import Changes, compare
from tests.targets.matrix.destinations import ZONE
from tests.targets.matrix.feed import ARCHIVE, PHASES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.targets.matrix.destinations import Destination, Servers
    from tests.targets.matrix.feed import Feed, Messages
    from tests.targets.matrix.rows import Target

    Row = dict[str, Any]


class Outcome(NamedTuple):
    """What came of a phase.

    Attributes:
        rows: How many rows there are then.
        changes: What differs from what was sent up to then.
        log: What the target said.
    """

    rows: int
    changes: Changes
    log: str


def run(
    target: Target, variant: str, feed: Feed, folder: Path, servers: Servers
) -> dict[str, Outcome]:
    """Load each phase in turn, the archive into a place of its own; compare after each."""
    outcomes = {}
    destination, sent = _place(target, folder / "collector", servers), {}
    for phase in PHASES:
        if phase == ARCHIVE:
            destination.remove()
            destination, sent = _place(target, folder / "archive", servers), {}
        messages = feed.messages[variant, phase]
        changes = Changes()
        log = _load(target, destination, messages, changes)
        for stream, records in messages.records.items():
            of_stream = sent.setdefault(stream, {})
            for record in records:
                times = of_stream.get(record["id"], (0,))[0] if target.appends else 0
                of_stream[record["id"]] = (times + 1, record)
        rows = 0
        for stream, kinds in messages.kinds.items():
            found = destination.rows(stream)
            rows += len(found)
            expected = [
                record for times, record in sent.get(stream, {}).values() for _ in range(times)
            ]
            changes |= compare(expected, found, kinds)
        outcomes[phase] = Outcome(rows, changes, log)
    destination.remove()
    return outcomes


def _place(target: Target, folder: Path, servers: Servers) -> Destination:
    folder.mkdir(parents=True)
    return target.destination(folder, servers)


def _load(target: Target, destination: Destination, messages: Messages, changes: Changes) -> str:
    """Load messages; return what the target logged."""
    work = destination.folder.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    config = work / "config.json"
    config.write_text(json.dumps({**destination.config, **target.config}))
    environment = without_aws(clean_environment())
    # Nothing may depend on where the machine is.
    environment |= {"TZ": ZONE, "TMPDIR": str(work), "AWS_DEFAULT_REGION": "eu-west-1"}
    started = int(time.time())
    with messages.path.open("rb") as lines:
        done = subprocess.run(
            [*target.install(), "--config", str(config)],
            cwd=work,
            env=environment,
            stdin=lines,
            capture_output=True,
            timeout=600,
            check=False,
        )
    if done.returncode:
        changes.add("ends with an error")
    else:
        states = done.stdout.split(b"\n")[:-1]
        if not states:
            changes.add("writes no STATE")
        elif json.loads(states[-1]) != messages.state:
            changes.add("writes another STATE")
    while int(time.time()) == started:
        time.sleep(0.02)  # some name their files by the second
    return done.stderr.decode(errors="replace")
