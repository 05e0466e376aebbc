"""What people see on a terminal: tables, text that is safe to print, and progress."""

from __future__ import annotations

import json
import logging
import sys
import time
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

logger = logging.getLogger("vero-collector")

PROGRESS_SECONDS: Final = 5.0
"""How often a line says how far work has come, where no terminal shows a bar."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    cut: Collection[str] = (),
) -> list[str]:
    """Lay out rows under a header, text to the left, figures to the right; return the lines.

    Args:
        header: The columns' names.
        rows: A cell for each column.
        width: Characters of a line: columns are cut so that lines fit; None: nothing is cut.
        cut: The columns that may be, the widest first, down to the length of their names.
    """
    widths = [max(map(_width, column)) for column in zip(header, *rows, strict=True)]
    least = [
        _width(name) if name in cut else present
        for name, present in zip(header, widths, strict=True)
    ]
    while width is not None and sum(widths) + 2 * len(widths) - 2 > width:
        left = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not left:
            break
        widths[max(left, key=widths.__getitem__)] -= 1

    def line(row: Sequence[str]) -> str:
        cells = (_fill(cell, width) for cell, width in zip(row, widths, strict=True))
        return "  ".join(cells).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)]


def _fill(cell: str, width: int) -> str:
    """Make a cell as wide as its column: cut, or filled up with blanks."""
    blanks = " " * (width - _width(cell))
    if _width(cell) > width:
        while _width(cell) >= width > 0:
            cell = cell[:-1]
        cell += "…"
        blanks = " " * (width - _width(cell))
    return blanks + cell if _is_figure(cell) else cell + blanks


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def _is_figure(cell: str) -> bool:
    return set(cell) <= set("0123456789,.% -")


_FORMULA: Final = ("=", "+", "-", "@", "\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}",
                   "\N{FULLWIDTH HYPHEN-MINUS}", "\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
"""What makes a spreadsheet take a cell for a formula, and run it."""


def spreadsheet_safe(cell: str) -> str:
    """Return a cell of a CSV with a ``'`` in front, if a spreadsheet would run it as a formula."""
    return f"'{cell}" if cell.lstrip().startswith(_FORMULA) else cell


def printable(text: str, *, is_json: bool = False) -> str:
    r"""Write out what a terminal would obey instead of showing it: ``\x1b`` for an escape.

    Line ends and tabs stay.

    Args:
        text: The text.
        is_json: Whether it is JSON, and is to stay so: ``\u001b``.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or each in "\n\t"
        else json.dumps(each)[1:-1]
        if is_json
        else each.encode("unicode_escape").decode()
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
