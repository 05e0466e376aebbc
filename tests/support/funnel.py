"""Loaded tables for the report, and its figures computed another way."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

import duckdb
import msgspec
import psycopg

from tap_vero_segment.collection import BY_STREAM, columns
from tests.support.payloads import EMAIL_TYPES, STREAM_OF
from tests.support.records import record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Record = dict[str, Any]

STEP_OF = {STREAM_OF[kind]: kind for kind in EMAIL_TYPES} | {
    "email_link_clicked": "clicked",
    "email_marked_as_spam": "spam",
}
RATES = (
    ("delivered", "sent"),
    ("opened", "delivered"),
    ("clicked", "delivered"),
    ("bounced", "sent"),
    ("unsubscribed", "delivered"),
    ("spam", "delivered"),
)
STEPS = ("sent", "delivered", "opened", "clicked", "bounced", "unsubscribed", "spam")

# A year whose first week began in the year before, with its end; and a leap day.
_STARTS = tuple(
    int(datetime(year, month, day, tzinfo=UTC).timestamp())
    for year, month, day in ((2024, 2, 26), (2024, 12, 28), (2026, 12, 27))
)


def event(kind: str, at: int, **fields: Any) -> Record:
    """A record of a webhook with some fields."""
    payload = {"type": kind, f"{kind}_at": at, **fields}
    return record_of(msgspec.json.encode(payload))


def generated(count: int, seed: int = 7) -> list[Record]:
    """Records of many kinds: with and without ids, names and addresses; campaigns are renamed."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        kind = chance.choice((*EMAIL_TYPES, "sent", "sent", "delivered", "delivered"))
        at = chance.choice(_STARTS) + chance.randrange(9 * 86_400)
        if chance.random() < 0.1:  # the borders of a week
            at += -at % 86_400 - chance.randrange(2)
        person = chance.randrange(40)
        user: Record = {"id": person, "email": f"Person{person}@example.com"}
        if person % 5 == 0:
            del user["id"]
        campaign: Record = {}
        which = chance.randrange(5)
        if which:
            # Two campaigns share their names in turn; one never has a name, another no id.
            campaign["id"] = which
            name = "Shared" if which in {1, 2} else "Own"
            campaign["name"] = f"{name} {at // 86_400 % 2}" if which < 4 else None
        elif number % 3:
            campaign["name"] = chance.choice(("Own 0", "Own 1", "Shared 0", "Nobody's"))
        if (channel := chance.choice((None, None, None, " Email ", "", "push", "SMS"))) is not None:
            campaign["channel"] = channel
        fields: Record = {"user": user, "campaign": campaign, "n": number}
        if chance.random() < 0.5:
            fields["message_id"] = f"{which or chance.randrange(1, 5)}-{person}@veromail.com"
        found.append(event(kind, at, **fields))
    return found


def channel_of(record: Record) -> str:
    return (record["campaign_channel"] or "").strip().lower() or "email"


def first_day(record: Record, by: str, zone: str) -> date:
    day = datetime.fromisoformat(record["timestamp"]).astimezone(ZoneInfo(zone)).date()
    if by == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.isoweekday() - 1) if by == "week" else day


def expected(
    records: Iterable[Record],
    channel: str | None = "email",
    by: str = "week",
    zone: str = "UTC",
    wanted: Callable[[Record], bool] = lambda _: True,
) -> dict[tuple[str | None, str, date | None], Record]:
    """The funnel, by plain loops: figures by campaign's id, name and week."""
    once = [
        record
        for record in {record["id"]: record for record in records}.values()
        if channel in {None, channel_of(record)}
    ]
    of_email: dict[str, set[str]] = defaultdict(set)
    of_name: dict[str, set[str]] = defaultdict(set)
    names: dict[str, tuple[str, str]] = {}
    for record in once:
        number, name = record["campaign_id"], record["campaign_name"]
        if number is None:
            continue
        if record["email_id"] is not None:
            of_email[record["email_id"]].add(number)
        if name is not None:
            of_name[name].add(number)
            names[number] = max(names.get(number, ("", "")), (record["timestamp"], name))
    ids: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    people: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in filter(wanted, once):
        number, name = record["campaign_id"], record["campaign_name"]
        if number is None and record["email_id"] in of_email:
            number = min(of_email[record["email_id"]])
        if number is None and len(of_name.get(name, ())) == 1:
            [number] = of_name[name]
        if number is None:
            shown = "(no campaign)" if name is None else name
        else:
            shown = names[number][1] if number in names else "(no name)"
        address = record["context_traits_email"]
        person = record["user_id"] or record["anonymous_id"] or (address and address.lower())
        step = STEP_OF[record["event"]]
        for week in (None, first_day(record, by, zone)):
            ids[number, shown, week][step].add(record["id"])
            people[number, shown, week][step].add(person)
    return {
        key: {
            **{step: len(ids[key][step]) for step in STEPS},
            **{f"{step}_recipients": len(people[key][step]) for step in STEPS},
            **{
                f"{step}_rate": len(people[key][step]) / len(people[key][of])
                if people[key][of]
                else None
                for step, of in RATES
            },
        }
        for key in ids
    }


class DuckDB:
    """A DuckDB file."""

    placeholder = "?"
    types: ClassVar = {"string": "VARCHAR", "time": "TIMESTAMP", "object": "JSON"}

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = ("--duckdb", str(path))

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(statement).fetchall()

    def write(self, statements: list[str], rows: dict[str, list[list[Any]]]) -> None:
        with duckdb.connect(str(self.path)) as connection:
            connection.begin()
            for statement in statements:
                connection.execute(statement)
            for statement, values in rows.items():
                # All at once: DuckDB is slow with one row after the other.
                head, _, row = statement.partition(" VALUES ")
                whole = f"{head} VALUES {', '.join([row] * len(values))}"
                connection.execute(whole, [*itertools.chain.from_iterable(values)])
            connection.commit()


class PostgreSQL:
    """A database whose people live far from Greenwich."""

    placeholder = "%s"
    types: ClassVar = {"string": "VARCHAR", "time": "TIMESTAMPTZ", "object": "JSONB"}

    def __init__(self, url: str) -> None:
        self.url = url
        self.options = ("--postgres", url)
        self.set_timezone("Pacific/Auckland")

    def set_timezone(self, name: str) -> None:
        database = self.url.rpartition("/")[2]
        self.run(f"ALTER DATABASE \"{database}\" SET timezone TO '{name}'")

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def write(self, statements: list[str], rows: dict[str, list[list[Any]]]) -> None:
        with psycopg.connect(self.url) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement.encode())
            for statement, values in rows.items():
                cursor.executemany(statement.encode(), values)


def load(
    warehouse: DuckDB | PostgreSQL,
    records: Iterable[Record],
    schema: str = "vero",
    without: frozenset[str] = frozenset(),
    *,
    segment_columns: bool = False,
) -> None:
    """Append records to their tables, made where they are missing, some columns left out."""
    by_table: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_table[record["event"]].append(record)
    schema = schema.replace('"', '""')
    statements = [f'CREATE SCHEMA IF NOT EXISTS "{schema}"']
    rows = {}
    for table, found in by_table.items():
        whole = columns(BY_STREAM[table], segment_columns=segment_columns)
        kept = [each for each in whole if each.name not in without]
        types = ", ".join(f'"{each.name}" {warehouse.types[each.kind]}' for each in kept)
        statements.append(f'CREATE TABLE IF NOT EXISTS "{schema}"."{table}" ({types})')
        values = ", ".join([warehouse.placeholder] * len(kept))
        rows[f'INSERT INTO "{schema}"."{table}" VALUES ({values})'] = [
            [
                msgspec.json.encode(record[each.name]).decode()
                if each.kind == "object"
                else record[each.name]
                for each in kept
            ]
            for record in found
        ]
    warehouse.write(statements, rows)
