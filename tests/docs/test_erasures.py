"""The documentation's SQL that deletes what was erased, on databases of both dialects."""

from __future__ import annotations

import duckdb
import psycopg
import pytest

from tests.support import docs

pytestmark = pytest.mark.slow

TABLES = """
CREATE SCHEMA vero;
CREATE TABLE vero.email_sent (id text, loaded_at timestamp);
CREATE TABLE vero.erasures (id text, erased_at timestamp, loaded_at timestamp);
INSERT INTO vero.email_sent VALUES
    ('stays', '2026-01-01'), ('goes', '2026-01-01'), ('came again', '2026-01-03');
INSERT INTO vero.erasures VALUES
    ('goes', '2026-01-02', '2026-01-02'), ('came again', '2026-01-02', '2026-01-02'),
    ('never loaded', '2026-01-02', '2026-01-02');
"""
LEFT = "SELECT id FROM vero.email_sent ORDER BY id"


def test_the_sql_for_duckdb() -> None:
    with duckdb.connect() as connection:
        connection.execute(TABLES)
        connection.execute(docs.blocks("collector/erasure.md", "sql")[0])
        assert connection.execute(LEFT).fetchall() == [("came again",), ("stays",)]


@pytest.mark.parametrize("place", [1, 2], ids=["using", "exists"])
def test_the_sql_for_postgresql(database: str, place: int) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(TABLES)
        # BigQuery's form is PostgreSQL's as well.
        connection.execute(docs.blocks("collector/erasure.md", "sql")[place])
        assert connection.execute(LEFT).fetchall() == [("came again",), ("stays",)]
