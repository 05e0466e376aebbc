"""The SQL for people's own tools: the documentation's is the file's, and other dialects take it."""

from __future__ import annotations

import re

import pytest
import sqlglot
from sqlglot import exp

from tap_vero_segment.report import funnel
from tests.support import docs

(FUNNEL,) = docs.blocks("reports/sql.md", "sql")
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


def test_every_dialect_means_the_same_by_it():
    read = {
        dialect: sqlglot.parse_one(funnel.SQL, read=dialect, error_level=sqlglot.ErrorLevel.RAISE)
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
