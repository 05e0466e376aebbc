"""Records on their way into batch files."""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tap_vero_segment.archive.prefetch import all_in_threads
from tap_vero_segment.closing import Closing
from tap_vero_segment.tap.batch.formats import FORMATS
from tap_vero_segment.tap.batch.storage import told
from tap_vero_segment.tap.messages import deselected_columns, encode
from tap_vero_segment.tap.streams import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tap_vero_segment.record import Record, Row
    from tap_vero_segment.tap.batch.formats import Rows
    from tap_vero_segment.tap.batch.settings import BatchSettings
    from tap_vero_segment.tap.batch.storage import Draft, Storage
    from tap_vero_segment.tap.messages import Serializer
    from tap_vero_segment.tap.streams import VeroStream

_UNSAFE: Final = re.compile(r"[^\w.-]", re.ASCII)


class BatchFile(NamedTuple):
    """A batch file that is complete.

    Attributes:
        stream: The stream that its rows belong to, by the name that it leaves under.
        url: Where it is.
    """

    stream: str
    url: str


class _Open(NamedTuple):
    stream: str
    draft: Draft
    rows: Rows


class BatchFiles(Closing):
    """The files that are being written: one for each stream, and for each of its stream maps.

    Args:
        settings: How they are written.
        storage: Where to.
        run: What tells this run's names from those of any other.
    """

    def __init__(self, settings: BatchSettings, storage: Storage, run: str) -> None:
        self._settings = settings
        self._storage = storage
        self._run = run
        self._begun = 0
        self._open: dict[tuple[str, str], _Open] = {}
        self._drafts: list[Draft] = []

    def writer(self, stream: VeroStream) -> Serializer:
        """Return what writes a stream's records, as RECORD messages would have them.

        There are no messages until the files are complete.
        """
        schemas = {each.stream_alias: each.transformed_schema for each in stream.stream_maps}
        if deselected_columns(stream) == frozenset():
            return lambda rows: self._write(
                stream.name, stream.name, schemas, stream.records_of(rows)
            )

        def write(rows: Iterable[Row]) -> bytes:
            mapped: dict[str, list[Record]] = {}
            for record in stream.records_of(rows):
                for message in stream.mapped(record):
                    mapped.setdefault(message.stream, []).append(message.record)
            for alias, batch in mapped.items():
                self._write(stream.name, alias, schemas, batch)
            return b""

        return write

    def _write(
        self, stream: str, alias: str, schemas: Mapping[str, Any], records: Iterable[Record]
    ) -> bytes:
        # Two streams may leave by the same name, each with its own columns.
        file = self._open.get((stream, alias))
        if file is None:
            file = self._open[stream, alias] = self._begin(alias, schemas[alias])
        with told("its files"):
            file.rows.write(records)
        return b""

    def _begin(self, alias: str, schema: Mapping[str, Any]) -> _Open:
        self._begun += 1
        form, compression = self._settings.format, self._settings.compression
        suffix = f".{form}.gz" if (form, compression) == ("jsonl", "gzip") else f".{form}"
        stem = f"{self._settings.prefix}{_UNSAFE.sub('_', alias)}"
        draft = self._storage.draft(f"{stem}-{self._run}-{self._begun:06}{suffix}")
        self._drafts.append(draft)
        return _Open(alias, draft, FORMATS[form](draft.begin(), schema, compression, alias))

    def complete(self) -> list[BatchFile]:
        """Give all files their names; the next records begin new ones.

        Raises:
            SettingError: One cannot be stored.
        """
        files = list(self._open.values())
        with told("its files"):
            for file in files:
                file.rows.close()
        urls = all_in_threads([file.draft.complete for file in files])
        self._open.clear()
        self._drafts.clear()
        return [BatchFile(file.stream, url) for file, url in zip(files, urls, strict=True)]

    def close(self) -> None:
        """Discard what is not complete."""
        for file in self._open.values():
            file.rows.abandon()
        for draft in self._drafts:
            draft.discard()
        self._open.clear()
        self._drafts.clear()


def page_size(settings: BatchSettings) -> int:
    """Return the size of pages that fill the files to the last row, where pages are full."""
    return ceil(settings.size / ceil(settings.size / PAGE_SIZE))


def batch_line(file: BatchFile, settings: BatchSettings) -> bytes:
    """Return the BATCH message of a file, with its line end."""
    message = {
        "type": "BATCH",
        "stream": file.stream,
        "encoding": settings.encoding,
        "manifest": [file.url],
    }
    return encode(message) + b"\n"
