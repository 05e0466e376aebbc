"""The report's tables in PostgreSQL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.report.warehouse import Report, read
from tap_vero_segment.stores.open import needing_postgres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.stores.postgres.connection import Connection

_SILENCE: Final = 3600
"""Seconds without a byte: nothing comes while the server counts."""

_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def read_postgres(url: str, schema: str) -> Report:
    """Read the loaded tables of a PostgreSQL database, in one transaction that cannot write.

    Raises:
        SettingError: The database cannot be reached.
        StoreError: It cannot be read.
        UserError: No table of the tap is in it.
    """
    with needing_postgres("postgres"):
        from tap_vero_segment.stores.postgres.connection import SAFE_PATH, Session  # noqa: PLC0415

    def work(connection: Connection) -> Report:
        with connection.transaction():
            connection.execute(_SNAPSHOT)
            connection.execute(SAFE_PATH)
            connection.execute("SET LOCAL TimeZone TO 'UTC'")
            return read(_Database(connection), schema)

    with closing(Session(url, "postgres", writes=False)) as session:
        return session.run(work, silence=_SILENCE)


class _Database:
    name = "the database"
    placeholder = "%s"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def query(self, statement: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement.encode(), values or None).fetchall()
