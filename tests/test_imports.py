"""Which module may know of which: the data walks one way, and two programs share few rooms."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tap_vero_segment

ROOT = Path(tap_vero_segment.__file__).parent
PACKAGE = ROOT.name


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
# Importing a __main__ module is running it.
COLLECTOR = [
    name
    for name in MODULES
    if f"{name}.".startswith(f"{PACKAGE}.collector.") and not name.endswith(".__main__")
]


@functools.cache
def imports(name: str) -> set[str]:
    """The package's modules that a module imports, anywhere in it and be it for their types."""
    path = MODULES[name]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, which this does not follow"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in MODULES else node.module or "" for name in names)
    return found & MODULES.keys()


def reached_from(name: str) -> set[str]:
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imports(module)
    return reached


def loaded_by(*names: str) -> set[str]:
    """What a fresh interpreter has loaded after importing modules."""
    code = f"import {', '.join(names)}, sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def within(loaded: set[str], *packages: str) -> set[str]:
    return {name for name in loaded if f"{name}.".startswith(tuple(f"{p}." for p in packages))}


def test_the_graph_is_that_of_the_package():
    assert f"{PACKAGE}.tap.tap" in imports(f"{PACKAGE}.tap")
    assert f"{PACKAGE}.times" in imports(f"{PACKAGE}.inputs.vero")
    assert f"{PACKAGE}.collector.serve" in imports(f"{PACKAGE}.collector.cli")  # in a function
    assert f"{PACKAGE}.track" in imports(f"{PACKAGE}.record")  # for its types


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: imports(name) for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_tap_loads_nothing_of_the_collector():
    loaded = loaded_by(f"{PACKAGE}.tap")
    assert f"{PACKAGE}.tap.tap" in loaded
    assert not within(loaded, "uvicorn", f"{PACKAGE}.collector")


def test_the_collector_loads_nothing_of_the_tap():
    loaded = loaded_by(*COLLECTOR)
    assert f"{PACKAGE}.collector.serve" in loaded
    assert not within(loaded, "singer_sdk", f"{PACKAGE}.tap")


def test_neither_program_ever_comes_to_the_other():
    assert not within(reached_from(f"{PACKAGE}.tap"), f"{PACKAGE}.collector")
    for name in COLLECTOR:
        assert not within(reached_from(name), f"{PACKAGE}.tap"), name


@pytest.mark.parametrize("room", ["times", "errors", "collection", "track"])
def test_what_every_room_shares_knows_of_no_room(room):
    shared = {f"{PACKAGE}.{name}" for name in ("times", "errors", "collection", "track")}
    assert reached_from(f"{PACKAGE}.{room}") <= shared


def test_the_tap_loads_what_is_rarely_wanted_when_it_is_wanted_only():
    loaded = loaded_by(f"{PACKAGE}.tap")
    assert not within(loaded, "distributed", "dask", "pyarrow", "obstore")
    assert f"{PACKAGE}.tap.settings" in loaded
    assert f"{PACKAGE}.tap.workers.cluster" not in loaded
