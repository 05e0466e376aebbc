"""Reading batch files as a target does, and what a configuration for them looks like."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq

from tests.support.tap import Messages, read_messages

if TYPE_CHECKING:
    from collections.abc import Callable

JSONL = {"format": "jsonl", "compression": "gzip"}
PARQUET = {"format": "parquet", "compression": "none"}


def batches_to(
    root: str | Path, size: int = 10_000, encoding: dict[str, Any] = JSONL, **storage: Any
) -> dict[str, Any]:
    """Return the settings that make the tap write batch files."""
    if isinstance(root, Path):
        root = root.as_uri()
    return {
        "batch_config": {
            "encoding": encoding,
            "storage": {"root": root, "prefix": "part-", **storage},
            "batch_size": size,
        }
    }


def local(url: str) -> bytes:
    return Path(unquote(urlsplit(url).path)).read_bytes()


def rows_of(content: bytes, encoding: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a file; objects in Parquet are marked as JSON, and read as such."""
    if encoding["format"] == "jsonl":
        text = gzip.decompress(content) if encoding["compression"] == "gzip" else content
        return [json.loads(line) for line in text.split(b"\n") if line]
    table = pq.read_table(io.BytesIO(content))
    parsed = [field.name for field in table.schema if "json" in str(field.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in parsed:
            if row[name] is not None:
                row[name] = json.loads(row[name])
    return rows


def unpacked(messages: Messages, fetch: Callable[[str], bytes] = local) -> Messages:
    """The same messages, with a RECORD for each row of a BATCH in its place."""
    lines: list[str] = []
    for message in messages.all:
        assert message["type"] != "RECORD"
        if message["type"] == "BATCH":
            lines += [
                json.dumps({"type": "RECORD", "stream": message["stream"], "record": row})
                for url in message["manifest"]
                for row in rows_of(fetch(url), message["encoding"])
            ]
        else:
            lines.append(json.dumps(message))
    return read_messages(lines)
