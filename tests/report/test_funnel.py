"""The figures: those of the SQL, on real databases, beside those of plain loops."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from tap_vero_segment.report import funnel
from tests.support.collector import run_collector
from tests.support.funnel import (
    RATES,
    STEPS,
    DuckDB,
    PostgreSQL,
    channel_of,
    event,
    expected,
    load,
)

if TYPE_CHECKING:
    from pathlib import Path

MONDAY = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())


def figures(warehouse: DuckDB | PostgreSQL, cwd: Path, *options: str) -> dict[Any, Any]:
    """What the command has as CSV, as :func:`expected` has it."""
    done = run_collector("report", *warehouse.options, "--csv", "-", *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(StringIO(done.stdout)))
    by = options[options.index("--by") + 1] if "--by" in options else "week"
    names = tuple(by if name == "week" else name for name in funnel.COLUMNS)
    assert all(tuple(row) == names for row in rows)
    found = {
        (
            row["campaign_id"] or None,
            row["campaign"],
            date.fromisoformat(row[by]) if row[by] else None,
        ): {
            name: float(value) if value else None
            for name, value in row.items()
            if name not in {"campaign_id", "campaign", by}
        }
        for row in rows
    }
    assert len(found) == len(rows)
    return found


def rounded(told: dict[Any, Any]) -> dict[Any, Any]:
    return {
        key: {name: None if value is None else round(value, 6) for name, value in row.items()}
        for key, row in told.items()
    }


def test_the_figures_are_those_of_plain_loops(warehouse, records, tmp_path):
    load(warehouse, records)
    load(warehouse, records[::3])  # a target that appends

    found = figures(warehouse, tmp_path)

    told = expected(records)
    assert rounded(told) == found
    names = {name for _, name, _ in told}
    assert {"(no campaign)", "(no name)", "Nobody's"} <= names
    assert {"email", "push", "sms"} == {*map(channel_of, records)}
    assert {week.year for _, _, week in told if week} == {2024, 2026, 2027}
    assert any(row["delivered_rate"] is None for row in told.values())


@pytest.mark.parametrize("option", ["push", " SMS", "all"])
def test_other_channels_are_counted_where_it_is_asked_for(option, records, tmp_path):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, records)

    found = figures(warehouse, tmp_path, "--channel", option)

    channel = None if option == "all" else option.strip().lower()
    assert found == rounded(expected(records, channel))
    assert found != rounded(expected(records))


@pytest.mark.parametrize("by", ["day", "month"])
def test_days_and_months_begin_in_the_time_zone(warehouse, by, records, tmp_path):
    load(warehouse, records)
    found = figures(warehouse, tmp_path, "--by", by, "--timezone", "America/New_York")
    assert found == rounded(expected(records, by=by, zone="America/New_York"))


def test_a_span_of_time_keeps_the_campaigns_that_earlier_events_tell(warehouse, records, tmp_path):
    load(warehouse, records)
    since, until = "2024-12-30T01:00:00", "2026-12-31"

    found = figures(
        warehouse, tmp_path, "--since", since, "--until", until, "--timezone", "Asia/Tokyo"
    )

    def wanted(record: dict[str, Any]) -> bool:
        return "2024-12-29T16:00:00" <= record["timestamp"] < "2026-12-30T15:00:00"

    assert found == rounded(expected(records, zone="Asia/Tokyo", wanted=wanted))
    assert {year.year for *_, year in found if year} == {2024, 2025, 2026}


def test_a_campaign_is_chosen_by_its_id_or_its_name(warehouse, records, tmp_path):
    load(warehouse, records)
    whole = rounded(expected(records))

    by_id = figures(warehouse, tmp_path, "--campaign", "1")
    by_name = figures(warehouse, tmp_path, "--campaign", "sHAREd")
    none = run_collector("report", *warehouse.options, "--campaign", "it's", cwd=tmp_path)

    assert by_id == {key: row for key, row in whole.items() if "1" in {key[0], key[1][-1]}}
    assert by_name == {key: row for key, row in whole.items() if "Shared" in key[1]}
    assert "No event of a campaign was found" in none.stdout


def test_a_name_can_be_that_of_a_table(warehouse, tmp_path):
    name = "It's vero.email_sent -- vero.com"
    user = {"id": 1}
    load(warehouse, [event("sent", MONDAY, user=user, campaign={"id": 1, "name": name})])
    found = figures(warehouse, tmp_path, "--campaign", name)
    assert {key[:2] for key in found} == {("1", name)}


def test_what_is_not_counted_is_said(warehouse, records, tmp_path):
    load(warehouse, records + records[::2])
    left_out = Counter(map(channel_of, records))
    del left_out["email"]

    done = run_collector("report", *warehouse.options, cwd=tmp_path)
    without = run_collector("report", *warehouse.options, "--channel", "all", cwd=tmp_path)

    note = "Only the channel email is counted. Other channels: " + ", ".join(
        f"{channel} ({count} events)" for channel, count in left_out.most_common()
    )
    assert note in " ".join(done.stdout.split())
    assert "channel" not in without.stdout


def test_tables_loaded_before_there_were_channels_count_as_emails(warehouse, records, tmp_path):
    load(warehouse, records, without=frozenset({"campaign_channel"}))

    done = run_collector("report", *warehouse.options, "--csv", "f.csv", cwd=tmp_path)

    assert figures(warehouse, tmp_path) == rounded(expected(records, None))
    assert done.stdout.count("no column campaign_channel") == 1


def test_a_blank_channel_is_refused(tmp_path):
    done = run_collector("report", "--duckdb", "f.duckdb", "--channel", " ", cwd=tmp_path)
    assert done.returncode == 2
    assert "name a channel, or all" in done.stderr


def test_the_sql_of_the_documentation_finds_the_same_unchanged(warehouse, records):
    load(warehouse, records)

    if isinstance(warehouse, PostgreSQL):
        warehouse.set_timezone("UTC")
    rows = warehouse.run(funnel.SQL)

    found = {
        row[:3]: {
            name: None if value is None else float(value)
            for name, value in zip(funnel.COLUMNS[3:], row[3:], strict=True)
        }
        for row in rows
    }
    assert rounded(found) == rounded(expected(records))


def test_the_week_of_each_day_of_eight_centuries():
    weeks = funnel.SQL[funnel.SQL.index("shifted AS (") : funnel.SQL.index("placed AS (")]
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE dates AS SELECT CAST(day AS DATE) AS event_date FROM "
            "generate_series(DATE '1700-01-01', DATE '2500-12-31', INTERVAL 1 DAY) AS g(day)"
        )
        rows = connection.execute(
            f"WITH {weeks.rstrip().removesuffix(',')} SELECT event_date, week FROM weeks"
        ).fetchall()
    assert len(rows) == (date(2500, 12, 31) - date(1700, 1, 1)).days + 1
    for day, week in rows:
        assert week == day - timedelta(days=day.weekday())


def test_tables_and_columns_that_are_not_there_count_as_empty(warehouse, records, tmp_path):
    some = [each for each in records if each["event"] in {"email_sent", "email_opened"}]
    load(warehouse, some, schema="Its \"own'", without=frozenset({"email_id", "user_id"}))

    found = figures(warehouse, tmp_path, "--schema", "Its \"own'")

    without = [each | {"email_id": None, "user_id": None} for each in some]
    told = rounded(expected(without))
    for row in (*told.values(), *found.values()):
        # Who has neither an id nor an address that is left is nobody.
        assert row["clicked"] == row["bounced"] == row["delivered_recipients"] == 0
    assert found == told


@pytest.mark.parametrize("column", ["id", "timestamp"])
def test_a_table_without_what_counting_needs_is_told(column, records, tmp_path):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, records[:50], without=frozenset({column}))

    done = run_collector("report", *warehouse.options, cwd=tmp_path)

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"has no column {column}" in line


def test_a_campaign_is_found_by_its_emails_and_by_its_name(tmp_path):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    user = {"id": 1, "email": "a@example.com"}
    old = {"id": 5, "name": "Old"}
    load(
        warehouse,
        [
            event("sent", MONDAY, user=user, campaign=old, message_id="m1"),
            event("sent", MONDAY + 60, user=user, campaign={"id": 5, "name": "New"}),
            event("sent", MONDAY, user=user, campaign={"id": 6, "name": "Twice"}),
            event("sent", MONDAY, user=user, campaign={"id": 7, "name": "Twice"}),
            event("unsubscribed", MONDAY, user=user, campaign={"message_id": "m1"}),
            event("unsubscribed", MONDAY, user=user, campaign={"campaign_title": "Old"}),
            event("unsubscribed", MONDAY, user=user, campaign={"campaign_title": "Twice"}),
            event("unsubscribed", MONDAY, user=user),
        ],
    )

    found = figures(warehouse, tmp_path)

    unsubscribed = {key[:2]: row["unsubscribed"] for key, row in found.items() if key[2] is None}
    assert unsubscribed == {
        ("5", "New"): 2,
        ("6", "Twice"): 0,
        ("7", "Twice"): 0,
        (None, "Twice"): 1,
        (None, "(no campaign)"): 1,
    }


def test_each_step_has_its_columns():
    assert tuple(step.name for step in funnel.STEPS) == STEPS
    assert tuple((step.name, step.of) for step in funnel.STEPS if step.of) == RATES
