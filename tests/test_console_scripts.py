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


_LIMIT = """
import importlib, resource, sys
module, _, function = sys.argv.pop(1).partition(":")
script = getattr(importlib.import_module(module), function)
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 4_000_000,) * 2)
script()
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_too_little_memory_to_import_is_told_in_a_line(name: str) -> None:
    (script,) = entry_points(group="console_scripts", name=name)
    done = subprocess.run(
        [sys.executable, "-c", _LIMIT, script.value], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert b"Traceback" not in done.stderr
