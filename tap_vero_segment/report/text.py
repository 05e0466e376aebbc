"""The report for a terminal, and for a pipe."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Final

from tap_vero_segment.report.funnel import STEPS
from tap_vero_segment.report.warehouse import extra
from tap_vero_segment.terminal import table

with extra("rich"):
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

if TYPE_CHECKING:
    from tap_vero_segment.report.funnel import Campaign, Line
    from tap_vero_segment.report.warehouse import Report

WIDTH: Final = 100
"""Characters of a line."""

NOTHING: Final = "\N{EN DASH}"
"""A rate of nothing."""

_BAR: Final = 32
_COLOURS: Final = {"bounced": "yellow", "unsubscribed": "yellow", "spam": "red"}


def text(report: Report, *, coloured: bool = False) -> str:
    """Lay out a report: rows per table, then each campaign with bars and its weeks."""
    out = StringIO()
    console = Console(
        file=out,
        width=WIDTH,
        force_terminal=coloured,
        color_system="standard" if coloured else None,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    for line in table(("table", "rows"), [(name, f"{count:,}") for name, count in report.rows]):
        console.print(line)
    if report.campaigns:
        console.print("\nCampaigns. Rates and bars are of unique recipients.")
    for note in report.notes:
        console.print(note, overflow="fold")
    for campaign in report.campaigns:
        console.print()
        console.print(Text(campaign.total.label, style="bold"), overflow="fold")
        console.print(_steps(campaign.total))
        console.print()
        console.print(Text(_weeks(campaign)), soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def percent(rate: float | None) -> str:
    """Write a rate for people."""
    return NOTHING if rate is None else f"{rate:.1%}"


def _steps(total: Line) -> Table:
    grid = _grid()
    grid.add_column("", min_width=14)
    for name in ("events", "recipients", "rate"):
        grid.add_column(name, justify="right", min_width=10)
    grid.add_column("", min_width=12)
    grid.add_column("", width=_BAR)
    most = max(total.recipients.values())
    for step in STEPS:
        recipients = total.recipients[step.name]
        grid.add_row(
            step.title,
            f"{total.events[step.name]:,}",
            f"{recipients:,}",
            percent(total.rates[step.name]) if step.of else "",
            f"of {step.of}" if step.of else "",
            Bar(most or 1, 0, recipients, width=_BAR, color=_COLOURS.get(step.name, "green")),
        )
    return grid


def _weeks(campaign: Campaign) -> str:
    """Lay out the weeks, which can be thousands: rich would take seconds."""
    header = ["week of", *(step.title for step in STEPS[:-1]), "spam"]
    rows = [
        [
            str(line.week),
            *(
                f"{line.recipients[step.name]:,}"
                + (f" {percent(line.rates[step.name]):>6}" if step.of else "")
                for step in STEPS
            ),
        ]
        for line in campaign.weeks
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    )


def _grid() -> Table:
    return Table(
        box=None, show_header=True, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0)
    )
