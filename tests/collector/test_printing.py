"""Standard output that cannot be written to: a full disk behind it, say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.collector import clean_environment, collector_command

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.is_char_device(), reason="no full device here")
@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["init"], ["status", "--help"], ["--version"]], ids=str)
def test_what_cannot_be_printed_is_told_in_a_line(tmp_path, arguments, buffered):
    with FULL.open("wb") as full:
        done = subprocess.run(
            collector_command(*arguments),
            cwd=tmp_path,
            env=clean_environment() | {"PYTHONUNBUFFERED": buffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    said = "vero-collector: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)
