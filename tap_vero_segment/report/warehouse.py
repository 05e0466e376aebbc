"""What the report reads from any warehouse: the rows of each table, and the funnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tap_vero_segment.collection import COLLECTIONS, TRACKS
from tap_vero_segment.errors import UserError
from tap_vero_segment.report.funnel import Campaign, campaigns, quoted, statement

if TYPE_CHECKING:
    from collections.abc import Sequence


class Warehouse(Protocol):
    """A database with loaded tables, its session's time zone UTC.

    Attributes:
        name: The database for people, without a secret.
        placeholder: What stands for a bound value in a statement.
    """

    name: str
    placeholder: str

    def query(self, statement: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        """Return the rows that a statement finds."""
        ...


class Report(NamedTuple):
    """What was found.

    Attributes:
        rows: Each table of the tap's that is there, and its rows, duplicates included.
        campaigns: The funnel.
    """

    rows: Sequence[tuple[str, int]]
    campaigns: Sequence[Campaign]


def read(warehouse: Warehouse, schema: str) -> Report:
    """Read the loaded tables of a schema.

    Raises:
        UserError: No table of the tap is in it, or one lacks what the funnel needs.
    """
    columns: dict[str, set[str]] = {}
    for table, column in warehouse.query(
        "SELECT table_name, column_name FROM information_schema.columns "  # noqa: S608  # no value
        f"WHERE table_schema = {warehouse.placeholder}",
        [schema],
    ):
        columns.setdefault(table, set()).add(column)
    names = (*(collection.stream for collection in COLLECTIONS), TRACKS)
    present = [name for name in names if name in columns]
    if not present:
        msg = f"no table of the tap is in the schema {schema} of {warehouse.name}"
        raise UserError(msg)
    counts = [
        warehouse.query(f"SELECT count(*) FROM {quoted(schema)}.{quoted(name)}")[0][0]  # noqa: S608
        for name in present
    ]
    return Report(
        list(zip(present, counts, strict=True)),
        campaigns(warehouse.query(statement(schema, columns))),
    )
