"""``vero-collector`` in processes that are forked from one that has imported it already.

Importing takes longer than most commands of a test. Each command is a process of its own all the
same, with its own signals and exit status, in which the command line does what it always does.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tests.support.forked_tap import ForkedProcess, TapForks, run_forked, serve_forks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class CollectorForks(TapForks):
    """The process that forks, started when it is first wanted."""

    program = ("-m", "tests.support.forked_collector")

    def __init__(self) -> None:
        super().__init__()
        self._of_python: dict[str, str] | None = None

    def can_be(self, env: Mapping[str, str]) -> bool:
        """Whether Python runs with these settings of its own, which it reads once and early."""
        if self._of_python is None:
            self._of_python = _of_python(os.environ)
        return _of_python(env) == self._of_python

    def launch(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: dict[str, str],
        outputs: tuple[int, int],
    ) -> ForkedProcess:
        """Start a command; its standard output and standard error are two open files."""
        return ForkedProcess(*self.fork(cwd, list(arguments), env, outputs))


def _of_python(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith("PYTHON")}


FORKS = CollectorForks()


def _import_all() -> None:
    import tap_vero_segment.collector
    import tap_vero_segment.report

    for package in (tap_vero_segment.collector, tap_vero_segment.report):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            # Importing a __main__ module is running it; some need what is not installed.
            if not module.name.endswith(".__main__"):
                with suppress(ImportError):
                    importlib.import_module(module.name)


if __name__ == "__main__":
    _import_all()
    gc.freeze()  # what is imported is collected in no process, and so copied for none
    serve_forks(socket.socket(fileno=int(sys.argv[1])), "vero-collector")

    from tap_vero_segment.collector.cli import main
    from tests.support.wrapped import wrap

    wrap()
    run_forked(partial(main, prog_name="vero-collector"))
