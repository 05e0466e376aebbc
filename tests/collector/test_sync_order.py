"""The order of system calls: what is acknowledged was synced before."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import Collector
from tests.support.load import Load
from tests.support.payloads import many

if TYPE_CHECKING:
    from pathlib import Path

STRACE = shutil.which("strace")
EVENTS = 300

_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)")
_DESCRIPTOR = re.compile(r"\((\d+)<(.*?)>")


def trace(process: int, output: Path) -> subprocess.Popen:
    """Trace a process until it ends; skip the test where that is not allowed."""
    tracer = subprocess.Popen(
        [
            *(STRACE, "-f", "-y", "-s", "8192", "-o", str(output), "-p", str(process)),
            *("-e", "trace=pwrite64,write,fdatasync,fsync,sendto,send,sendmsg,writev"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    first = tracer.stderr.readline()
    if "attached" not in first:
        tracer.kill()
        tracer.communicate()
        pytest.skip(f"strace cannot trace here: {first}")
    return tracer


def check(lines: list[str], names: set[str]) -> int:
    """Go through a trace in order; return how many answers came after their syncs.

    An event is known by its user's address, which is in what is written to the log.
    """
    written: set[str] = set()
    synced: set[str] = set()
    answers = syncs = 0
    pending: dict[str, set[str]] = {}
    for line in lines:
        thread = line.split(" ", 1)[0]
        call = _CALL.match(line)
        if call is None:
            continue
        resumed = "resumed>" in line
        descriptor = _DESCRIPTOR.search(line)
        path = descriptor[2] if descriptor else ""
        if call[1] in {"fdatasync", "fsync"}:
            if not resumed and path.endswith("-wal"):
                pending[thread] = set(written)
            if "unfinished" not in line and thread in pending:
                assert line.rstrip().endswith("= 0"), line
                synced |= pending.pop(thread)
                syncs += 1
        elif call[1] == "pwrite64" and path.endswith("-wal"):
            written |= set(re.findall(r"person\d+@", line)) & names
        elif "HTTP/1.1 200" in line:
            answers += line.count("HTTP/1.1 200")
            # Each answer is of an event that was synced: there are never more of those.
            assert answers <= len(synced), f"an answer before its sync: {line[:200]}"
    assert syncs > 1
    return answers


@pytest.mark.skipif(STRACE is None, reason="needs strace")
@pytest.mark.parametrize("connections", [1, 16])
def test_the_sync_comes_before_the_answer(tmp_path, connections):
    payloads = many(EVENTS)
    output = tmp_path / "trace"
    with Collector(tmp_path) as collector:
        tracer = trace(collector.process.pid, output)
        load = Load(collector.url, iter(payloads))
        asyncio.run(load.run(connections))
        assert collector.stop() == 0
        assert tracer.wait(timeout=30) is not None
        tracer.stderr.close()
    assert len(load.acknowledged) == EVENTS

    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    names = {payload["user"]["email"].partition("@")[0] + "@" for payload in payloads}
    assert check(lines, names) == EVENTS

    # The check itself: without the syncs, or with them late, the order is told to be wrong.
    without = [line for line in lines if "fdatasync(" not in line and "fsync(" not in line]
    with pytest.raises(AssertionError):
        check(without, names)
    answer = next(n for n, line in enumerate(lines) if "HTTP/1.1 200" in line)
    with pytest.raises(AssertionError, match="an answer before its sync"):
        check([lines[answer], *lines[:answer], *lines[answer + 1 :]], names)
