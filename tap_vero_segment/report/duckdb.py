"""The report over a DuckDB file: rows per table, and the campaigns' funnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.collection import COLLECTIONS, TRACKS
from tap_vero_segment.errors import UserError
from tap_vero_segment.terminal import table

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

FUNNEL: Final = {
    "sent": "email_sent",
    "delivered": "email_delivered",
    "opened": "email_opened",
    "clicked": "email_link_clicked",
}
"""The funnel's steps and their tables, from its wide end to its narrow one."""

_EMAILS: Final = """
SELECT coalesce(campaign_name, '(no campaign)') AS campaign,
       count(DISTINCT coalesce(email_id, user_id, anonymous_id)) AS emails
FROM {table} GROUP BY 1
"""


def report(path: Path, schema: str) -> str:
    """Describe loaded tables: their rows, and emails sent, delivered, opened, clicked.

    Args:
        path: The DuckDB file.
        schema: The schema that the tables are in.

    Raises:
        UserError: There is no such file, it cannot be read, or no table of the tap is in it.
    """
    with _open(path) as connection:
        present = _tables(connection, schema)
        if not present:
            msg = f"no table of the tap is in the schema {schema} of {path}"
            raise UserError(msg)
        rows = [(name, f"{_count(connection, schema, name):,}") for name in present]
        funnel = _funnel(connection, schema, present)
    lines = table(("table", "rows"), rows)
    if funnel:
        lines += ["", "Campaigns, in emails and percent of those sent:", ""]
        lines += table(("campaign", *FUNNEL), funnel)
    return "\n".join(lines)


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        import duckdb  # noqa: PLC0415  # an extra: heavy, and only needed here
    except ImportError as error:
        msg = "a report needs DuckDB: pip install 'tap-vero-segment[report]'"
        raise UserError(msg) from error
    if not path.exists():
        msg = f"there is no file {path}"
        raise UserError(msg)
    try:
        return duckdb.connect(str(path), read_only=True)
    except duckdb.Error as error:
        msg = f"cannot read {path}: {error}"
        raise UserError(msg) from error


def _tables(connection: duckdb.DuckDBPyConnection, schema: str) -> list[str]:
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = ?", [schema]
    ).fetchall()
    names = {name for (name,) in found}
    return [
        name
        for name in (*(collection.stream for collection in COLLECTIONS), TRACKS)
        if name in names
    ]


def _quoted(schema: str, name: str) -> str:
    return f'"{schema.replace(chr(34), chr(34) * 2)}"."{name}"'


def _count(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> int:
    row: Any = connection.execute(f"SELECT count(*) FROM {_quoted(schema, name)}").fetchone()  # noqa: S608  # quoted
    return int(row[0])


def _funnel(
    connection: duckdb.DuckDBPyConnection, schema: str, present: list[str]
) -> list[tuple[str, ...]]:
    if any(name not in present for name in FUNNEL.values()):
        return []
    steps = [
        dict(connection.execute(_EMAILS.format(table=_quoted(schema, name))).fetchall())
        for name in FUNNEL.values()
    ]
    sent = steps[0]
    campaigns = {name for step in steps for name in step}
    return [
        (campaign, *(_cell(step.get(campaign, 0), sent.get(campaign, 0)) for step in steps))
        for campaign in sorted(campaigns, key=lambda name: (-sent.get(name, 0), name))
    ]


def _cell(emails: int, sent: int) -> str:
    share = f"{emails / sent:.0%}" if sent else "-"
    return f"{emails:,} {share:>5}"
