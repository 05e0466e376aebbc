"""The report as one HTML file that needs nothing else: figures, small charts, and their tables."""

from __future__ import annotations

import calendar
from base64 import b64encode
from collections import Counter
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from tap_vero_segment.report.funnel import STEPS
from tap_vero_segment.report.text import NOTHING_FOUND, percent
from tap_vero_segment.report.warehouse import extra

with extra("jinja2"):
    from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.report.funnel import Line, Question, Step
    from tap_vero_segment.report.warehouse import Details, Report

LABEL: Final = 80
"""Characters of a campaign's name; the CSV has all of them."""
WEEKS: Final = 1_000
"""Lines of weeks, those of the campaigns with the most recipients: 300 campaigns fit 300 KB."""

_HEIGHT: Final = 40
_TICKS: Final = 5
_LAST_TICK: Final = 82
"""Percent of the axis behind which a phone has no room for a date."""
_BY_DAY: Final = 70
"""Days of an axis that names days; a longer one names months."""
_BY_MONTH: Final = 6 * 366
"""Days of an axis that names months; a longer one names years."""
_SPANS: Final = (("day", 184), ("week", 1_100), ("month", 40 * 366))
"""What a bar stands for, and the most days of a chart for which it does; beyond, it is a year."""

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("tap_vero_segment.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.filters["digest"] = lambda text: b64encode(sha256(text.encode()).digest()).decode()
_TEMPLATE: Final = _ENVIRONMENT.get_template("report.html")


class _Bar(NamedTuple):
    """A day, week, month or year, and where it is drawn, in tenths of a day from the left."""

    name: str
    left: int
    width: int


class _Row(NamedTuple):
    """The bars of a step, as an SVG path, and the highest."""

    step: Step
    path: str
    most: int


class _Charts(NamedTuple):
    """Events on a true time axis: what has none is a gap.

    Attributes:
        unit: What a bar stands for: day, week, month or year.
        width: Tenths of the days that the axis shows.
        ticks: Dates, and where they stand, in percent.
        bars: The bars that have events, in order, with the events of each step.
        rows: A row of bars for each step.
    """

    unit: str
    width: int
    ticks: Sequence[tuple[str, float]]
    bars: Sequence[tuple[_Bar, Counter[str]]]
    rows: Sequence[_Row]


def page(report: Report) -> str:
    """Lay out a detailed report as HTML, with everything that it needs inside."""
    details = report.details
    if details is None:
        msg = "the report was read without its details"
        raise ValueError(msg)
    zone = ZoneInfo(report.question.timezone)
    earlier = details.period_before
    weeks, left = [], WEEKS
    for campaign in report.campaigns:
        if len(campaign.weeks) > left:
            break
        left -= len(campaign.weeks)
        weeks.append(campaign)
    return _TEMPLATE.render(
        report=report,
        details=details,
        steps=STEPS,
        percent=percent,
        nothing_found=NOTHING_FOUND,
        change=_change,
        name=lambda line: line.label_in(LABEL),
        period=_period(report.question, zone),
        earlier=_period(earlier, zone) if earlier else None,
        moment=lambda moment: f"{moment.astimezone(zone):%Y-%m-%d %H:%M}",
        charts=_charts(report, details, zone) if report.first else None,
        weeks=weeks,
    )


def _change(now: Line, before: Line, step: Step) -> list[str]:
    """Say what a step was before, and the change: recipients in percent, rates in points."""
    if step.of is None:
        first = before.recipients[step.name]
        by = (now.recipients[step.name] - first) / first * 100 if first else None
        was, unit = f"{first:,}", "%"
    else:
        rate, first_rate = now.rates[step.name], before.rates[step.name]
        by = None if rate is None or first_rate is None else (rate - first_rate) * 100
        was, unit = percent(first_rate), " points"
    changes = [] if by is None else [f"{by:+,.1f}{unit}" if round(by, 1) else "no change"]
    return [f"before: {was}", *changes]


def _period(question: Question, zone: ZoneInfo) -> str:
    """Say which time was asked for; a day is the last one if the period ends with it."""

    def local(text: str, back: timedelta) -> str:
        moment = datetime.fromisoformat(text).astimezone(zone)
        if moment.time() != moment.min.time():
            return f"{moment:%Y-%m-%d %H:%M}"
        return f"{moment - back:%Y-%m-%d}"

    since = question.since and local(question.since, timedelta(0))
    until = question.until and local(question.until, timedelta(microseconds=1))
    if since and until:
        return since if since == until else f"{since} to {until}"
    if since:
        return f"since {since}"
    return f"until {until}" if until else "everything that is loaded"


def _charts(report: Report, details: Details, zone: ZoneInfo) -> _Charts:
    first, last = _ends(report, details, zone)
    days = last.toordinal() - first.toordinal() + 1
    unit = next((unit for unit, most in _SPANS if days <= most), "year")
    found: dict[_Bar, Counter[str]] = {}
    for day, name, events in details.days:
        found.setdefault(_bar(day, unit, first, days), Counter())[name] += events
    rows = []
    for step in STEPS:
        most = max(counted[step.name] for counted in found.values())
        heights = [(bar, counted[step.name]) for bar, counted in found.items()]
        path = "".join(
            f"M{bar.left} {_HEIGHT}v-{max(2, round(_HEIGHT * events / most))}h{bar.width}"
            f"V{_HEIGHT}z"
            for bar, events in heights
            if events
        )
        rows.append(_Row(step, path, most))
    return _Charts(unit, 10 * days, _ticks(first, days), [*found.items()], rows)


def _ends(report: Report, details: Details, zone: ZoneInfo) -> tuple[date, date]:
    """Return the first and last day of the axis: those of the period, as far as it has passed."""
    begins, ends = [details.days[0][0]], [details.days[-1][0]]
    question = report.question
    if question.since is not None:
        begins.append(datetime.fromisoformat(question.since).astimezone(zone).date())
    if question.since is not None or question.until is not None:
        over = details.made_at
        if question.until is not None:
            moment = datetime.fromisoformat(question.until) - timedelta(microseconds=1)
            over = min(over, moment)
        ends.append(over.astimezone(zone).date())
    return min(begins), max(ends)


def _bar(day: date, unit: str, first: date, days: int) -> _Bar:
    begins, length, name = day, 1, f"{day}"
    if unit == "week":
        begins, length = day - timedelta(days=day.weekday()), 7
        name = f"week of {begins}"
    elif unit == "month":
        begins, length = day.replace(day=1), calendar.monthrange(day.year, day.month)[1]
        name = f"{day:%Y-%m}"
    elif unit == "year":
        begins, length = day.replace(month=1, day=1), 365 + calendar.isleap(day.year)
        name = f"{day:%Y}"
    left = begins.toordinal() - first.toordinal()
    right = min(left + length, days)
    left = max(left, 0)
    room = 10 * (right - left)
    # A bar of a period of few days is no wall.
    width = max(1, min(room * 17 // 20, days))
    return _Bar(name, 10 * left + (room - width) // 2, width)


def _ticks(first: date, days: int) -> list[tuple[str, float]]:
    """Choose dates for the axis: days, or the first days of months, or of years."""
    last = first + timedelta(days=days - 1)
    if days <= _BY_DAY:
        dates = [first + timedelta(days=day) for day in range(days)]
    else:
        months = range(1, 13) if days <= _BY_MONTH else (1,)
        dates = [
            date(year, month, 1) for year in range(first.year, last.year + 1) for month in months
        ]
    dates = [each for each in dates if first <= each <= last]
    form = "%-d %b" if days <= _BY_DAY else "%b %Y"
    ticks = [
        (each.strftime(form), round(100 * (each - first).days / days, 2))
        for each in dates[:: -(-len(dates) // _TICKS) or 1]
    ]
    return [(name, place) for name, place in ticks if place <= _LAST_TICK]
