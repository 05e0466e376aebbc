"""The report's tables in a DuckDB file."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tap_vero_segment.errors import UserError
from tap_vero_segment.report.extra import extra
from tap_vero_segment.report.warehouse import Report, read

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import duckdb


def read_duckdb(path: Path, schema: str) -> Report:
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
    with connection, _told(path, duckdb.Error):
        with suppress(duckdb.Error):  # a build without time zones: all of it is UTC
            connection.execute("SET TimeZone = 'UTC'")
        return read(_File(connection, path), schema)


@contextmanager
def _told(path: Path, kind: type[Exception]) -> Generator[None]:
    """Tell an error of a query by its kind: its text could hold a row's values.

    Raises:
        UserError: There was one.
    """
    try:
        yield
    except kind as error:
        msg = f"the tables of {path} are not as the tap's are: {type(error).__name__}"
        raise UserError(msg) from error


class _File:
    placeholder = "?"

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self.name = str(path)
        self._connection = connection

    def query(self, statement: str, values: Sequence[str] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, list(values)).fetchall()
