from __future__ import annotations

import gc
import itertools
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.collector import Collector
from tests.support.forked_collector import FORKS
from tests.support.forked_tap import TAP_FORKS, ForkedTap
from tests.support.postgres import Postgres, running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = Path("/dev/shm")
_ENOUGH = 8 << 30
"""Bytes that must be free in memory before temporary files go there."""


def _byte_code_is_kept() -> None:
    """Compile what the tests' many processes import once, not in each process.

    Containers often forbid Python to leave byte code beside the sources, so it has a folder.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "pycache")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def _temporary_files_are_in_memory() -> None:
    """Put temporary files where fsync costs nothing; it is called there as everywhere."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return
    may_execute = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
    if may_execute and shutil.disk_usage(_MEMORY).free >= _ENOUGH:
        os.environ["TMPDIR"] = str(_MEMORY)
        tempfile.tempdir = None


# Before there are processes: they inherit both.
_byte_code_is_kept()
_temporary_files_are_in_memory()


def pytest_collection_finish() -> None:
    """Keep what collecting made, which is much, out of each garbage collection."""
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """As many as there are cores: with more, tests that watch the clock wait for each other."""
    return os.cpu_count() or 1


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[None]:
    """The processes that others are forked from end with the tests."""
    yield
    FORKS.stop()
    TAP_FORKS.stop()


@pytest.fixture
def tap(tmp_path: Path) -> ForkedTap:
    """The tap, each run in a process of its own."""
    return ForkedTap(TAP_FORKS, tmp_path)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    """A running collector on an empty store; nobody looks at it later, so that it is killed."""
    with Collector(tmp_path) as running:
        yield running
        if running.process is not None and running.process.poll() is None:
            running.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server; what stops or kills it, starts one of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database on it."""
    return postgres.create(f"test-{next(_numbers)}")


_numbers = itertools.count()
