"""The target: messages to buffers, buffers to tables, and states once they are true.

Settings, capabilities and the command line are the SDK's. Records take no part of its way, which
makes an object of each: they are appended as JSON to their stream's buffer, and DuckDB reads the
buffers of all streams in one transaction, in a thread of its own: messages are read meanwhile, so
that the tap does not wait. After the commit the last state before it is written.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

import msgspec
from singer_sdk.exceptions import RecordsWithoutSchemaException
from singer_sdk.helpers.capabilities import (
    PluginCapabilities,
    TargetCapabilities,
    TargetLoadMethods,
)
from singer_sdk.mapper import RemoveRecordTransform, SameRecordTransform

from tap_vero_segment.errors import UserError, describe_fault
from tap_vero_segment.inputs.body import read_json
from tap_vero_segment.singer.plugin import SingerTarget, end_at_the_next_signal
from tap_vero_segment.singer.stream_maps import NamesInInput
from tap_vero_segment.targets.duckdb.batch import FORMATS, compression_of, local_file
from tap_vero_segment.targets.duckdb.reader import MAX_LINE, RecordReader
from tap_vero_segment.targets.duckdb.settings import RENAMED, SCHEMA, Settings
from tap_vero_segment.targets.duckdb.table import EXTRACTED, VERSION, Table
from tap_vero_segment.targets.duckdb.warehouse import Warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from types import FrameType

    from singer_sdk.helpers.capabilities import CapabilitiesEnum
    from singer_sdk.mapper import StreamMap

    from tap_vero_segment.targets.duckdb.reader import RecordMessage

LOAD_AT: Final = 24 << 20
"""Bytes of records, of all streams together, that are loaded at once."""

_BRACE: Final = ord("{")

TABLES: Final = 100
"""Tables that are loaded in one transaction, which takes memory for each."""

MAX_AGE: Final = 60.0
"""Seconds that a record waits for others at most."""

_encode: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode


_decode_names: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Buffer:
    """Records that wait to be loaded into a table.

    Args:
        table: The table.

    Attributes:
        records: They, as lines of JSON.
        count: How many they are.
        longest: The bytes of the longest line.
        ignored: The names of properties that the schema does not have.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.records = bytearray()
        self.count = 0
        self.longest = 0
        self.ignored: set[str] = set()

    def add(self, record: bytes | memoryview) -> None:
        """Add a record."""
        self.records += record
        self.records += b"\n"
        self.count += 1
        self.longest = max(self.longest, len(record))

    def clear(self) -> None:
        """Remove all records, and give back their memory."""
        self.records = bytearray()
        self.count = self.longest = 0


class _Stream(NamedTuple):
    """A stream, as its SCHEMA message describes it.

    Attributes:
        schema: Its JSON schema.
        keys: Its primary key.
        outlets: Its stream maps, and the buffers that their records go to.
        direct: The buffer that its records go to as they are; None: the maps change them.
    """

    schema: Mapping[str, Any]
    keys: Sequence[str]
    outlets: Sequence[tuple[StreamMap, _Buffer]]
    direct: _Buffer | None


def _with_metadata(record: bytes, metadata: Mapping[str, Any]) -> bytes:
    if b"_sdc_" in record:  # as of a tap that reads what a target has loaded
        return _encode(json.loads(record) | metadata)
    separator = b"" if record[1:].lstrip().startswith(b"}") else b","
    return _encode(metadata)[:-1] + separator + record[1:]


class TargetVeroDuckDB(SingerTarget[Settings]):
    """Singer target for DuckDB, which reads the records' JSON itself."""

    name = "target-vero-duckdb"
    package_name = "tap-vero-segment"
    settings_class = Settings
    config_jsonschema: ClassVar[dict[str, Any]] = SCHEMA
    renamed_settings: ClassVar[Mapping[str, str]] = RENAMED
    message_reader_class = RecordReader
    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.ACTIVATE_VERSION,
        PluginCapabilities.BATCH,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
        TargetCapabilities.HARD_DELETE,
    ]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._streams: dict[str, _Stream] = {}
        self._buffers: list[_Buffer] = []
        self._size = 0
        self._count = 0
        self._oldest = 0.0
        self._loaded = 0
        self._rounded = 0
        # Only the thread of a load uses the warehouse while there is one.
        self._thread = ThreadPoolExecutor(1)
        self._load: Future[None] | None = None
        self._state: dict[str, Any] | None = None
        self._loaded_state: dict[str, Any] | None = None  # true once the load is over
        self._written_state: dict[str, Any] | None = None
        self._signalled = False
        self._started = round(time.time() * 1000)
        self._names = NamesInInput(self.config, self.logger)
        reader = cast("RecordReader", self.message_reader)
        reader.between, reader.failed = self._between, self._fail

    @cached_property
    def _warehouse(self) -> Warehouse:
        return Warehouse(self.settings.path, self.settings.temp_dir)

    @property
    def _at_once(self) -> bool:
        """Whether all of a run is one transaction: half of a replaced table is no table."""
        return self.settings.load_method == TargetLoadMethods.OVERWRITE

    def _process_schema_message(self, message: dict[str, Any]) -> None:
        self._assert_line_requires(message, requires={"stream", "schema"})
        name, schema, keys = message["stream"], message["schema"], message.get("key_properties")
        self._assert_line_requires(schema, requires={"properties"})
        stream = self._streams.get(name)
        if stream and (stream.schema, stream.keys) == (schema, keys or []):
            return
        self._flush()
        self._names.add(name, schema)
        if stream:
            for _, buffer in stream.outlets:
                self._buffers.remove(buffer)
        self.mapper.register_raw_stream_schema(name, schema, keys)
        self._warehouse.begin()
        outlets = [
            (each, self._new_buffer(each))
            for each in self.mapper.stream_maps[name]
            if not isinstance(each, RemoveRecordTransform)
        ]
        self._commit()
        same = [
            buffer
            for each, buffer in outlets
            if type(each) is SameRecordTransform and not each.flattening_enabled
        ]
        direct = same[0] if len(same) == len(outlets) == 1 else None
        self._streams[name] = _Stream(schema, keys or [], outlets, direct)

    def _new_buffer(self, stream_map: StreamMap) -> _Buffer:
        table = Table(
            self._warehouse,
            self.settings,
            stream_map.stream_alias,
            stream_map.transformed_schema,
            stream_map.transformed_key_properties or [],
            self._started,
        )
        for other in self._buffers:
            if other.table.identity == table.identity and other.table.stream != table.stream:
                msg = (
                    f"streams {other.table.stream} and {table.stream} both go to the table "
                    f"{table.name}: rename one with stream_maps"
                )
                raise UserError(msg)
        buffer = _Buffer(table)
        self._buffers.append(buffer)
        return buffer

    def _stream(self, name: str) -> _Stream:
        if name not in self._streams:
            msg = f"stream {name} has records before its SCHEMA message"
            raise RecordsWithoutSchemaException(msg)
        return self._streams[name]

    def _process_record_message(self, message: RecordMessage) -> None:  # type: ignore[override]
        stream = self._stream(message.stream)
        record = memoryview(message.record)
        if record[0] != _BRACE:
            msg = f"stream {message.stream}: a record is not an object"
            raise UserError(msg)
        if stream.direct:
            self._take(stream.direct, record, message)
        else:
            fields = read_json(bytes(record))
            for stream_map, buffer in stream.outlets:
                mapped = stream_map.transform(copy.copy(fields))
                if mapped is not None:
                    self._take(buffer, _encode(mapped), message)

    def _take(self, buffer: _Buffer, record: bytes | memoryview, message: RecordMessage) -> None:
        """Add a record to a buffer, with what its message says of it."""
        metadata: dict[str, Any] = {}
        if message.version is not None and self.settings.versions:
            if VERSION not in buffer.table.columns:
                self._end_load()
                buffer.table.add_versions()
            metadata[VERSION] = message.version
        if self.settings.metadata:
            metadata[EXTRACTED] = message.time_extracted
        if metadata:
            record = _with_metadata(bytes(record), metadata)
        if self._size + len(record) > LOAD_AT or self._count == self.settings.rows:
            self._begin_load()
        if not self._size:
            self._oldest = time.monotonic()
        buffer.add(record)
        self._size += len(record)
        self._count += 1

    def _process_state_message(self, message: dict[str, Any]) -> None:
        self._assert_line_requires(message, requires={"value"})
        self._state = message["value"]
        if not self._size:
            self._loaded_state = self._state
            if not self._load and not self._at_once:
                self._write_state()

    def _process_activate_version_message(self, message: dict[str, Any]) -> None:
        self._assert_line_requires(message, requires={"stream", "version"})
        if not self.settings.versions:
            self.logger.info("stream %s: ACTIVATE_VERSION is ignored", message["stream"])
            return
        self._flush()
        self._warehouse.begin()
        for _, buffer in self._stream(message["stream"]).outlets:
            buffer.table.activate(message["version"])
        self._commit()

    def _process_batch_message(self, message: dict[str, Any]) -> None:
        self._assert_line_requires(message, requires={"stream", "encoding", "manifest"})
        stream = self._stream(message["stream"])
        encoding = message["encoding"].get("format")
        if encoding not in FORMATS:
            msg = f"stream {message['stream']}: a BATCH message is neither jsonl nor parquet"
            raise UserError(msg)
        if not stream.direct:
            msg = (
                f"stream {message['stream']}: stream maps and flattening change no batch files: "
                "unset batch_config of the tap, or use stream_maps there"
            )
            raise UserError(msg)
        self._flush()
        table = stream.direct.table
        self._warehouse.begin()
        for url in message["manifest"]:
            with local_file(url, self._warehouse.folder, self.settings.storage_options) as path:
                if encoding == "parquet":
                    source = table.from_parquet(path)
                else:
                    source = table.from_json_lines(path, MAX_LINE, compression_of(path))
                self._note(*table.load(source))
        self._commit()

    def _begin_load(self) -> None:
        """Load all that waits, while messages are read on; the load before it is over then.

        Raises:
            UserError: That one failed, or the records cannot be written to the disk.
        """
        self._end_load()
        if not self._size:
            return
        files = []
        for number, buffer in enumerate([each for each in self._buffers if each.count]):
            self._note_ignored(buffer)
            path = self._warehouse.folder / f"records-{number}"
            with self._warehouse.writing():
                path.write_bytes(buffer.records)
            files.append((buffer.table, path, buffer.longest))
            buffer.clear()
        self._size = self._count = 0
        self._loaded_state = self._state
        self._load = self._thread.submit(self._load_files, files)

    def _load_files(self, files: Sequence[tuple[Table, Path, int]]) -> None:
        self._warehouse.begin()
        for number, (table, path, longest) in enumerate(files, 1):
            if number % TABLES == 0:
                self._commit()
                self._warehouse.begin()
            self._note(*table.load(table.from_json_lines(path, longest)))
            path.unlink()
        self._commit()

    def _end_load(self) -> None:
        """Wait for the load, if there is one; write the state that it makes true.

        Raises:
            UserError: It failed.
        """
        if self._load:
            load, self._load = self._load, None
            load.result()
            if not self._at_once:
                self._write_state()

    def _flush(self) -> None:
        """Load all that waits, and wait until it is loaded.

        Raises:
            UserError: It could not be loaded.
        """
        self._begin_load()
        self._end_load()

    def _commit(self) -> None:
        if not self._at_once:
            self._warehouse.commit()

    def _note(self, count: int, rounded: int) -> None:
        self._loaded += count
        self._rounded += rounded

    def _note_ignored(self, buffer: _Buffer) -> None:
        """Report properties that the schema lacks, once; the first record stands for all."""
        try:
            first = _decode_names(buffer.records[: buffer.records.index(b"\n")])
        except ValueError:
            return  # DuckDB has the word
        ignored = first.keys() - buffer.table.columns.keys() - buffer.ignored
        if ignored:
            buffer.ignored |= ignored
            self.logger.warning(
                "stream %s: properties that its schema lacks are ignored: %s",
                buffer.table.stream,
                ", ".join(sorted(ignored)),
            )

    def _write_state(self) -> None:
        state = self._loaded_state
        if state is not None and state != self._written_state:
            self._write_state_message(state)
            self._written_state = state

    def process_endofpipe(self) -> None:
        """Load what waits, write the state, and report the figures."""
        try:
            self._flush()
            if self._at_once and self._buffers:
                for buffer in self._buffers:
                    buffer.table.empty()
                self._warehouse.commit()
            self._loaded_state = self._state
            self._write_state()
        finally:
            self._close()
        self._names.end()
        self.logger.info("%d records loaded", self._loaded)
        if self._rounded:
            self.logger.warning(
                "%d records hold numbers or times with more digits than DOUBLE (15) or TIMESTAMP "
                "(microseconds) keep: these are rounded",
                self._rounded,
            )
        mended = cast("RecordReader", self.message_reader).mended
        if mended:
            self.logger.warning(
                "%d records hold halves of characters, which no text can: U+FFFD replaces them",
                mended,
            )

    def _fail(self) -> None:
        """End because of an error; what is being loaded is loaded."""
        try:
            self._end_load()
        except Exception as error:  # noqa: BLE001  # the first error ends the run
            text = str(error) if isinstance(error, UserError) else describe_fault(error)
            self.logger.error("%s", text)  # noqa: TRY400  # a traceback could name recipients
        finally:
            self._close()

    def _close(self) -> None:
        self._thread.shutdown()
        if "_warehouse" in self.__dict__:
            self._warehouse.close()

    def _between(self) -> None:
        if self._signalled:
            if self._at_once:
                self.logger.info("overwrite: the tables stay as they were")
            else:
                self.process_endofpipe()
            sys.exit(0)
        if self._load and self._load.done():
            self._end_load()
        if self._size and time.monotonic() - self._oldest > MAX_AGE:
            self._begin_load()

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        del frame
        end_at_the_next_signal()
        self.logger.info("signal %d: loading what has been read, then ending", signum)
        self._signalled = True
