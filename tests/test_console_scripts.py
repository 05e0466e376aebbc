"""A signal that comes while a console script is still importing ends it quietly."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

SCRIPTS = ("tap-vero-segment", "target-segment", "vero-collector")

# Stops where the first of the heavy modules is imported, and says so.
_STOP = """
import importlib, sys, time

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name in {"click", "singer_sdk"}:
            print("importing", flush=True)
            time.sleep(60)

module, _, function = sys.argv.pop(1).partition(":")
script = getattr(importlib.import_module(module), function)
sys.meta_path.insert(0, Stop())
script()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_signal_while_python_imports_ends_a_script_without_a_traceback(
    name: str, number: signal.Signals
) -> None:
    (script,) = entry_points(group="console_scripts", name=name)
    with subprocess.Popen(
        [sys.executable, "-c", _STOP, script.value],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == b""
