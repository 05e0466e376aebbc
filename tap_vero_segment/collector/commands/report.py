"""``vero-collector report``: read the tables, and write what was asked for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from tap_vero_segment.report.funnel import Question
    from tap_vero_segment.report.warehouse import Report

logger = logging.getLogger("vero-collector")

_STANDARD_OUTPUT = Path("-")


class Layout(NamedTuple):
    """How the text is laid out: see :func:`tap_vero_segment.report.text.text`."""

    top: int
    width: int
    coloured: bool


def report(
    file: Path | None,
    url: str | None,
    *,
    schema: str,
    question: Question,
    csv_path: Path | None,
    html_path: Path | None,
    layout: Layout,
) -> str:
    """Report on loaded tables.

    Args:
        file: A DuckDB file; None: the tables are in PostgreSQL.
        url: A PostgreSQL database; None: the tables are in the file.
        schema: The schema that the tables are in.
        question: What is counted.
        csv_path: Where to write the figures as CSV; ``-`` returns them.
        html_path: Where to write them as a page.
        layout: How the text is laid out.

    Returns:
        What to print.

    Raises:
        StoreError: PostgreSQL cannot be read.
        UserError: The tables cannot be read, a file cannot be written, or a package is missing.
    """
    found = _read(file, url, schema, question, detailed=html_path is not None)
    if html_path is not None:
        from tap_vero_segment.report.html import page  # noqa: PLC0415

        _write(html_path, page(found))
    if csv_path is not None:
        from tap_vero_segment.report.csv import spreadsheet  # noqa: PLC0415

        figures = spreadsheet(found)
        if csv_path == _STANDARD_OUTPUT:
            for note in found.notes:
                logger.info(note)
            return figures
        _write(csv_path, figures)
    from tap_vero_segment.report.text import text  # noqa: PLC0415

    return text(found, **layout._asdict()) + "\n"


def _read(
    file: Path | None, url: str | None, schema: str, question: Question, *, detailed: bool
) -> Report:
    if file is not None:
        from tap_vero_segment.report.warehouse import read_duckdb  # noqa: PLC0415

        return read_duckdb(file, schema, question, detailed=detailed)
    from tap_vero_segment.report.warehouse import read_postgres  # noqa: PLC0415

    return read_postgres(url or "", schema, question, detailed=detailed)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UserError(msg) from error
