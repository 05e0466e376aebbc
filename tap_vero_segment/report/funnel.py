"""The campaign funnel: what its steps are, the SQL behind it, and its figures."""

from __future__ import annotations

import re
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from tap_vero_segment import times
from tap_vero_segment.errors import UserError
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date


class Step(NamedTuple):
    """A step of the funnel.

    Attributes:
        name: The step in the SQL's columns: ``delivered``, ``delivered_recipients``.
        table: The table whose events are the step.
        title: The step for people.
        of: The step that its rate is a share of; None: it has no rate.
    """

    name: str
    table: str
    title: str
    of: str | None


STEPS: Final = (
    Step("sent", "email_sent", "sent", None),
    Step("delivered", "email_delivered", "delivered", "sent"),
    Step("opened", "email_opened", "opened", "delivered"),
    Step("clicked", "email_link_clicked", "clicked", "delivered"),
    Step("bounced", "email_bounced", "bounced", "sent"),
    Step("unsubscribed", "email_unsubscribed", "unsubscribed", "delivered"),
    Step("spam", "email_marked_as_spam", "marked as spam", "delivered"),
)

SQL: Final = (
    resources.files("tap_vero_segment.report").joinpath("funnel.sql").read_text(encoding="utf-8")
)
"""The funnel over tables in the schema ``vero``, for whoever has all of them with all columns.

It has only what the manuals of DuckDB, PostgreSQL, Snowflake and BigQuery all have. Taking a whole
number of days off a date is in each: DuckDB, "Date Functions"; PostgreSQL, "Date/Time Operators";
Snowflake, "Date & time data types: Simple arithmetic for dates"; BigQuery, "Operators: Date
arithmetics operators". Truncating to a week is not: DATE_TRUNC has its arguments the other way
round in BigQuery, and begins the week as a session's parameter says in Snowflake.
"""

COLUMNS: Final = (
    "campaign_id",
    "campaign",
    "week",
    *(step.name for step in STEPS),
    *(f"{step.name}_recipients" for step in STEPS),
    *(f"{step.name}_rate" for step in STEPS if step.of),
)
"""The columns of the SQL's result, in order."""

_NEEDED: Final = {"id": "VARCHAR", "timestamp": "TIMESTAMP"}
_READ: Final = _NEEDED | dict.fromkeys(
    (
        "email_id",
        "campaign_id",
        "campaign_name",
        "campaign_channel",
        "user_id",
        "anonymous_id",
        "context_traits_email",
    ),
    "VARCHAR",
)
"""The columns that the SQL reads, and their types as DuckDB and PostgreSQL both call them."""

EMAIL: Final = "email"
"""The channel of events that have none."""
_OF_CHANNEL: Final = f"WHERE channel = '{EMAIL}'"
_BY_DATE: Final = "CAST({}happened_at AS DATE)"
_WEEK: Final = "event_date - CAST(weekday - 7 * FLOOR(weekday / 7) AS INTEGER) AS week"
PERIODS: Final = {
    "day": "event_date AS week",
    "week": _WEEK,
    "month": "event_date - CAST(EXTRACT(DAY FROM event_date) - 1 AS INTEGER) AS week",
}
"""Spans of time that figures can be given by, and the SQL of their first day."""
_EVERY_EVENT: Final = SQL.partition(",\n-- Push and SMS")[0]
"""The SQL's first part, before it looks at channels."""

_SPANS: Final = "spans AS ("
"""Where the SQL begins to count; what is not to be counted is left out there."""

_SOURCE: Final = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\bvero\.(\w+)")
"""A table of the SQL; or a comment or text, which can hold the name of one."""


class Question(NamedTuple):
    """What is counted.

    Attributes:
        channel: The only channel, in small letters; None: all.
        since: Only events that happened then or later, as fixed-width UTC text.
        until: Only events that happened before then.
        campaign: Only campaigns with this id, or with this in their name.
        by: The span of time that figures are given by, of :data:`PERIODS`.
        timezone: The time zone in which a day begins.
    """

    channel: str | None = EMAIL
    since: str | None = None
    until: str | None = None
    campaign: str | None = None
    by: str = "week"
    timezone: str = "UTC"


class Line(NamedTuple):
    """A campaign's figures, in all or in one span; names are cleaned for people to see.

    Attributes:
        campaign_id: Vero's id of the campaign; None where no event tells it.
        campaign: Its latest name.
        week: The first day of the week, day or month in which the events happened; None: all.
        events: Distinct events by step.
        recipients: Unique recipients by step.
        rates: By step, the share of the unique recipients of the step that it is a rate of; None
            where that has none.
    """

    campaign_id: str | None
    campaign: str
    week: date | None
    events: Mapping[str, int]
    recipients: Mapping[str, int]
    rates: Mapping[str, float | None]

    @property
    def label(self) -> str:
        """The campaign's name with its id: names can be shared."""
        return (
            self.campaign if self.campaign_id is None else f"{self.campaign} ({self.campaign_id})"
        )

    def label_in(self, length: int) -> str:
        """Return the label in so many characters; what is cut is the name, not the id."""
        label = self.label
        if len(label) <= length:
            return label
        kept = label[len(self.campaign) :]
        if len(kept) > length // 2:
            kept = ""
        return f"{label[: length - 1 - len(kept)]}\N{HORIZONTAL ELLIPSIS}{kept}"


class Campaign(NamedTuple):
    """A campaign's figures, in all and week by week, the weeks in order."""

    total: Line
    weeks: Sequence[Line]


def statement(schema: str, columns: Mapping[str, set[str]], question: Question) -> str:
    """Return the SQL for DuckDB and PostgreSQL, for what a schema really holds.

    A table that is not there counts as one without rows, a column as one of NULLs: a stream or a
    property may be deselected.

    Args:
        schema: The schema's name.
        columns: The columns of each table in it.
        question: What is counted.

    Raises:
        UserError: A table lacks a column without which nothing can be counted.
    """
    return _over(schema, columns, _chosen(question))


def total_statement(schema: str, columns: Mapping[str, set[str]], question: Question) -> str:
    """Return the SQL for all campaigns together; the arguments are as for :func:`statement`.

    Its rows are steps, with their distinct events, unique recipients, first and last time.
    """
    return _over(
        schema,
        columns,
        f"{_events(question)}\nSELECT step, COUNT(DISTINCT id), COUNT(DISTINCT recipient), "
        "MIN(happened_at), MAX(happened_at) FROM chosen GROUP BY step",
    )


def days_statement(schema: str, columns: Mapping[str, set[str]], question: Question) -> str:
    """Return the SQL for the distinct events of each day and step.

    Events, as those of several days can be added, and unique recipients cannot.
    """
    return _over(
        schema,
        columns,
        f"{_events(question._replace(by='day'))}\n"
        "SELECT week, step, COUNT(DISTINCT id) FROM chosen GROUP BY week, step ORDER BY week",
    )


DOMAINS: Final = 20
"""Receiving domains that are shown, those with the most bounces and complaints."""
UNKNOWN_DOMAIN: Final = "(not known)"
"""The domain of an event without an address, or whose address was replaced by a hash."""


def domains_statement(schema: str, columns: Mapping[str, set[str]], question: Question) -> str:
    """Return the SQL for the first domains, each with its distinct events and unique recipients.

    A row has a domain, a step, the two figures, and how many domains there are.
    """
    addresses = " UNION ALL ".join(
        f"SELECT t.id, t.context_traits_email FROM vero.{step.table} AS t"  # noqa: S608  # no value
        for step in STEPS
    )
    # What stands behind the last @; REVERSE, as PostgreSQL 13 counts no parts from the end.
    return _over(
        schema,
        columns,
        f"""{_events(question)},
located AS (
  SELECT c.step, c.id, c.recipient,
         CASE WHEN STRPOS(a.context_traits_email, '@') > 0
              THEN LOWER(TRIM(REVERSE(SPLIT_PART(REVERSE(a.context_traits_email), '@', 1))))
              ELSE '{UNKNOWN_DOMAIN}' END AS domain
  FROM chosen AS c
  JOIN ({addresses}) AS a ON a.id = c.id
),
ranked AS (
  SELECT domain
  FROM located
  GROUP BY domain
  ORDER BY COUNT(DISTINCT CASE WHEN step IN ('bounced', 'spam') THEN recipient END) DESC,
           COUNT(DISTINCT recipient) DESC, domain
  LIMIT {DOMAINS}
)
SELECT domain, step, COUNT(DISTINCT id), COUNT(DISTINCT recipient),
       (SELECT COUNT(DISTINCT domain) FROM located)
FROM located
WHERE domain IN (SELECT domain FROM ranked)
GROUP BY domain, step""",  # noqa: S608  # no value
    )


def period_before(question: Question, now: int) -> Question | None:
    """Ask the same of the period before, which is as many days and hours long.

    Args:
        question: What is counted. If its period is not over yet, it ends now.
        now: Microseconds since 1970.

    Returns:
        The question; None where there is no such period, as the first one has no beginning.
    """
    if question.since is None:
        return None
    zone = ZoneInfo(question.timezone)
    ends = min(question.until or times.to_text(times.LATEST), times.to_text(now))
    try:
        # By the clock on the wall: a day is a day, even if it has 23 hours.
        first, last = (
            datetime.fromisoformat(text).astimezone(zone).replace(tzinfo=None)
            for text in (question.since, ends)
        )
        before = (first - (last - first)).replace(tzinfo=zone)
        since = times.canonical(before.isoformat())
    except (OverflowError, ValueError):  # before the year 1
        return None
    return question._replace(since=since, until=question.since) if first < last else None


def _events(question: Question) -> str:
    """Return the SQL up to the events that are counted: those in the table ``chosen``."""
    return _chosen(question).partition(_SPANS)[0].rstrip().removesuffix(",")


def _chosen(question: Question) -> str:
    """Return the SQL for what is to be counted, still over the schema ``vero``."""
    channel = "" if question.channel is None else f"WHERE channel = {_text(question.channel)}"
    sql = SQL.replace(_OF_CHANNEL, channel).replace(_WEEK, PERIODS[question.by])
    if question.timezone != "UTC":
        zone = f" AT TIME ZONE 'UTC' AT TIME ZONE {_text(question.timezone)}"
        for prefix in ("", "e."):
            local = f"CAST({prefix}happened_at{zone} AS DATE)"
            sql = sql.replace(_BY_DATE.format(prefix), local)
    conditions = ["1 = 1"]
    if question.since is not None:
        conditions.append(f"happened_at >= {_moment(question.since)}")
    if question.until is not None:
        conditions.append(f"happened_at < {_moment(question.until)}")
    if question.campaign is not None:
        wanted = _text(question.campaign)
        conditions.append(
            f"(campaign_id = {wanted} OR STRPOS(LOWER(campaign), LOWER({wanted})) > 0)"
        )
    # Only now, as an event's campaign can be known by events of other times.
    chosen = f"chosen AS (\n  SELECT * FROM named WHERE {' AND '.join(conditions)}\n),\n"  # noqa: S608  # quoted
    head, _, rest = sql.partition(_SPANS)
    return head + chosen + _SPANS + rest.replace("FROM named", "FROM chosen")


def _moment(text: str) -> str:
    return f"CAST({_text(text.removesuffix('Z'))} AS TIMESTAMP)"


def channels_statement(schema: str, columns: Mapping[str, set[str]]) -> str:
    """Return the SQL for the distinct events of each channel; the arguments are as above."""
    counted = "SELECT channel, COUNT(DISTINCT id) FROM every_event GROUP BY channel"
    return _over(schema, columns, f"{_EVERY_EVENT}\n{counted}")


def _over(schema: str, columns: Mapping[str, set[str]], sql: str) -> str:
    for table, present in columns.items():
        missing = ", ".join(sorted(_NEEDED.keys() - present))
        if missing and table in {step.table for step in STEPS}:
            msg = f"the table {table} has no column {missing}, and the funnel needs it"
            raise UserError(msg)
    return _SOURCE.sub(
        lambda found: _relation(schema, found[1], columns) if found[1] else found[0], sql
    )


def _relation(schema: str, table: str, columns: Mapping[str, set[str]]) -> str:
    present = columns.get(table, set())
    values = ", ".join(
        f"CAST({quoted(name) if name in present else 'NULL'} AS {kind}) AS {quoted(name)}"
        for name, kind in _READ.items()
    )
    if not present:
        return f"(SELECT {values} WHERE 1 = 0)"
    return f"(SELECT {values} FROM {quoted(schema)}.{quoted(table)})"  # noqa: S608  # quoted


def quoted(name: str) -> str:
    """Return an identifier as SQL has it between quotes."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def total(rows: Iterable[Sequence[Any]]) -> Line:
    """Put together the figures of all campaigns."""
    counted = {step: (events, recipients) for step, events, recipients, *_ in rows}
    events, recipients = (
        {step.name: counted.get(step.name, (0, 0))[which] for step in STEPS} for which in (0, 1)
    )
    rates = {
        step.name: recipients[step.name] / recipients[step.of] if recipients[step.of] else None
        for step in STEPS
        if step.of
    }
    return Line(None, "All campaigns", None, events, recipients, rates)


def domains(rows: Sequence[Sequence[Any]]) -> list[Line]:
    """Put together the figures of the domains: the one with the most bounces first."""
    found: dict[str, list[Sequence[Any]]] = {}
    for domain, *figures in rows:
        found.setdefault(domain, []).append(figures)
    lines = [total(each)._replace(campaign=shown(domain)) for domain, each in found.items()]
    return sorted(
        lines,
        key=lambda line: (
            -(line.recipients["bounced"] + line.recipients["spam"]),
            -line.recipients["sent"],
            line.campaign,
        ),
    )


def campaigns(rows: Iterable[Sequence[Any]]) -> list[Campaign]:
    """Put together what the SQL has found: the campaign with the most recipients first."""
    totals: dict[tuple[str | None, str], Line] = {}
    weeks: dict[tuple[str | None, str], list[Line]] = {}
    for row in rows:
        values = dict(zip(COLUMNS, row, strict=True))
        line, key = _line(values), (values["campaign_id"], values["campaign"])
        if line.week is None:
            totals[key] = line
        else:
            weeks.setdefault(key, []).append(line)
    found = [
        Campaign(total, sorted(weeks[key], key=lambda line: str(line.week)))
        for key, total in totals.items()
    ]
    return sorted(found, key=lambda each: (-each.total.recipients["sent"], each.total.label))


def _line(values: Mapping[str, Any]) -> Line:
    rates = {step.name: values[f"{step.name}_rate"] for step in STEPS if step.of}
    campaign_id = values["campaign_id"]
    return Line(
        None if campaign_id is None else shown(campaign_id),
        shown(values["campaign"]) or "(no name)",
        values["week"],
        {step.name: values[step.name] for step in STEPS},
        {step.name: values[f"{step.name}_recipients"] for step in STEPS},
        {name: None if rate is None else float(rate) for name, rate in rates.items()},
    )


def shown(name: str) -> str:
    """Write out control characters: a name can be anybody's, and it goes to terminals and files."""
    return printable(name).replace("\n", r"\n").replace("\t", r"\t")
