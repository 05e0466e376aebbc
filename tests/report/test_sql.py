"""The SQL for people's own tools: the documentation's is the file's, and other dialects take it."""

from __future__ import annotations

import re

import jinja2
import pytest
import sqlglot
import yaml
from sqlglot import exp

from tap_vero_segment.report import funnel
from tests.support import docs
from tests.support.funnel import DuckDB, load

(FUNNEL,) = docs.blocks("reports/sql.md", "sql")
EVENTS, EVENTS_OF_THE_MODEL = docs.blocks("reports/dbt.md", "jinja")
(SOURCES,) = docs.blocks("reports/dbt.md", "yaml")
DIALECTS = ("duckdb", "postgres", "snowflake", "bigquery")
PORTABLE = {
    "CAST",
    "COALESCE",
    "COUNT",
    "EXTRACT",
    "FLOOR",
    "LOWER",
    "MAX",
    "MIN",
    "NULLIF",
    "TRIM",
}
"""Functions that the manuals of all four have, with the same arguments and meaning."""
WORDS = {"AS", "DISTINCT", "SELECT"}
"""What else stands before a parenthesis."""


def rendered(block: str) -> str:
    """What dbt makes of a model, its sources in the schema ``vero`` and models in ``dbt``."""
    return (
        jinja2.Environment(undefined=jinja2.StrictUndefined)
        .from_string(block)
        .render(source=lambda schema, name: f"{schema}.{name}", ref=lambda name: f"dbt.{name}")
    )


EVENTS_MODEL = rendered(EVENTS)
FUNNEL_MODEL = rendered(EVENTS_OF_THE_MODEL) + funnel.SQL[funnel.SQL.index("emails AS (") :]
STATEMENTS = {"funnel": funnel.SQL, "events model": EVENTS_MODEL, "funnel model": FUNNEL_MODEL}


def plain(tree: exp.Expression) -> str:
    """A tree's text without what a dialect adds of its own that changes no figure here.

    What is divided is floored afterwards, or is a multiple of 1.0, so that it does not matter
    whether whole numbers are divided as such; BigQuery has one name for all types of whole numbers;
    what is sorted by is never NULL; NOT x IS NULL is x IS NOT NULL.
    """

    def change(node: exp.Expression) -> exp.Expression:
        node.pop_comments()
        if isinstance(node, exp.Div):
            node.set("typed", None)
            node.set("safe", None)
            if isinstance(node.this, exp.Cast) and node.this.is_type("DOUBLE"):
                node.set("this", node.this.this)
        elif isinstance(node, exp.DataType) and node.this == exp.DataType.Type.BIGINT:
            node.set("this", exp.DataType.Type.INT)
        elif isinstance(node, exp.Ordered):
            node.set("nulls_first", None)
        elif isinstance(node, exp.Is) and node.args.get("negate"):
            return exp.Not(this=exp.Is(this=node.this, expression=node.expression))
        return node

    return repr(tree.transform(change))


def test_the_documentation_has_the_file():
    assert FUNNEL == funnel.SQL


def test_the_models_for_dbt_have_their_sources():
    (source,) = yaml.safe_load(SOURCES)["sources"]
    tables = {f"{source['name']}.{table['name']}" for table in source["tables"]}
    assert tables == set(re.findall(r"vero\.\w+", EVENTS_MODEL))


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_every_dialect_means_the_same_by_it(statement):
    read = {
        dialect: sqlglot.parse_one(statement, read=dialect, error_level=sqlglot.ErrorLevel.RAISE)
        for dialect in DIALECTS
    }
    for dialect, tree in read.items():
        assert plain(tree) == plain(read["duckdb"]), dialect
        written = tree.sql(dialect, unsupported_level=sqlglot.ErrorLevel.RAISE)
        assert plain(sqlglot.parse_one(written, read=dialect)) == plain(tree), dialect


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_dialect_wants_it_otherwise(dialect):
    """Translated from another dialect, it still means what it does untranslated."""
    untranslated = plain(sqlglot.parse_one(funnel.SQL, read=dialect))
    for other in DIALECTS:
        [translated] = sqlglot.transpile(
            funnel.SQL, read=other, write=dialect, unsupported_level=sqlglot.ErrorLevel.RAISE
        )
        assert plain(sqlglot.parse_one(translated, read=dialect)) == untranslated, other


def test_only_functions_that_all_have_are_used():
    sql = re.sub(r"--.*", "", funnel.SQL)
    assert set(re.findall(r"(\w+)\s*\(", sql)) - WORDS == PORTABLE


def test_the_models_for_dbt_find_what_the_funnel_does(tmp_path, records):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, records)
    load(warehouse, [each | {"loaded_at": "2027-01-01T00:00:00Z"} for each in records[::3]])
    warehouse.run("CREATE SCHEMA dbt")
    warehouse.run(f"CREATE TABLE dbt.vero_events AS {EVENTS_MODEL}")

    kept = warehouse.run("SELECT id, loaded_at FROM dbt.vero_events")
    found = warehouse.run(FUNNEL_MODEL)

    assert len(kept) == len({number for number, _ in kept}) == len(records)
    assert sum(loaded_at.year == 2027 for _, loaded_at in kept) == len(records[::3])
    assert sorted(found, key=str) == sorted(warehouse.run(funnel.SQL), key=str)
