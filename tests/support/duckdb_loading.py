"""``target-vero-duckdb`` inside the tests' own process, and what it has loaded."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import duckdb

from tap_vero_segment.targets.duckdb import TargetVeroDuckDB
from tests.support.inline_target import own_signal_handlers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

STREAM = "things"

KEYED = {"id": {"type": "integer"}, "value": {"type": ["null", "string"]}}


def schema_message(
    properties: Mapping[str, Any], keys: Sequence[str] = (), stream: str = STREAM
) -> bytes:
    schema = {"properties": properties}
    return _line(
        {"type": "SCHEMA", "stream": stream, "schema": schema, "key_properties": list(keys)}
    )


def record_message(record: Any, stream: str = STREAM, **more: Any) -> bytes:
    """A RECORD message; a record of bytes is JSON already."""
    text = record if isinstance(record, bytes) else json.dumps(record).encode()
    head = _line({"type": "RECORD", "stream": stream, **more})
    return head.removesuffix(b"}\n") + b', "record": ' + text + b"}\n"


def state_message(value: Any) -> bytes:
    return _line({"type": "STATE", "value": value})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


class Warehouse:
    """A DuckDB file, and the target that loads into it."""

    def __init__(self, path: Path, **config: Any) -> None:
        self.path = path
        self.config = {"filepath": str(path), **config}

    def load(self, lines: Iterable[bytes], **config: Any) -> list[dict[str, Any]]:
        """Load messages to their end; return the states that were written."""
        output = io.StringIO()
        with own_signal_handlers(), redirect_stdout(output):
            target = TargetVeroDuckDB(config={**self.config, **config})
            target.process_lines(io.BytesIO(b"".join(lines)))  # type: ignore[arg-type]
            target.process_endofpipe()
        return [json.loads(line) for line in output.getvalue().splitlines()]

    def load_records(
        self,
        properties: Mapping[str, Any],
        records: Iterable[Any],
        keys: Sequence[str] = (),
        **config: Any,
    ) -> list[dict[str, Any]]:
        lines = [schema_message(properties, keys), *map(record_message, records)]
        return self.load(lines, **config)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(statement).fetchall()

    def rows(self, table: str = STREAM, order: str = "ALL") -> list[tuple[Any, ...]]:
        return self.query(f"SELECT * FROM {table} ORDER BY {order}")

    def types(self, table: str = STREAM) -> dict[str, str]:
        described = self.query(f"DESCRIBE {table}")
        return {name: kind for name, kind, *_ in described}
