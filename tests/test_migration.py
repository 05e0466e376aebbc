"""The way from Segment's Vero Source: the page's table of columns, and its SQL as it stands."""

from __future__ import annotations

import re
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from tap_vero_segment.collection import BY_STREAM, COLLECTIONS, COMMON_COLUMNS, columns
from tests.support import docs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = "start/segment-migration.md"
SECTION = docs.PAGES[PAGE]
COMPARE, VIEW = docs.blocks(PAGE, "sql")
MOMENT = "2026-12-01T00:00:00Z"


def named(table: str) -> list[str]:
    """The columns that a table of the page names in its first cells."""
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_table_names_every_column_once() -> None:
    wanted = {column.name for each in COLLECTIONS if each.email for column in columns(each)}
    found = named(SECTION[SECTION.index("| column | at Segment | here |") :])
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_a_column_that_only_some_tables_have_says_which() -> None:
    rows = [line for line in SECTION.splitlines() if line.startswith("| `")]
    for collection in COLLECTIONS:
        for column in collection.columns:
            (row,) = (row for row in rows if f"`{column.name}`" in row.split("|")[1])
            assert f"`{collection.stream}`" in row


@pytest.fixture(params=["duckdb", "postgres"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """A warehouse far from Greenwich, as a function that asks it."""
    if request.param == "duckdb":
        connection: Any = duckdb.connect()
    else:
        connection = psycopg.connect(request.getfixturevalue("database"), autocommit=True)
    with connection:

        def ask(statement: str) -> list[tuple[Any, ...]]:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

        ask("SET TimeZone = 'Asia/Tokyo'")
        yield ask


IDS = count(1)


def test_the_sql_counts_each_event_once(run: Callable[[str], list[tuple[Any, ...]]]) -> None:
    for schema in ("vero", "vero_events"):
        run(f"CREATE SCHEMA {schema}")
        theirs = schema == "vero"
        kinds = {
            "time": "TIMESTAMP WITH TIME ZONE" if theirs else "TIMESTAMP",
            "string": "VARCHAR",
            "object": "VARCHAR",
        }
        for stream, found in (
            ("tracks", COMMON_COLUMNS),
            ("email_opened", columns(BY_STREAM["email_opened"])),
        ):
            listed = ", ".join(f"{column.name} {kinds[column.kind]}" for column in found)
            if theirs:
                listed = listed.replace("campaign_id VARCHAR", "campaign_id BIGINT")
            run(f"CREATE TABLE {schema}.{stream} ({listed})")

    def arrive(schema: str, moment: str, user: str) -> None:
        if schema != "vero":
            moment = moment.removesuffix("Z")
        for table, campaign in (("tracks", ""), ("email_opened", ", campaign_id")):
            run(
                f"INSERT INTO {schema}.{table}"
                f" (id, received_at, loaded_at, timestamp, event, user_id{campaign})"
                f" VALUES ('{next(IDS)}', '{moment}', '{moment}', '{moment}', 'email_opened',"
                f" '{user}'{campaign and ', 987'})"
            )

    moments = (
        "2026-11-30T12:00:00Z",
        "2026-11-30T23:59:59.999999Z",
        MOMENT,
        "2026-12-02T01:00:00Z",
    )
    for number, moment in enumerate(moments):
        arrive("vero", moment, f"user {number}")
        arrive("vero_events", moment, f"user {number}")
    arrive("vero", "2026-11-01T00:00:00Z", "before there was a collector")
    assert MOMENT in VIEW

    compared = [(str(day), theirs, ours) for _, day, theirs, ours in run(COMPARE)]
    assert compared == [
        ("2026-11-01", 1, None),
        ("2026-11-30", 2, 2),
        ("2026-12-01", 1, 1),
        ("2026-12-02", 1, 1),
    ]
    for statement in VIEW.split(";"):
        run(statement)
    seen = run(
        "SELECT user_id, timestamp = received_at, campaign_id,"
        " CAST(EXTRACT(EPOCH FROM timestamp) AS DOUBLE PRECISION)"
        " FROM vero_all.email_opened ORDER BY received_at"
    )
    assert seen == [
        (user, True, "987", datetime.fromisoformat(moment).timestamp())
        for user, moment in [
            ("before there was a collector", "2026-11-01T00:00:00Z"),
            *((f"user {number}", moment) for number, moment in enumerate(moments)),
        ]
    ]
