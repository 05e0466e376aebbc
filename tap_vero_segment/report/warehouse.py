"""What the report reads from DuckDB or PostgreSQL: the rows of each table, and the funnel."""

from __future__ import annotations

from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS, TRACKS
from tap_vero_segment.errors import UserError, importing
from tap_vero_segment.report.funnel import (
    STEPS,
    Campaign,
    Line,
    Question,
    campaigns,
    channels_statement,
    days_statement,
    domains,
    domains_statement,
    period_before,
    quoted,
    shown,
    statement,
    total,
    total_statement,
)
from tap_vero_segment.stores.open import needing_postgres

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import duckdb

    from tap_vero_segment.stores.postgres.connection import Connection


def extra(package: str) -> AbstractContextManager[None]:
    """Import a package of the extra ``report``.

    Raises:
        UserError: It is not installed.
    """
    return importing(
        UserError(f"this report needs {package}: pip install 'tap-vero-segment[report]'")
    )


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


class Details(NamedTuple):
    """What only the page shows.

    Attributes:
        made_at: When the tables were read.
        period_before: The period that comes before, as long; None: there is none.
        before: All campaigns together in that period.
        days: A day, a step and its events, the days in order.
        domains: The receiving domains with the most bounces and complaints.
        all_domains: How many domains there are.
    """

    made_at: datetime
    period_before: Question | None
    before: Line | None
    days: Sequence[tuple[Any, ...]]
    domains: Sequence[Line]
    all_domains: int


class Report(NamedTuple):
    """What was found.

    Attributes:
        rows: Each table of the tap's that is there, and its rows, duplicates included.
        campaigns: The funnel.
        total: All campaigns together.
        question: What was counted.
        first: When the first counted event happened; None: there is none.
        last: When the last one did.
        notes: Sentences about what is not counted, or is counted without being known.
        details: What only the page shows; None: it was not asked for.
    """

    rows: Sequence[tuple[str, int]]
    campaigns: Sequence[Campaign]
    total: Line
    question: Question
    first: datetime | None
    last: datetime | None
    notes: Sequence[str]
    details: Details | None


def read(warehouse: Warehouse, schema: str, question: Question, *, detailed: bool) -> Report:
    """Read the loaded tables of a schema.

    Args:
        warehouse: Where they are.
        schema: The schema.
        question: What is counted.
        detailed: Whether to read what only the page shows.

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
        msg = (
            f"no table of the tap is in the schema {schema} of {warehouse.name}: "
            "load the tables first, or name their schema with --schema"
        )
        raise UserError(msg)
    counts = [
        warehouse.query(f"SELECT count(*) FROM {quoted(schema)}.{quoted(name)}")[0][0]  # noqa: S608
        for name in present
    ]
    found = warehouse.query(total_statement(schema, columns, question))
    channel = question.channel
    return Report(
        list(zip(present, counts, strict=True)),
        campaigns(warehouse.query(statement(schema, columns, question))),
        total(found),
        question,
        min((_utc(first) for *_, first, _ in found), default=None),
        max((_utc(last) for *_, last in found), default=None),
        [] if channel is None else _notes(warehouse, schema, columns, channel),
        _details(warehouse, schema, columns, question) if detailed else None,
    )


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _details(
    warehouse: Warehouse, schema: str, columns: Mapping[str, set[str]], question: Question
) -> Details:
    now = times.now()
    earlier = period_before(question, now)
    located = warehouse.query(domains_statement(schema, columns, question))
    return Details(
        datetime.fromisoformat(times.to_text(now)),
        earlier,
        total(warehouse.query(total_statement(schema, columns, earlier))) if earlier else None,
        warehouse.query(days_statement(schema, columns, question)),
        domains(located),
        located[0][-1] if located else 0,
    )


_MOST_NAMED: Final = 5
"""Channels that a note names: the name of one can be anything."""


def _notes(
    warehouse: Warehouse, schema: str, columns: Mapping[str, set[str]], channel: str
) -> list[str]:
    """Say what the choice of a channel leaves out, and where it could not be made."""
    found = warehouse.query(channels_statement(schema, columns))
    others = sorted((-count, name) for name, count in found if name != channel)
    notes = []
    if others:
        named = [f"{shown(name)} ({-count:,} events)" for count, name in others[:_MOST_NAMED]]
        if more := others[_MOST_NAMED:]:
            named.append(f"{len(more):,} more ({-sum(count for count, _ in more):,} events)")
        notes.append(
            f"Only the channel {shown(channel)} is counted. Other channels: {', '.join(named)}. "
            "Choose with --channel."
        )
    unknown = [
        step.table
        for step in STEPS
        if step.table in columns and "campaign_channel" not in columns[step.table]
    ]
    if unknown:
        notes.append(
            f"Events without a channel count as emails: no column campaign_channel in "
            f"{', '.join(unknown)}."
        )
    return notes


def read_duckdb(path: Path, schema: str, question: Question, *, detailed: bool) -> Report:
    """Read the loaded tables of a DuckDB file.

    Raises:
        UserError: There is no such file, it cannot be read, or no table of the tap is in it.
    """
    with extra("duckdb"):
        import duckdb  # noqa: PLC0415  # an extra: heavy, and only needed here
    if not path.exists():
        msg = f"there is no file {path}"
        raise UserError(msg)
    try:
        connection = duckdb.connect(
            str(path),
            read_only=True,
            # A report asks nothing of the network.
            config={"autoinstall_known_extensions": "false"},
        )
    except duckdb.Error as error:
        msg = f"cannot read {path}: {str(error).splitlines()[0]}"
        raise UserError(msg) from error
    try:
        with connection:
            with suppress(duckdb.Error):  # a build without time zones: all of it is UTC
                connection.execute("SET TimeZone = 'UTC'")
            return read(_File(connection, path), schema, question, detailed=detailed)
    except duckdb.Error as error:
        # Its text could hold a row's values.
        msg = f"the tables of {path} are not as the tap's are: {type(error).__name__}"
        raise UserError(msg) from error


class _File:
    placeholder = "?"

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.name = str(path)
        self._connection = connection

    def query(self, statement: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, list(values)).fetchall()


_SILENCE: Final = 3600
"""Seconds without a byte: nothing comes while the server counts."""

_SNAPSHOT: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def read_postgres(url: str, schema: str, question: Question, *, detailed: bool) -> Report:
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
            return read(_Database(connection), schema, question, detailed=detailed)

    with closing(Session(url, "postgres", writes=False)) as session:
        return session.run(work, silence=_SILENCE)


class _Database:
    name = "the database"
    placeholder = "%s"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def query(self, statement: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement.encode(), values or None).fetchall()
