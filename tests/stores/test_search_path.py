"""What another user of the database has made never runs with the collector's rights."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from tap_vero_segment import times
from tap_vero_segment.report.funnel import Question
from tap_vero_segment.report.warehouse import read_postgres
from tap_vero_segment.stores.base import Backlog, Exported, Exports, Refused, Search
from tap_vero_segment.stores.postgres.reader import PostgresReader
from tap_vero_segment.stores.postgres.writer import PostgresWriter
from tap_vero_segment.stores.search import index
from tests.stores.test_any_store import START, WEEK, events, letters, prune_all
from tests.support.funnel import PostgreSQL, generated, load

if TYPE_CHECKING:
    from tests.support.postgres import Postgres

# Each raises an error with the name of what has run.
_TROJAN = """
CREATE FUNCTION {name}({arguments}) RETURNS {returns} LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'ran {name}'; END $$
"""
_AGGREGATE = "CREATE AGGREGATE {name}({kind}) (SFUNC = {step}, STYPE = bigint, INITCOND = '0')"
_OPERATOR = "CREATE OPERATOR {name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {step})"
_FUNCTIONS = {
    "array_agg": ["bigint"],
    "cardinality": ["text[]"],
    "clock_timestamp": [""],
    "count": [],
    "current_setting": ["text"],
    "div": ["bigint, bigint"],
    "generate_series": ["integer, integer"],
    "format": ["text, text", "text, text, bigint, bigint"],
    "has_any_column_privilege": ["text, text"],
    "now": [""],
    "octet_length": ["bytea"],
    "pg_advisory_xact_lock": ["integer", "bigint"],
    "pg_total_relation_size": ["oid"],
    "set_config": ["text, text, boolean"],
    "to_char": ["timestamp, text"],
    "to_regnamespace": ["text"],
    "to_timestamp": ["bigint", "double precision"],
    "unnest": ["bigint[]", "text[]", "bytea[]"],
}
_AGGREGATES = {"max": "bigint", "min": "bigint", "sum": "integer", "count": "bigint"}
_OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%"]
_NUMBERS = ["smallint", "integer", "bigint"]
_OPERANDS = [
    *((left, right) for left in _NUMBERS for right in _NUMBERS),
    *((kind, kind) for kind in ("text", "name", "oid", "numeric", '"char"')),
    ("name", "text"),
    ("numeric", "bigint"),
    ("numeric", "integer"),
]
_TYPES = ["text", "bytea", "regnamespace"]
_TABLES = [
    *("schema_version", "clock", "events", "ids", "partitions", "totals", "dead_letters"),
    *("search_blocks", "search_parts", "search_changes"),
    *("pg_class", "pg_namespace", "pg_roles"),
]


def trojans(schema: str) -> str:
    """Functions, operators, types and tables of names that PostgreSQL or the store has too."""
    statements = [
        _TROJAN.format(name=f"{schema}.{name}", arguments=arguments, returns="bigint")
        for name, signatures in _FUNCTIONS.items()
        for arguments in signatures
    ]
    for name, kind in _AGGREGATES.items():
        step = f"{schema}.{name}_step"
        statements += [
            _TROJAN.format(name=step, arguments=f"bigint, {kind}", returns="bigint"),
            _AGGREGATE.format(name=f"{schema}.{name}", kind=kind, step=step),
        ]
    for number, (left, right) in enumerate(_OPERANDS):
        for place, operator in enumerate(_OPERATORS):
            returns = "boolean" if place < _OPERATORS.index("+") else "bigint"
            name = f"{schema}.operator_{number}_{place}"
            statements += [
                _TROJAN.format(name=name, arguments=f"{left}, {right}", returns=returns),
                _OPERATOR.format(name=f"{schema}.{operator}", left=left, right=right, step=name),
            ]
    name = f"{schema}.is_valid"
    statements.append(_TROJAN.format(name=name, arguments="integer", returns="boolean"))
    statements += [
        f"CREATE DOMAIN {schema}.{kind} AS pg_catalog.{kind} CHECK ({name}(1))" for kind in _TYPES
    ]
    statements += [f"CREATE TABLE {schema}.{table} (version integer)" for table in _TABLES]
    return ";".join(statements)


@pytest.fixture(params=["public", "own", "first"])
def url(request: pytest.FixtureRequest, postgres: Postgres, database: str) -> str:
    """The database, as the collector's user, who has another user's schema on the search path.

    It is ``public``, one of the name of the collector's user, or one before PostgreSQL's own.
    """
    name = database.rpartition("/")[2]
    collector, attacker = f"collector-{name}", f"attacker-{name}"
    schema = {"public": "public", "own": f'"{collector}"', "first": "first"}[request.param]
    statements = [
        f'CREATE ROLE "{collector}" LOGIN',
        f'CREATE ROLE "{attacker}" LOGIN',
        f'GRANT CREATE ON DATABASE "{name}" TO "{collector}"',
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f'GRANT ALL ON SCHEMA {schema} TO "{attacker}", "{collector}"',
    ]
    if schema == "first":
        statements.append(f'ALTER ROLE "{collector}" SET search_path = first, pg_catalog')
    with postgres.connect(name) as connection:
        connection.execute(";".join(statements).encode())
    with psycopg.connect(database.replace("vero@", f"{attacker}@")) as connection:
        connection.execute(trojans(schema).encode())
    return database.replace("vero@", f"{collector}@")


def test_nothing_of_another_user_runs_with_the_collectors_rights(url, monkeypatch):
    now = START
    writer = PostgresWriter(url, "store", lambda: now)
    reader = PostgresReader(url, "source")
    with closing(writer), closing(reader):
        assert writer.write(events(20), letters(3), 1) == 20
        now += WEEK
        assert writer.write(events(40), letters(3)) == 20
        assert len(reader.lines(0, None, 10)) == len(reader.newest(10)) == 10
        assert len(reader.newest(1, "email_sent")) == 1
        assert reader.event(reader.high_water())
        monkeypatch.setattr(index, "BLOCK", 5)
        while writer.build_index():
            pass
        assert writer.repair_index() == 0
        assert len(reader.search(Search(collection="email_sent"), limit=1).lines) == 1
        assert len(reader.search(Search(), before=now, limit=10).lines) == 10
        assert reader.arrivals(0)
        assert reader.size()
        for _ in range(2):
            writer.add_refused([Refused("wrong_secret", 1, now), Refused("too_large", 1, now)])
        assert [each.requests for each in reader.refused()] == [2, 2]
        reader.check_all(lambda _: None)
        assert sum(total.events for total in reader.summary().totals) == 40
        [first, second, _] = reader.dead_letters(0, 10)
        assert len(reader.letter_heads(10, reason=None)) == 3
        assert len(reader.letter_groups()) == 1
        assert writer.resolve(first.number, events(1, seed=9)) == 1
        assert writer.discard([second.number]) == []
        has = Exported(now, times.LATEST)
        assert writer.plan_export("file:///archive", has) == Exports([], has)
        writer.mark_exported("file:///archive", has)
        assert reader.exports() == {"file:///archive": [has]}
        assert reader.span(times.EARLIEST, times.LATEST, 0, now)
        forward = writer.add_forward("key", "https://app.example", 0, 0)
        assert writer.hold_forward(forward.number)
        assert len(reader.bodies(0, times.LATEST, 10)) == 10
        assert reader.backlog(forward) == Backlog(41, reader.bodies(0, now, 1)[0].loaded_at, 1)
        assert writer.save_forward(forward, forward._replace(until=now, failing=True))
        assert reader.forwards() == [forward._replace(until=now, failing=True)]
        assert writer.forget_forward("key") == forward.number
        assert prune_all(writer, times.LATEST, now + 29) == 30
    PostgresWriter(url, "store").close()  # on a schema that is there


def test_nothing_of_another_user_runs_in_a_report(url):
    user = url.partition("//")[2].partition("@")[0]
    owner = PostgreSQL(url.replace(f"{user}@", "vero@"))
    load(owner, generated(20))
    owner.run(f'GRANT USAGE ON SCHEMA vero TO "{user}"')
    owner.run(f'GRANT SELECT ON ALL TABLES IN SCHEMA vero TO "{user}"')

    assert (
        sum(count for _, count in read_postgres(url, "vero", Question(), detailed=False).rows) == 20
    )
