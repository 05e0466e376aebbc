"""The report as one HTML file that needs nothing else: charts, and tables beside them."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from tap_vero_segment.report.funnel import STEPS
from tap_vero_segment.report.text import percent
from tap_vero_segment.report.warehouse import extra

with extra("plotly"):
    from plotly import graph_objects
    from plotly.offline import get_plotlyjs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from tap_vero_segment.report.funnel import Campaign
    from tap_vero_segment.report.warehouse import Report

CHARTED: Final = 8
"""Campaigns in a chart, those with the most recipients: more cannot be told apart."""

_FUNNEL: Final = {
    "sent": "#4a6fa5",
    "delivered": "#74add1",
    "opened": "#2a9d8f",
    "clicked": "#e9a23b",
}
_CAMPAIGNS: Final = (
    "#4a6fa5", "#2a9d8f", "#e9a23b", "#c8553d", "#7b6cb0", "#5c946e", "#b5838d", "#6c757d",
)  # fmt: skip
_LABEL: Final = 32
"""Characters of a name in a chart; hovering shows all of it."""

_TEMPLATE: Final = Environment(
    loader=PackageLoader("tap_vero_segment.report", "."),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
).get_template("report.html")

_FONT: Final = "system-ui, sans-serif"
_GRID: Final = "rgba(123, 138, 151, 0.3)"


class _Chart(NamedTuple):
    title: str
    description: str
    html: str


def page(report: Report) -> str:
    """Lay out a report as HTML, with everything that it needs inside."""
    charted = report.campaigns[:CHARTED]
    return _TEMPLATE.render(
        report=report,
        steps=STEPS,
        percent=percent,
        left_out=len(report.campaigns) - len(charted),
        made_at=datetime.now(UTC),
        charts=_charts(charted, report.question.by) if charted else [],
        plotly=get_plotlyjs() if charted else "",
    )


def _charts(charted: Sequence[Campaign], by: str) -> list[_Chart]:
    return [
        _Chart(
            "From sent to clicked",
            "Unique recipients of each step, the whole time together.",
            _html(_steps(charted), "chart-steps"),
        ),
        _Chart(
            f"Sent, {by} by {by}",
            f"Unique recipients that emails were sent to, by the first day of the {by}.",
            _html(_sent(charted), "chart-sent"),
        ),
        _Chart(
            f"Opened, {by} by {by}",
            "Unique recipients that opened, as a share of those delivered to in the same time.",
            _html(_opened(charted), "chart-opened"),
        ),
    ]


def _steps(charted: Sequence[Campaign]) -> graph_objects.Figure:
    places = list(range(len(charted)))
    figure = graph_objects.Figure(
        [
            graph_objects.Bar(
                name=name,
                orientation="h",
                y=places,
                x=[each.total.recipients[name] for each in charted],
                marker={"color": colour},
                customdata=[_label(each) for each in charted],
                hovertemplate=f"%{{customdata}}<br>{name}: %{{x:,}}<extra></extra>",
            )
            for name, colour in _FUNNEL.items()
        ]
    )
    # Places and not names: a name could be another's, or look like a number or a date.
    names = {"tickvals": places, "ticktext": [_label(each, _LABEL) for each in charted]}
    figure.update_yaxes(**names, autorange="reversed", automargin=True)
    figure.update_xaxes(title="unique recipients", rangemode="tozero")
    figure.update_layout(**_layout(140 + 84 * len(charted)), barmode="group", bargap=0.25)
    return figure


def _sent(charted: Sequence[Campaign]) -> graph_objects.Figure:
    figure = graph_objects.Figure(
        [
            graph_objects.Bar(
                name=_label(each, _LABEL),
                x=[_place(line.week) for line in each.weeks],
                y=[line.recipients["sent"] for line in each.weeks],
                marker={"color": colour},
                customdata=[_label(each)] * len(each.weeks),
                hovertemplate="%{customdata}<br>%{x}: %{y:,}<extra></extra>",
            )
            for each, colour in zip(charted, _CAMPAIGNS, strict=False)
        ]
    )
    _by_date(figure)
    figure.update_yaxes(title="unique recipients", rangemode="tozero")
    figure.update_layout(**_layout(420), barmode="group", bargap=0.3)
    return figure


def _opened(charted: Sequence[Campaign]) -> graph_objects.Figure:
    figure = graph_objects.Figure(
        [
            graph_objects.Scatter(
                name=_label(each, _LABEL),
                mode="lines+markers",
                x=[_place(line.week) for line in each.weeks],
                y=[line.rates["opened"] for line in each.weeks],
                line={"color": colour, "width": 2},
                marker={"size": 8},
                customdata=[_label(each)] * len(each.weeks),
                hovertemplate="%{customdata}<br>%{x}: %{y:.1%}<extra></extra>",
            )
            for each, colour in zip(charted, _CAMPAIGNS, strict=False)
        ]
    )
    _by_date(figure)
    figure.update_yaxes(title="opened / delivered", tickformat=".0%", rangemode="tozero")
    figure.update_layout(**_layout(420))
    return figure


def _by_date(figure: graph_objects.Figure) -> None:
    # A time without emails is a gap.
    figure.update_xaxes(type="date", title="first day", hoverformat="%Y-%m-%d")


def _place(week: date | None) -> str:
    return str(week)


def _label(campaign: Campaign, length: int | None = None) -> str:
    """Return a campaign's name for a chart, in which some HTML would mean what it says."""
    name = campaign.total.label
    if length is not None and len(name) > length:
        name = f"{name[: length - 1]}\N{HORIZONTAL ELLIPSIS}"
    return escape(name, quote=False)


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 13, "color": "#7b8a97"},
        # In the middle between dark and light, for readers of either.
        "xaxis": {"gridcolor": _GRID, "zerolinecolor": _GRID},
        "yaxis": {"gridcolor": _GRID, "zerolinecolor": _GRID},
        "margin": {"l": 60, "r": 20, "t": 20, "b": 60},
        "legend": {
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "normal",
        },
        "hoverlabel": {"font": {"family": _FONT}, "namelength": -1},
        "showlegend": True,
    }


def _html(figure: graph_objects.Figure, name: str) -> str:
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        include_mathjax=False,
        div_id=name,
        config={"displaylogo": False, "displayModeBar": False, "responsive": True},
    )
    return html
