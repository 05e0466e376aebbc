"""The formats of batch files. A new one is a class here and a row in :data:`FORMATS`."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from tap_vero_segment.errors import SettingError
from tap_vero_segment.tap.batch.settings import SETTING
from tap_vero_segment.tap.messages import encode

try:
    from isal import isal_zlib as zlib
except ImportError:  # no wheel for this machine
    import zlib  # type: ignore[no-redef]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tap_vero_segment.record import Record

    Convert = Callable[[Any], Any]

_GZIP_WINDOW: Final = 31  # zlib's way to say: with gzip's header
_GZIP_LEVEL: Final = 2  # isal's own choice

_GROUP_ROWS: Final = 10_000
_GROUP_BYTES: Final = 8_000_000
"""Rows of a row group of Parquet, and their text: what is held until it is written."""


class Rows(Protocol):
    """Writes records to a file, a row each."""

    def write(self, records: Iterable[Record]) -> None:
        """Write records.

        Raises:
            SettingError: The format cannot hold one of them.
        """

    def close(self) -> None:
        """Write what the file ends with; the file stays open."""

    def abandon(self) -> None:
        """Write no more: the file is about to be discarded."""


class JsonLines:
    """Records as JSON, one a line.

    Args:
        file: Where to.
        schema: The records' JSON schema.
        compression: ``gzip``, ``none`` or None.
        stream: The stream's name, for errors.
    """

    def __init__(
        self,
        file: IO[bytes],
        schema: Mapping[str, Any],  # noqa: ARG002  # JSON says by itself what it is
        compression: str | None,
        stream: str,  # noqa: ARG002
    ) -> None:
        self._file = file
        self._zip = None
        if compression == "gzip":
            self._zip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def write(self, records: Iterable[Record]) -> None:
        """See :class:`Rows`."""
        lines = b"\n".join([*map(encode, records), b""])
        self._file.write(lines if self._zip is None else self._zip.compress(lines))

    def close(self) -> None:
        """See :class:`Rows`."""
        if self._zip is not None:
            self._file.write(self._zip.flush())

    def abandon(self) -> None:
        """See :class:`Rows`."""


class Parquet:
    """Records as rows of Parquet, each column of its schema's type.

    Times are text, as in RECORD messages and in the SDK's own Parquet batches: a target takes
    either for what its SCHEMA message says. An object, a list, or what may be of several types is
    JSON (text that is marked as JSON): its keys differ from row to row, and no column is lost or
    made up for that.

    Args:
        file: Where to.
        schema: The records' JSON schema.
        compression: ``gzip``, ``snappy``, ``zstd``, ``none`` or None, which is ``snappy``.
        stream: The stream's name, for errors.
    """

    def __init__(
        self, file: IO[bytes], schema: Mapping[str, Any], compression: str | None, stream: str
    ) -> None:
        import pyarrow as pa  # noqa: PLC0415  # an extra
        import pyarrow.parquet as pq  # noqa: PLC0415

        kinds = {name: _kind(property_) for name, property_ in schema["properties"].items()}
        types = {
            "string": pa.string(),
            "integer": pa.int64(),
            "number": pa.float64(),
            "boolean": pa.bool_(),
            "json": pa.json_(),
        }
        self._pa = pa
        self._stream = stream
        self._columns = {name: _CONVERSIONS[kind] for name, kind in kinds.items()}
        self._schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
        self._writer = pq.ParquetWriter(file, self._schema, compression=compression or "snappy")
        self._forget()

    def _forget(self) -> None:
        self._held: dict[str, list[Any]] = {name: [] for name in self._columns}
        self._rows = self._bytes = 0

    def write(self, records: Iterable[Record]) -> None:
        """See :class:`Rows`."""
        for record in records:
            if not record.keys() <= self._columns.keys():
                names = ", ".join(sorted(record.keys() - self._columns.keys()))
                raise self._unfit(names, "not in the stream's schema")
            for name, convert in self._columns.items():
                value = record.get(name)
                if value is not None:
                    try:
                        value = convert(value)
                    except (TypeError, ValueError) as error:
                        raise self._unfit(name, "not of its schema's type") from error
                    if type(value) is str:
                        self._bytes += len(value)
                self._held[name].append(value)
            self._rows += 1
            if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
                self._write_group()

    def _write_group(self) -> None:
        arrays = []
        for field in self._schema:
            try:
                arrays.append(self._pa.array(self._held[field.name], field.type))
            except (self._pa.ArrowException, OverflowError) as error:
                raise self._unfit(field.name, "not of its schema's type") from error
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))
        self._forget()

    def _unfit(self, column: str, problem: str) -> SettingError:
        what = f"{self._stream}: a value of {column} is {problem}, which parquet must know"
        return SettingError(f"{SETTING}.encoding.format", f"{what}; jsonl takes any")

    def close(self) -> None:
        """See :class:`Rows`."""
        if self._rows:
            self._write_group()
        self._writer.close()

    def abandon(self) -> None:
        """See :class:`Rows`."""
        # Else pyarrow would end the file when the writer is collected, and find it closed.
        self._writer.is_open = False


FORMATS: Final[Mapping[str, Callable[[IO[bytes], Mapping[str, Any], str | None, str], Rows]]] = {
    "jsonl": JsonLines,
    "parquet": Parquet,
}


def _kind(schema: Mapping[str, Any]) -> str:
    """Return how a column is kept."""
    types = schema.get("type", [])
    told = {types} if isinstance(types, str) else set(types)
    told -= {"null"}
    if len(told) == 1:
        (only,) = told
        return only if only in _CONVERSIONS else "json"
    return "json"


def _text(value: Any) -> str:
    """Return text as it is; what a stream map has made of it, as RECORD messages have it."""
    if isinstance(value, str):
        return value
    written = encode(value).decode()
    return written[1:-1] if written.startswith('"') else written


def _integer(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(value)
    return int(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


_CONVERSIONS: Final[Mapping[str, Convert]] = {
    "string": _text,
    "integer": _integer,
    "number": float,
    "boolean": _boolean,
    "json": lambda value: encode(value).decode(),
}
