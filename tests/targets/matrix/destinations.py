"""Where a target loads to: what its settings say of the place, and the rows that are there.

Rows come as they are there: a reader changes no value, so that what differs is the target's doing.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import shutil
import sqlite3
from abc import ABC, abstractmethod
from contextlib import ExitStack, closing
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import duckdb

from tests.support.mariadb import MariaDB
from tests.support.postgres import running_postgres
from tests.support.s3 import ACCESS_KEY, REGION, S3, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

    Row = dict[str, Any]

SCHEMA = "vero"
ZONE = "Asia/Kolkata"
"""The session's time zone, which no stored time may depend on."""


class JsonText(str):
    """What a column of JSON holds, as text: it can be ``null`` where the column is not NULL."""

    __slots__ = ()


class Servers:
    """Servers that targets load to, each started when the first target needs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @cached_property
    def postgres(self) -> Postgres:
        return self._stack.enter_context(running_postgres())

    @cached_property
    def mariadb(self) -> MariaDB:
        return self._stack.enter_context(MariaDB())

    @cached_property
    def s3(self) -> S3:
        return self._stack.enter_context(S3(self._folder))


class Destination(ABC):
    """An empty place of its own for one target.

    Args:
        folder: An empty folder.
        servers: Where it finds its server.
    """

    def __init__(self, folder: Path, servers: Servers) -> None:
        self.folder = folder
        self.servers = servers
        self.name = f"matrix{next(servers.numbers)}"

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the target's settings say of it."""

    @abstractmethod
    def rows(self, stream: str) -> list[Row]:
        """Return a stream's rows; an empty list if it has no table."""

    def remove(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder)


class DuckDB(Destination):
    """A DuckDB file."""

    @property
    def _path(self) -> str:
        return str(self.folder / "warehouse.duckdb")

    @property
    def config(self) -> dict[str, Any]:
        return {"filepath": self._path, "default_target_schema": SCHEMA}

    def rows(self, stream: str) -> list[Row]:
        with duckdb.connect(self._path) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            try:
                described = connection.execute(f"DESCRIBE {SCHEMA}.{stream}").fetchall()
            except duckdb.CatalogException:
                return []
            kinds = {name: kind for name, kind, *_ in described}
            columns = ", ".join(
                f'"{name}"::VARCHAR' if kind == "TIMESTAMP WITH TIME ZONE" else f'"{name}"'
                for name, kind in kinds.items()
            )
            found = connection.execute(f"SELECT {columns} FROM {SCHEMA}.{stream}").fetchall()
        return [_with_json(dict(zip(kinds, row, strict=True)), kinds, {"JSON"}) for row in found]


class PostgresTables(Destination):
    """A schema of a PostgreSQL database, whose sessions are not in UTC."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        super().__init__(folder, servers)
        self.url = servers.postgres.create(self.name)
        with servers.postgres.connect() as connection:
            connection.execute(f"ALTER DATABASE {self.name} SET TimeZone TO '{ZONE}'".encode())

    @property
    def config(self) -> dict[str, Any]:
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        return {"sqlalchemy_url": url, "default_target_schema": SCHEMA}

    def rows(self, stream: str) -> list[Row]:
        with self.servers.postgres.connect(self.name) as connection:
            connection.execute("SET TimeZone TO 'UTC'")
            kinds = dict(
                connection.execute(
                    "SELECT column_name, data_type FROM information_schema.columns"
                    " WHERE table_schema = %s AND table_name = %s",
                    (SCHEMA, stream),
                ).fetchall()
            )
            if not kinds:
                return []
            columns = ", ".join(f'"{name}"::text' for name in kinds)
            statement = f"SELECT {columns} FROM {SCHEMA}.{stream}"
            found = connection.execute(statement.encode()).fetchall()
        json_kinds = {"json", "jsonb"}
        return [_with_json(dict(zip(kinds, row, strict=True)), kinds, json_kinds) for row in found]

    def remove(self) -> None:
        with self.servers.postgres.connect() as connection:
            connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)".encode())
        super().remove()


class PipelinewisePostgres(PostgresTables):
    """The same, as PipelineWise's targets name it."""

    @property
    def config(self) -> dict[str, Any]:
        server = self.servers.postgres
        return {
            "host": "127.0.0.1",
            "port": server.port,
            "user": "vero",
            "password": "unused",
            "dbname": self.name,
            "default_target_schema": SCHEMA,
        }


class MariaDBTables(Destination):
    """A MariaDB database."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        super().__init__(folder, servers)
        self.url = servers.mariadb.create(self.name)

    @property
    def config(self) -> dict[str, Any]:
        return {"sqlalchemy_url": self.url}

    def rows(self, stream: str) -> list[Row]:
        described = self.servers.mariadb.query(
            "SELECT column_name FROM information_schema.columns"
            f" WHERE table_schema = '{self.name}' AND table_name = '{stream}'"
        )
        names = described.split()
        if not names:
            return []
        pairs = ", ".join(f"'{name}', CAST(`{name}` AS CHAR)" for name in names)
        lines = self.servers.mariadb.query(f"SELECT JSON_OBJECT({pairs}) FROM {stream}", self.name)
        return [json.loads(line, strict=False) for line in lines.split("\n") if line]


class SQLite(Destination):
    """An SQLite file."""

    @property
    def config(self) -> dict[str, Any]:
        return {"database": str(self.folder / "warehouse")}

    def rows(self, stream: str) -> list[Row]:
        with closing(sqlite3.connect(self.folder / "warehouse.db")) as connection:
            connection.row_factory = sqlite3.Row
            try:
                found = connection.execute(f"SELECT * FROM {stream}").fetchall()
            except sqlite3.OperationalError:
                return []
        return [dict(row) for row in found]


class Files(Destination):
    """Files of a stream each, in a folder."""

    suffix = ""

    @property
    def config(self) -> dict[str, Any]:
        return {"destination_path": str(self.folder), "do_timestamp_file": False}

    def contents(self, stream: str) -> Iterator[bytes]:
        """Yield the contents of the files of a stream."""
        for path in sorted(self.folder.rglob(f"*{self.suffix}")):
            if path.name.startswith((f"{stream}.", f"{stream}-")):
                yield path.read_bytes()

    def rows(self, stream: str) -> list[Row]:
        return [row for content in self.contents(stream) for row in self.parse(content)]

    @abstractmethod
    def parse(self, content: bytes) -> Iterator[Row]:
        """Yield the rows of a file."""


class JsonLines(Files):
    """Files of JSON lines."""

    suffix = ".jsonl"

    def parse(self, content: bytes) -> Iterator[Row]:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        for line in content.decode().split("\n"):
            if line:
                yield json.loads(line, parse_float=Decimal)


class SingerFiles(JsonLines):
    """Files of Singer messages."""

    suffix = ".singer.gz"

    @property
    def config(self) -> dict[str, Any]:
        return {"destination": "local", "local": {"folder": str(self.folder)}}

    def parse(self, content: bytes) -> Iterator[Row]:
        for message in super().parse(content):
            if message["type"] == "RECORD":
                yield message["record"]


class Csv(Files):
    """CSV files; an empty field is read as NULL, as any reader does that has NULL."""

    suffix = ".csv"

    @property
    def config(self) -> dict[str, Any]:
        return {"output_path": str(self.folder)}

    def parse(self, content: bytes) -> Iterator[Row]:
        csv.field_size_limit(1 << 24)
        for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
            yield {name: None if value == "" else value for name, value in row.items()}


class Bucket(JsonLines):
    """Objects of JSON lines in a bucket of an object store that speaks S3."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        super().__init__(folder, servers)
        servers.s3.make_bucket(self.name)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "s3_bucket": self.name,
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "aws_endpoint_url": self.servers.s3.endpoint,
        }

    def contents(self, stream: str) -> Iterator[bytes]:
        client = self.servers.s3.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.name):
            for found in page.get("Contents", []):
                *folders, name = found["Key"].split("/")
                if stream in folders or name.startswith((f"{stream}.", f"{stream}-")):
                    yield client.get_object(Bucket=self.name, Key=found["Key"])["Body"].read()


class CsvBucket(Bucket):
    """Objects of CSV."""

    parse = Csv.parse


class PlinxoreBucket(Bucket):
    """Objects of what ``plinxore-target-s3`` writes."""

    @property
    def config(self) -> dict[str, Any]:
        aws = {
            "aws_access_key_id": ACCESS_KEY,
            "aws_secret_access_key": SECRET_KEY,
            "aws_region": REGION,
            "aws_bucket": self.name,
            "aws_endpoint_override": self.servers.s3.endpoint,
        }
        return {"cloud_provider": {"cloud_provider_type": "aws", "aws": aws}, "prefix": "matrix"}


class PlinxoreJsonBucket(PlinxoreBucket):
    """Objects that hold an array of rows."""

    def parse(self, content: bytes) -> Iterator[Row]:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        yield from json.loads(content, parse_float=Decimal)


class PlinxoreParquetBucket(PlinxoreBucket):
    """Objects of Parquet."""

    def parse(self, content: bytes) -> Iterator[Row]:
        import pyarrow.parquet  # it takes a third of a second

        yield from pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()


def _with_json(row: Row, kinds: dict[str, str], json_kinds: set[str]) -> Row:
    return {
        name: JsonText(value) if kinds[name] in json_kinds and value is not None else value
        for name, value in row.items()
    }
