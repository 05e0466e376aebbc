"""The memory that a run takes does not depend on how large the objects and lines are."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.archive import FIRST_DAY, lines_of, path_of, track
from tests.support.collector import clean_environment
from tests.support.tap import tap_command

if TYPE_CHECKING:
    from pathlib import Path

SMALL = 20_000_000
LARGE = 400_000_000
"""Bytes, unzipped."""
WITHIN = 1.3


def write_gzip(path: Path, block: bytes, times: int) -> None:
    """Write a block many times over as one gzip member, which is compressed once only."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(1, zlib.DEFLATED, -15).flush()
    checksum = 0
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
        for _ in range(times):
            file.write(packed)
            checksum = zlib.crc32(block, checksum)
        file.write(end)
        file.write(checksum.to_bytes(4, "little"))
        file.write((len(block) * times % 2**32).to_bytes(4, "little"))


def block_of_calls(size: int, ours: int, length: int = 0) -> bytes:
    """Lines as they are in real archives, of which one in so many is ours."""
    chance = random.Random(4)
    lines = []
    held = 0
    while held < size:
        number = chance.randrange(10**9)
        event = "Email Opened" if number % ours == 0 else "Order Completed"
        padding = chance.randbytes(max(length // 2, 80)).hex()
        line = lines_of([track(number, event, FIRST_DAY + timedelta(seconds=held % 86_400))])
        lines.append(line[:-2] + b',"padding":"%b"}\n' % padding.encode())
        held += len(lines[-1])
    return b"".join(lines)


# A process begins with the peak of the one that it was started from, which must be a small one.
_MEASURE = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
open("measured", "w").write(f"{status} {usage.ru_maxrss}")
"""


class Used(NamedTuple):
    kilobytes: int
    records: int


def run(folder: Path) -> Used:
    """Run the tap over an archive; return the most memory that it had, and what came out."""
    command = tap_command(
        folder, {"source": (folder / "archive").as_uri(), "dead_letter": str(folder / "letters")}
    )
    with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
        subprocess.run(
            [sys.executable, "-c", _MEASURE, *command],
            cwd=folder,
            env=clean_environment(),
            stdout=output,
            stderr=errors,
            check=False,
        )
    status, kilobytes = map(int, (folder / "measured").read_text().split())
    assert status == 0, (folder / "stderr").read_text()
    with (folder / "stdout").open("rb") as lines:
        return Used(kilobytes, sum(b'"type":"RECORD"' in line for line in lines))


def of_size(tmp_path: Path, block: bytes, size: int) -> Used:
    folder = tmp_path / str(size)
    write_gzip(folder / "archive" / path_of("source", 0, "x.gz"), block, max(size // len(block), 1))
    return run(folder)


@pytest.fixture(scope="module")
def modest(tmp_path_factory) -> Used:
    """What an object of twenty megabytes takes."""
    return of_size(tmp_path_factory.mktemp("modest"), block_of_calls(4_000_000, 20), SMALL)


def test_a_large_object_takes_hardly_more_memory_than_a_modest_one(tmp_path, modest: Used):
    used = of_size(tmp_path, block_of_calls(4_000_000, 20), LARGE)
    assert used.records > 10 * modest.records > 0
    assert used.kilobytes < WITHIN * modest.kilobytes


def test_a_line_without_an_end_takes_hardly_more_memory(tmp_path, modest: Used):
    used = of_size(tmp_path, b"x" * 4_000_000, LARGE)
    assert used.records == 0
    assert used.kilobytes < WITHIN * modest.kilobytes


def test_many_large_lines_of_ours_are_not_held_together(tmp_path, modest: Used):
    used = of_size(tmp_path, block_of_calls(10_000_000, 1, 900_000), LARGE // 4)
    assert used.records > 200
    # A page of them is a few times eight megabytes on its way, not a thousand lines.
    assert used.kilobytes < modest.kilobytes + 100_000
