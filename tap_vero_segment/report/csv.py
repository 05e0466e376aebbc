"""The report as CSV."""

from __future__ import annotations

import csv
from io import StringIO
from typing import TYPE_CHECKING

from tap_vero_segment.report.funnel import COLUMNS, STEPS
from tap_vero_segment.terminal import spreadsheet_safe

if TYPE_CHECKING:
    from tap_vero_segment.report.funnel import Line
    from tap_vero_segment.report.warehouse import Report


def spreadsheet(report: Report) -> str:
    """Write the SQL's columns: a campaign's line without a week, then its weeks, days or months.

    Rates are fractions, empty where there is nothing to divide by. A name that a spreadsheet would
    take for a formula has a ``'`` in front.
    """
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # The SQL's name for the span of time is week.
    writer.writerow([report.question.by if name == "week" else name for name in COLUMNS])
    for campaign in report.campaigns:
        for line in (campaign.total, *campaign.weeks):
            writer.writerow(_cells(line))
    return out.getvalue()


def _cells(line: Line) -> list[str | int | float | None]:
    return [
        spreadsheet_safe(line.campaign_id or ""),
        spreadsheet_safe(line.campaign),
        str(line.week or ""),
        *(line.events[step.name] for step in STEPS),
        *(line.recipients[step.name] for step in STEPS),
        *(
            None if (rate := line.rates[step.name]) is None else round(rate, 6)
            for step in STEPS
            if step.of
        ),
    ]
