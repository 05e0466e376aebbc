"""The report for a terminal, and for a pipe."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from tap_vero_segment.report.funnel import STEPS
from tap_vero_segment.report.warehouse import extra
from tap_vero_segment.terminal import table

with extra("rich"):
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

if TYPE_CHECKING:
    from tap_vero_segment.report.funnel import Campaign, Line, Step
    from tap_vero_segment.report.warehouse import Report

DETAILED: Final = 5
"""Up to so many campaigns are each shown with bars and weeks; more are a line each."""

NOTHING_FOUND: Final = "Choose another period, campaign or channel, or load more events."
"""What to do where no event was counted."""
NOTHING: Final = "\N{EN DASH}"
"""A rate of nothing."""

_BAR: Final = 32
_BESIDE_BAR: Final = 66
"""Characters of a line beside its bar."""
_NAME: Final = 12
"""Characters of a campaign's name in a line with its figures, at least."""
_ENOUGH: Final = 28
"""Characters of the names that are worth more than the numbers beside the rates."""
_HEADER: Final = (*(step.title for step in STEPS[:-1]), "spam")
_COLOURS: Final = {"bounced": "yellow", "unsubscribed": "yellow", "spam": "red"}


def text(report: Report, *, top: int, width: int, coloured: bool = False) -> str:
    """Lay out a report: rows per table, then the campaigns.

    A few campaigns are shown with bars and by week, many in a line each.

    Args:
        report: What was found.
        top: How many campaigns are shown; the total is of all.
        width: Characters of a line.
        coloured: Whether colours are written.
    """
    out = StringIO()
    console = Console(
        file=out,
        width=width,
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
    console.print()
    if report.campaigns:
        console.print(f"Campaigns{_span(report)}. Rates and bars are of unique recipients.")
    else:
        console.print(f"No event of a campaign was found. {NOTHING_FOUND}")
    for note in report.notes:
        console.print(note, overflow="fold")
    if len(report.campaigns) > DETAILED:
        console.print()
        console.print(Text(_lines(report, top, width)), soft_wrap=True)
        return _stripped(out.getvalue())
    for campaign in report.campaigns[:top]:
        console.print()
        console.print(Text(campaign.total.label, style="bold"), overflow="fold")
        console.print(_steps(campaign.total, width))
        console.print()
        console.print(Text(_weeks(campaign, report.question.by, width)), soft_wrap=True)
    if len(report.campaigns) > 1:
        console.print()
        console.print(Text(f"Total of {len(report.campaigns):,} campaigns", style="bold"))
        console.print(_steps(report.total, width))
    return _stripped(out.getvalue())


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def _span(report: Report) -> str:
    """Say from when to when the events are."""
    if report.first is None or report.last is None:
        return ""
    zone = ZoneInfo(report.question.timezone)
    first, last = (each.astimezone(zone).date() for each in (report.first, report.last))
    return f", {first}" if first == last else f", {first} to {last}"


def _lines(report: Report, top: int, width: int) -> str:
    """Lay out many campaigns, a line each, and their total."""
    shown = [each.total for each in report.campaigns[:top]]
    total = report.total._replace(campaign=f"Total of {len(report.campaigns):,}")
    figures = [_figures(line, rates=True) for line in (*shown, total)]
    columns = [*zip(_HEADER, *figures, strict=True)]
    enough = min(max(len(line.label) for line in (*shown, total)), _ENOUGH)
    if sum(max(map(len, column)) + 2 for column in columns) + enough > width:
        columns = [*zip(_HEADER, *(_figures(line, rates=False) for line in (*shown, total)))]  # noqa: B905
    cells = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    room = max(width - sum(len(column[0]) + 2 for column in cells), _NAME)
    names = [line.label_in(room) for line in (*shown, total)]
    longest = max(map(len, names))
    rows = [
        "  ".join((name.ljust(longest), *row))
        for name, row in zip(("campaign", *names), zip(*cells, strict=True), strict=True)
    ]
    left_out = len(report.campaigns) - len(shown)
    more = [f"and {left_out:,} more: see --top, --csv and --campaign"] if left_out else []
    rule = "-" * max(map(len, rows))
    return "\n".join((rows[0], rule, *rows[1:-1], *more, rule, rows[-1]))


def _figures(line: Line, *, rates: bool) -> list[str]:
    """Write a line's figures: all of them, or of steps that are a share of others this share."""
    if rates:
        return [_with_rate(line, step) for step in STEPS]
    return [
        percent(line.rates[step.name]) if step.of else f"{line.recipients[step.name]:,}"
        for step in STEPS
    ]


def _with_rate(line: Line, step: Step) -> str:
    recipients = f"{line.recipients[step.name]:,}"
    return f"{recipients} {percent(line.rates[step.name]):>6}" if step.of else recipients


def percent(rate: float | None) -> str:
    """Write a rate for people."""
    return NOTHING if rate is None else f"{rate:.1%}"


def _steps(total: Line, width: int) -> Table:
    grid = _grid()
    bar = min(max(width - _BESIDE_BAR, 0), _BAR)
    grid.add_column("", min_width=14)
    for name in ("events", "recipients", "rate"):
        grid.add_column(name, justify="right", min_width=10)
    grid.add_column("", min_width=12)
    if bar:
        grid.add_column("", width=bar)
    most = max(total.recipients.values())
    for step in STEPS:
        recipients = total.recipients[step.name]
        grid.add_row(
            step.title,
            f"{total.events[step.name]:,}",
            f"{recipients:,}",
            percent(total.rates[step.name]) if step.of else "",
            f"of {step.of}" if step.of else "",
            *(
                [Bar(most or 1, 0, recipients, width=bar, color=_COLOURS.get(step.name, "green"))]
                if bar
                else []
            ),
        )
    return grid


def _weeks(campaign: Campaign, by: str, width: int) -> str:
    """Lay out the weeks, which can be thousands: rich would take seconds."""
    header = ["week of" if by == "week" else by, *_HEADER]
    for rates in (True, False):
        rows = [[str(line.week), *_figures(line, rates=rates)] for line in campaign.weeks]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        if sum(widths) + 2 * len(widths) <= width:
            break
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    )


def _grid() -> Table:
    return Table(
        box=None, show_header=True, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0)
    )
