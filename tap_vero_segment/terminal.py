"""What people see of a command: tables, text that is safe to print, progress."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from logging import Logger

INTERVAL: Final = 5.0
"""Seconds between two lines about progress."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows under a header, text to the left, figures to the right; return the lines."""
    widths = [max(len(row[index]) for row in (header, *rows)) for index in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if _is_figure(cell) else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        )
        return "  ".join(cells).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)]


def _is_figure(cell: str) -> bool:
    return set(cell) <= set("0123456789,.% -")


def printable(text: str) -> str:
    r"""Write out what a terminal would obey instead of showing it: ``\x1b`` for an escape.

    Line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode()
        for each in text
    )


class Progress(ExitStack):
    """Shows how far a long command has come: a bar on a terminal, or a line of the log at times.

    Args:
        size: The bytes that there are to read; 0: nobody knows.
        logger: Where the lines go.
    """

    def __init__(self, size: int, logger: Logger) -> None:
        super().__init__()
        self._size = size
        self._logger = logger
        self._read = self._things = 0
        self._shown = time.monotonic()
        self._bar: Any = None
        if size and sys.stderr.isatty():
            self._bar = self.enter_context(click.progressbar(length=size, file=sys.stderr))

    def read(self, size: int, things: int) -> None:
        """Count what was read.

        Args:
            size: Bytes more than before.
            things: How many records, in all.
        """
        self._read += size
        self._things = things
        if self._bar is not None:
            self._bar.update(size)
        elif time.monotonic() - self._shown >= INTERVAL:
            self._shown = time.monotonic()
            of = f" of {self._size / 1e6:.1f}" if self._size else ""
            self._logger.info("read: %.1f%s MB, %d records", self._read / 1e6, of, self._things)
