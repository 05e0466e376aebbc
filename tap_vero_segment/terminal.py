"""What people see on a terminal: tables, text that is safe to print, and progress."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

logger = logging.getLogger("vero-collector")

PROGRESS_SECONDS: Final = 5.0
"""How often a line says how far work has come, where no terminal shows a bar."""


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


@contextmanager
def progress(label: str, total: int, unit: str = "events") -> Generator[Callable[[int], None]]:
    """Show how far long work has come: a bar on a terminal, otherwise a line every five seconds.

    Both go to standard error. Work that takes less says nothing without a terminal.

    Args:
        label: What is being done, such as ``exporting``.
        total: How much there is to do, as far as is known; 0: not known.
        unit: What is counted.

    Yields:
        A function that takes how much more has been done.
    """
    if total and sys.stderr.isatty():
        # Drawn at most a thousand times, and cleared of the terminal's escapes by click.
        steps = max(1, total // 1_000)
        with click.progressbar(
            length=total, label=label, file=sys.stderr, update_min_steps=steps
        ) as bar:
            yield bar.update
        return
    began = shown = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        now = time.monotonic()
        if now - shown < PROGRESS_SECONDS:
            return
        shown = now
        if total:
            left = max(0.0, (total - done) * (now - began) / max(done, 1))
            logger.info("%s: %d of %d %s, %.0f s left", label, done, total, unit, left)
        else:
            logger.info("%s: %d %s", label, done, unit)

    yield advance
