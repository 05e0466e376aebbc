"""A stream's table: made and changed as its schema asks, loaded from files of records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from singer_sdk.exceptions import MissingKeyPropertiesError
from singer_sdk.helpers.capabilities import TargetLoadMethods

from tap_vero_segment.errors import UserError
from tap_vero_segment.targets.duckdb.columns import (
    JSON,
    MISFIT,
    TEXT,
    column_type,
    conversion,
    inexact,
    literal,
    quoted,
    widened,
)
from tap_vero_segment.targets.duckdb.warehouse import CATALOG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tap_vero_segment.targets.duckdb.settings import Settings
    from tap_vero_segment.targets.duckdb.warehouse import Warehouse

EXTRACTED: Final = "_sdc_extracted_at"
DELETED: Final = "_sdc_deleted_at"
VERSION: Final = "_sdc_table_version"

VERSIONING: Final[Mapping[str, str]] = {VERSION: "BIGINT", DELETED: "TIMESTAMP"}
"""The columns that ACTIVATE_VERSION messages need."""
_METADATA: Final[Mapping[str, str]] = {EXTRACTED: "TIMESTAMP", **VERSIONING}
"""The SDK's metadata columns that come with a record."""
_OF_A_LOAD: Final[Mapping[str, tuple[str, str]]] = {
    "_sdc_received_at": ("TIMESTAMP", "make_timestamp(epoch_us(now()))"),
    "_sdc_batched_at": ("TIMESTAMP", "make_timestamp(epoch_us(now()))"),
    "_sdc_sequence": ("BIGINT", "epoch_ms(now())"),
    "_sdc_sync_started_at": ("BIGINT", "{started}"),
}
"""Those that all records of a load share, and their values.

See sdk.meltano.com/en/latest/implementation/record_metadata.html.
"""

_STAGE: Final = "temp.main.loading"


def table_of(stream: str, default_schema: str | None) -> tuple[str, str]:
    """Return the schema and the table for a stream, as ``target-duckdb`` names them.

    Hyphens separate a database and a schema from the table: ``public-users`` is ``users`` in the
    schema ``public``.
    """
    first, *rest = stream.split("-")
    schema, table = "main", [first]
    if len(rest) == 1:
        schema, table = first, rest
    elif rest:
        schema, *table = rest
    return default_schema or schema, "_".join(table).replace(".", "_")


class _StreamError(UserError):
    def __init__(self, stream: str, problem: str) -> None:
        super().__init__(f"stream {stream}: {problem}")


class Table:
    """A stream's table.

    Args:
        warehouse: The DuckDB file, in a transaction.
        settings: The settings.
        stream: The stream's name.
        schema: Its JSON schema.
        keys: Its primary key.
        started: When the run began, in milliseconds since 1970.

    Attributes:
        stream: The stream's name.
        name: The table's name, with its schema.
        columns: The columns that records of the stream have, by name, and their types.

    Raises:
        UserError: The stream cannot be kept in a table.
    """

    def __init__(  # what a SCHEMA message says, and where to
        self,
        warehouse: Warehouse,
        settings: Settings,
        stream: str,
        schema: Mapping[str, Any],
        keys: Sequence[str],
        started: int,
    ) -> None:
        self._warehouse = warehouse
        self._settings = settings
        self.stream = stream
        self._keys = list(dict.fromkeys(keys))
        self._schema, self.name = table_of(stream, settings.schema)
        self._sql_name = f"{CATALOG}.{quoted(self._schema)}.{quoted(self.name)}"
        self._of_a_load: dict[str, str] = {}
        self._others: list[str] = []
        self.columns = {name: column_type(each) for name, each in schema["properties"].items()}
        self._check()
        if settings.hard_delete:
            self.columns.setdefault(DELETED, "TIMESTAMP")
        if settings.metadata:
            self.columns |= _METADATA
            self.columns |= {name: kind for name, (kind, _) in _OF_A_LOAD.items()}
            self._of_a_load = {
                name: value.format(started=started) for name, (_, value) in _OF_A_LOAD.items()
            }
        self.prepare()

    @property
    def identity(self) -> tuple[str, str]:
        """The schema and the table; DuckDB does not tell capitals from small letters."""
        return self._schema.lower(), self.name.lower()

    def _check(self) -> None:
        if not self.columns:
            raise _StreamError(self.stream, "its schema has no properties, so it has no columns")
        alike = Counter(name.lower() for name in self.columns)
        for name in self.columns:
            if alike[name.lower()] > 1:
                raise _StreamError(
                    self.stream,
                    f"two properties are both {name.lower()} in DuckDB, which does not tell "
                    "capitals from small letters: rename one with stream_maps",
                )
            if not name or "\0" in name:
                raise _StreamError(self.stream, "a property has no name that a column could have")
        missing = [name for name in self._keys if name not in self.columns]
        if missing:
            raise _StreamError(self.stream, f"its key {missing[0]} is not among its properties")

    def add_versions(self) -> None:
        """Add the columns that ACTIVATE_VERSION needs, unless they are there."""
        if VERSION not in self.columns:
            self.columns |= VERSIONING
            self.prepare()

    def prepare(self) -> None:
        """Create the table, or change it so that it can hold the stream's records.

        Raises:
            UserError: It cannot be changed so.
        """
        self._warehouse.make_room(len(self.columns))
        run = self._warehouse.run
        with self._warehouse.reporting(f"stream {self.stream}: table {self.name}"):
            run(f"CREATE SCHEMA IF NOT EXISTS {CATALOG}.{quoted(self._schema)}")
            wanted = ", ".join(f"{quoted(name)} {kind}" for name, kind in self.columns.items())
            run(f"CREATE TABLE IF NOT EXISTS {self._sql_name} ({wanted})")
            found: dict[str, str] = dict(
                run(
                    "SELECT lower(column_name), data_type FROM duckdb_columns() WHERE "
                    "database_name = ? AND lower(schema_name) = ? AND lower(table_name) = ?",
                    [CATALOG, *self.identity],
                )
            )
        for name, kind in self.columns.items():
            self.columns[name] = self._fitted(name, kind, found.pop(name.lower(), None))
        self._others = list(found)

    def _fitted(self, name: str, kind: str, found: str | None) -> str:
        """Add a column, or change its type if need be; return the type that it has then."""
        where = f"stream {self.stream}: column {name} of table {self.name}"
        alter = f"ALTER TABLE {self._sql_name}"
        with self._warehouse.reporting(where):
            if found is None:
                self._warehouse.run(f"{alter} ADD COLUMN {quoted(name)} {kind}")
                return kind
            fitting = widened(found, kind)
            if fitting is None or (fitting == "DOUBLE" != found and not self._is_exact(name)):
                raise _StreamError(
                    self.stream,
                    f"column {name} of table {self.name} is {found} and its values are {kind} now: "
                    "rename or drop the column, or load into another schema",
                )
            if fitting != found:
                using = f"to_json({quoted(name)})" if fitting == JSON else f"{quoted(name)}"
                self._warehouse.run(
                    f"{alter} ALTER COLUMN {quoted(name)} TYPE {fitting} "
                    f"USING CAST({using} AS {fitting})"
                )
        return fitting

    def _is_exact(self, name: str) -> bool:
        """Whether a column's whole numbers can all be kept as DOUBLE."""
        column = quoted(name)
        [(changed,)] = self._warehouse.run(
            f"SELECT count(*) FROM {self._sql_name} WHERE "
            f"TRY_CAST(CAST({column} AS DOUBLE) AS HUGEINT) IS DISTINCT FROM {column}"
        )
        return not changed

    def from_json_lines(self, path: Path, longest: int, compression: str = "uncompressed") -> str:
        """Return the SQL that reads a file of records.

        Args:
            path: The file.
            longest: The bytes of its longest line.
            compression: ``uncompressed`` or ``gzip``.
        """
        kinds = ", ".join(
            f"{literal(name)}: '{JSON if kind == JSON else TEXT}'"
            for name, kind in self.columns.items()
        )
        return (
            f"read_json({literal(str(path))}, format = 'newline_delimited', columns = {{{kinds}}}, "
            f"maximum_object_size = {max(longest + 1024, 1 << 20)}, "
            f"compression = '{compression}')"
        )

    def from_parquet(self, path: Path) -> str:
        """Return the SQL that reads a Parquet file of records."""
        source = f"read_parquet({literal(str(path))})"
        described = self._warehouse.run(f"DESCRIBE SELECT * FROM {source}")
        found = {name: kind for name, kind, *_ in described}
        values = ", ".join(
            f"{_parquet_value(name, found.get(name), kind)} AS {quoted(name)}"
            for name, kind in self.columns.items()
        )
        return f"(SELECT {values} FROM {source})"

    def load(self, source: str) -> tuple[int, int]:
        """Load records; return how many, and in how many a column's type rounds a value.

        Args:
            source: The SQL that reads them, each property as text.

        Raises:
            MissingKeyPropertiesError: A record has no key.
            UserError: A record cannot be loaded.
        """
        run = self._warehouse.run
        columns = ", ".join(map(quoted, self.columns))
        upsert = self._keys and self._settings.load_method != TargetLoadMethods.APPEND_ONLY
        keys = ", ".join(map(quoted, self._keys))
        with self._warehouse.reporting(f"stream {self.stream}"):
            self._stage(source)
            no_key = " OR ".join(f"{quoted(name)} IS NULL" for name in self._keys) or "false"
            of_keys = f"count(DISTINCT ({keys}))" if upsert else "0"
            [(count, distinct, without, rounded)] = run(
                f"SELECT count(*), {of_keys}, count(*) FILTER ({no_key}), "
                f"count(*) FILTER ({quoted(self._flag)}) FROM {_STAGE}"
            )
            if without:
                msg = f"stream {self.stream}: {without} without a value of {', '.join(self._keys)}"
                raise MissingKeyPropertiesError(msg)
            self.empty()
            if upsert:
                if distinct < count:  # the last one counts
                    run(
                        f"DELETE FROM {_STAGE} WHERE rowid NOT IN "
                        f"(SELECT max(rowid) FROM {_STAGE} GROUP BY {keys})"
                    )
                self._make_way(keys)
            run(f"INSERT INTO {self._sql_name} ({columns}) SELECT {columns} FROM {_STAGE}")
            run(f"DROP TABLE {_STAGE}")
            if self._settings.hard_delete and DELETED in self.columns:
                run(f"DELETE FROM {self._sql_name} WHERE {quoted(DELETED)} IS NOT NULL")
        return int(count), int(rounded)

    def empty(self) -> None:
        """Delete all rows that are not of this run, where that is the load method."""
        overwrite = self._settings.load_method == TargetLoadMethods.OVERWRITE
        if overwrite and self.identity not in self._warehouse.emptied:
            self._warehouse.run(f"DELETE FROM {self._sql_name}")
            self._warehouse.emptied.add(self.identity)

    @property
    def _flag(self) -> str:
        """The column that marks rounded values while records are staged."""
        name = "_rounded"
        while name in map(str.lower, self.columns):
            name += "_"
        return name

    def _stage(self, source: str) -> None:
        values, conditions = [], []
        for name, kind in self.columns.items():
            column = quoted(name)
            problem = (
                f"stream {self.stream}: property {name} holds a value that {MISFIT} {kind}: "
                "mend it at the source, or make it text with stream_maps"
            )
            value = self._of_a_load.get(name) or conversion(column, kind, problem)
            values.append(f"{value} AS {column}")
            if name not in self._of_a_load:
                conditions.append(inexact(column, kind))
        flag = " OR ".join(filter(None, conditions)) or "false"
        self._warehouse.run(
            f"CREATE OR REPLACE TEMP TABLE {_STAGE} AS SELECT {', '.join(values)}, "
            f"{flag} AS {quoted(self._flag)} FROM {source}"
        )

    def _make_way(self, keys: str) -> None:
        """Update or delete the rows that the staged records replace."""
        run = self._warehouse.run
        if not self._others:
            run(f"DELETE FROM {self._sql_name} WHERE ({keys}) IN (SELECT ({keys}) FROM {_STAGE})")
            return
        # Columns that the stream does not have keep their values.
        changes = ", ".join(
            f"{quoted(name)} = s.{quoted(name)}" for name in self.columns if name not in self._keys
        )
        same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in self._keys)
        if changes:
            run(f"UPDATE {self._sql_name} AS t SET {changes} FROM {_STAGE} AS s WHERE {same}")
        run(f"DELETE FROM {_STAGE} WHERE ({keys}) IN (SELECT ({keys}) FROM {self._sql_name})")

    def activate(self, version: int) -> None:
        """Delete the rows of older versions, or mark them as deleted.

        Raises:
            UserError: DuckDB reports an error.
        """
        self.add_versions()
        older = f"{quoted(VERSION)} < {int(version)}"
        with self._warehouse.reporting(f"stream {self.stream}"):
            if self._settings.hard_delete:
                self._warehouse.run(f"DELETE FROM {self._sql_name} WHERE {older}")
                return
            self._warehouse.run(
                f"UPDATE {self._sql_name} SET {quoted(DELETED)} = make_timestamp(epoch_us(now())) "
                f"WHERE {older} AND {quoted(DELETED)} IS NULL"
            )


def _parquet_value(name: str, found: str | None, kind: str) -> str:
    """Return the SQL that makes text, or JSON for a column of JSON, of a Parquet file's column."""
    column = quoted(name)
    if found is None:
        return "NULL"
    if found.startswith(("STRUCT", "MAP")) or found.endswith("]"):
        return f"to_json({column})" if kind == JSON else f"CAST(to_json({column}) AS {TEXT})"
    text = f"decode({column})" if found == "BLOB" else f"CAST({column} AS {TEXT})"
    if kind != JSON:
        return text
    return f"CASE WHEN json_valid({text}) THEN CAST({text} AS JSON) ELSE to_json({column}) END"
