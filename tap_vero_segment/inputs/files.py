"""Files of history: where they are, which format they have, and their records, one by one.

A file is never in memory as a whole, however it is written: lines, an array, a table.
"""

from __future__ import annotations

import csv
import glob
import re
import sys
import tempfile
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from tap_vero_segment.archive.lines import BOM, MAX_LINE, DamagedError, split_lines, unzip
from tap_vero_segment.archive.listing import IGNORED, list_objects
from tap_vero_segment.archive.objects import CHUNK, SCHEMES, Objects, ObjectStoreError
from tap_vero_segment.archive.objects import ReplacedError as ReplacedObjectError
from tap_vero_segment.errors import SettingError, UserError, importing
from tap_vero_segment.inputs.body import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tap_vero_segment.archive.objects import StoredObject

SETTING: Final = "SOURCE"
BODY_FIELD: Final = "--body-field"
FORMATS: Final = ("ndjson", "json", "csv", "parquet")

_PARQUET: Final = b"PAR1"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_HEAD: Final = 64 * 1024
"""Bytes at a file's beginning that tell its format."""
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1a]")
_LOOK: Final = 1024
"""Bytes in which a file that is not text shows it."""
_PATTERN: Final = re.compile(r"[*?\[]")
_PARQUET_ROWS: Final = 500
_NULLS: Final = frozenset({"", r"\N", "NULL"})
"""How tables in CSV write that there is no value."""


class UnreadableError(UserError):
    """A file that cannot be read, or not to its end.

    Args:
        problem: What is the matter, and what to do.
        name: The file's path or URL.
    """

    def __init__(self, problem: str, name: str = "") -> None:
        super().__init__(f"{name}: {problem}" if name else problem)
        self.problem = problem


class HistoryFile(NamedTuple):
    """A file that is to be read.

    Attributes:
        name: Its path or URL, for people.
        size: Its bytes, as stored; 0: nobody knows.
        chunks: Reads its bytes from the beginning.
        opened: Opens it where any part of it can be read; an object is copied to disk.
    """

    name: str
    size: int
    chunks: Callable[[], Iterator[bytes]]
    opened: Callable[[], Any]


class Record(NamedTuple):
    """A record of a file.

    Attributes:
        where: Its place in the file: ``line 7``.
        raw: Its text; of one that is too long, the beginning; empty: a row, which has none.
        content: What it says.
        problem: Why it says nothing; None: it does.
        exact: Whether objects in it are as they were posted; a table's are not.
    """

    where: str
    raw: bytes
    content: Any = None
    problem: str | None = None
    exact: bool = True


# Where files are


def find_files(source: str) -> list[HistoryFile]:
    """Return the files that a path, URL or pattern names; of a folder, all in it.

    Hidden files are left out where they are not named. ``-`` is standard input.

    Raises:
        UserError: There are none, or they cannot be listed.
    """
    if source == "-":
        return [HistoryFile("standard input", 0, _standard_input, _no_part_of_it)]
    scheme = urlsplit(source).scheme
    if scheme == "file":
        return _local_files(unquote(urlsplit(source).path), source)
    if scheme in SCHEMES:
        return _remote_files(source)
    if "://" in source:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise SettingError(SETTING, f"a path, or a URL that begins with one of {known}")
    return _local_files(source, source)


def _standard_input() -> Iterator[bytes]:
    while chunk := sys.stdin.buffer.read(CHUNK):
        yield chunk


def _no_part_of_it() -> Any:
    msg = "Parquet cannot be read from standard input: give the file"
    raise UnreadableError(msg)


def _local_files(path: str, source: str) -> list[HistoryFile]:
    named = Path(path)
    if named.is_dir():
        found = sorted(each for each in named.rglob("*") if _is_wanted(each.relative_to(named)))
    elif named.exists():
        found = [named]
    elif _PATTERN.search(path):
        found = [Path(each) for each in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207
    else:
        raise _nothing(source)
    files = [_local_file(each) for each in found if not each.is_dir()]
    if not files:
        raise _nothing(source)
    return files


def _nothing(source: str) -> UnreadableError:
    return UnreadableError("there are no files: check the path", source)


def _is_wanted(path: Path) -> bool:
    return path.name not in IGNORED and not any(part.startswith(".") for part in path.parts)


def _local_file(path: Path) -> HistoryFile:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    size = path.stat().st_size if path.is_file() else 0  # of a pipe nobody knows
    return HistoryFile(str(path), size, chunks, lambda: path.open("rb"))


def _remote_files(url: str) -> list[HistoryFile]:
    pattern = _PATTERN.search(url)
    base, _, name = url.rstrip("/").rpartition("/")
    if pattern:
        base = url[: pattern.start()].rpartition("/")[0]
        rest = url[len(base) + 1 :]
        objects = Objects(base, {}, SETTING)
        found = [
            each for each in list_objects(objects, None, None).objects if _matches(each.path, rest)
        ]
    else:
        stored = _remote_file(base, name)
        if stored is not None:
            return [stored]
        objects = Objects(url, {}, SETTING)
        found = list_objects(objects, None, None).objects
    if not found:
        raise _nothing(url)
    return [_of_object(objects, stored) for stored in sorted(found, key=lambda each: each.path)]


def _matches(path: str, pattern: str) -> bool:
    """Whether a path is one that a pattern means, in which a star does not mean a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    if "**" in patterns:
        return fnmatchcase(path, pattern.replace("**/", "*"))
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _remote_file(base: str, name: str) -> HistoryFile | None:
    if base.endswith("/") or not name:  # a bucket
        return None
    objects = Objects(base, {}, SETTING)
    try:
        return _of_object(objects, objects.find(name))
    except ObjectStoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _of_object(objects: Objects, stored: StoredObject) -> HistoryFile:
    def opened() -> Any:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # its reader closes it
        for chunk in objects.read(stored):
            file.write(chunk)
        return file

    return HistoryFile(
        f"{objects.url}/{stored.path}",
        stored.size,
        lambda: objects.read(stored),
        opened,
    )


# Their records


def read_records(
    file: HistoryFile,
    file_format: str | None,
    named: Mapping[str, str],
    counted: Callable[[int], None],
) -> Iterator[Record]:
    """Yield a file's records.

    Args:
        file: The file; its content says whether it is gzip.
        file_format: One of :data:`FORMATS`; None: its content tells.
        named: The columns that a table should have, by the options that name them.
        counted: Is given the number of bytes of each piece that was read.

    Raises:
        UserError: It cannot be read, or not to its end. What came before has been yielded.
    """
    try:
        pieces = unzip(_counted(file.chunks(), counted))
        head = b""
        damage: DamagedError | None = None
        try:
            while len(head) < _HEAD and (piece := next(pieces, None)) is not None:
                head += piece
        except DamagedError as error:  # behind what was read
            damage = error
        head = head.removeprefix(BOM)
        found = file_format or _format_of(head)
        records: Iterator[Record] = iter(())
        if found == "parquet":
            records = _parquet(file, counted)
        elif head.strip() or damage:
            records = _READERS[found](_chain(head, pieces, damage))
        for record in records:
            if record.where == _COLUMNS:
                _check_columns(record.content, named)
            else:
                yield record
    except (UnreadableError, DamagedError, ReplacedObjectError, OSError) as error:
        raise UnreadableError(_problem_of(error), file.name) from error


def _problem_of(error: Exception) -> str:
    if isinstance(error, UnreadableError):
        return error.problem
    if isinstance(error, DamagedError):
        return f"{error}: import it again when it is whole"
    if isinstance(error, ReplacedObjectError):
        return "it was overwritten meanwhile: run the import again"
    return str(getattr(error, "strerror", None) or error)


def _counted(chunks: Iterable[bytes], counted: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        counted(len(chunk))


def _chain(head: bytes, pieces: Iterator[bytes], damage: DamagedError | None) -> Iterator[bytes]:
    yield head
    if damage is not None:
        raise damage
    yield from pieces


def _format_of(head: bytes) -> str:
    """Tell a file's format by its beginning."""
    if head.startswith(_PARQUET):
        return "parquet"
    if head.startswith(_UTF_16):
        msg = "it is UTF-16: convert it to UTF-8"
        raise UnreadableError(msg)
    start = head.lstrip()
    if _NO_TEXT.search(start, 0, _LOOK) and not start.startswith((b"{", b"[")):
        msg = "it is neither text nor Parquet: unpack it first, unless it is packed by gzip once"
        raise UnreadableError(msg)
    if start.startswith(b"["):
        return "json"
    if start.startswith(b"{"):
        # A line that is an object shows that each one should be. Objects that are laid out over
        # lines, or not separated by any, are read as those of an array are.
        return "ndjson" if any(map(_is_object, start.split(b"\n"))) else "json"
    return "csv"


def _is_object(line: bytes) -> bool:
    return line.startswith(b"{") and _read("", line).problem is None


_COLUMNS: Final = "columns"
"""Where a record is that has the names of a table's columns."""
_KNOWN_COLUMN: Final = re.compile(
    r"body$|payload$|data(__.*)?$|type$|user(__|\.)id|unstruct_event|contexts_com_getvero|root_id$",
    re.IGNORECASE,
)


def _check_columns(columns: list[str], named: Mapping[str, str]) -> None:
    """Refuse a table that holds no webhooks, before each of its rows is a dead letter.

    Raises:
        UnreadableError: It is such a table.
    """
    for option, name in named.items():
        if name.lower() not in map(str.lower, columns):
            msg = f"there is no column with the name given by {option}"
            raise UnreadableError(msg)
    if BODY_FIELD not in named and not any(map(_KNOWN_COLUMN.match, columns)):
        msg = (
            f"no column of a known name holds payloads: name it by {BODY_FIELD}, or set --format "
            "if this is another format"
        )
        raise UnreadableError(msg)


def _read(where: str, raw: bytes, problem: str | None = None) -> Record:
    if problem is None and len(raw) > MAX_LINE:
        problem = f"longer than {MAX_LINE} bytes"
    if problem is None:
        try:
            return Record(where, raw, read_json(raw))
        except ValueError:
            problem = "not JSON"
        except RecursionError:
            problem = "nested too deeply"
    return Record(where, raw, None, problem)


def _ndjson(pieces: Iterable[bytes]) -> Iterator[Record]:
    for number, line in split_lines(pieces):
        if not line.isspace():
            yield _read(f"line {number}", line)


_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', re.DOTALL)
"""What stands before the next bracket, with text in which a bracket is none."""
_TO_END_OF_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_BETWEEN: Final = re.compile(rb"[ \t\r\n,]*+")


def _json(  # noqa: C901, PLR0912, PLR0915  # a scanner's states
    pieces: Iterable[bytes],
) -> Iterator[Record]:
    """Yield the objects of an array, or objects one after the other, however they are laid out.

    Only brackets and text are looked at, so that an object that is broken costs no other. One that
    is too long is skipped without being held.

    Raises:
        UnreadableError: The file ends within an object or array, or has no JSON between them.
    """
    buffer = beginning = b""
    start = position = 0  # where the present object begins, and what was not looked at begins
    number = depth = 0
    in_array = in_text = False
    for piece in pieces:
        buffer = buffer[start:] + piece
        position -= start
        start = 0
        while position < len(buffer):
            if in_text:
                found = _TO_END_OF_TEXT.match(buffer, position)
                position = found.end()  # type: ignore[union-attr]  # it always matches
                if not found[1]:  # type: ignore[index]
                    break
                in_text = False
            elif depth:
                position = _TO_BRACKET.match(buffer, position).end()  # type: ignore[union-attr]
                if position == len(buffer):
                    break
                in_text = buffer[position] == _QUOTE
                if not in_text:
                    depth += 1 if buffer[position] in b"{[" else -1
                position += 1
            else:
                start = position = _BETWEEN.match(buffer, position).end()  # type: ignore[union-attr]
                if position == len(buffer):
                    break
                first = buffer[position : position + 1]
                position += 1
                if (first, in_array) in {(b"[", False), (b"]", True)}:
                    in_array = first == b"["
                    continue
                if first not in {b"{", b"[", b'"'}:
                    msg = f"no JSON object behind item {number}: set --format, if it is not JSON"
                    raise UnreadableError(msg)
                in_text = first == b'"'
                depth += not in_text
            if not depth and not in_text:
                number += 1
                yield _read(f"item {number}", beginning or buffer[start:position])
                beginning, start = b"", position
        if depth or in_text:
            if position - start > MAX_LINE and not beginning:
                beginning = buffer[start : start + MAX_LINE + 1]
            if beginning:
                start = position
        else:
            start = position
    if depth or in_text:
        yield _read(f"item {number + 1}", beginning or buffer[start:], "cut off")
    if depth or in_text or in_array:
        msg = f"it ends within item {number + 1}, or before the end of its array"
        raise UnreadableError(msg)


_QUOTE: Final = ord('"')


def _csv(pieces: Iterable[bytes]) -> Iterator[Record]:
    """Yield the rows of a table in CSV, whose first line has the columns' names."""
    csv.field_size_limit(MAX_LINE)
    lines = _CsvLines(pieces)
    head = lines.head
    escaped = '\\"' in head and '""' not in head
    reader = csv.reader(
        lines,
        delimiter=max(",;\t|", key=head.partition("\n")[0].count),
        escapechar="\\" if escaped else None,
        doublequote=not escaped,
    )
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        msg = "its first line is no line of CSV: set --format, or end its lines with a line feed"
        raise UnreadableError(msg) from error
    yield Record(_COLUMNS, b"", columns)
    while True:
        where = f"line {lines.begin_row()}"
        try:
            row = next(reader, None)
        except csv.Error:
            yield Record(where, lines.row(), None, "a row of CSV that cannot be read")
            continue
        if row is None:
            return
        problem = lines.problem
        if len(row) > len(columns):
            problem = problem or "more values than the first line has columns"
        if problem is not None:
            yield Record(where, lines.row(), None, problem)
        elif any(row):
            values = zip(columns, row, strict=False)
            content = {name: value for name, value in values if value not in _NULLS}
            yield Record(where, b"", content, exact=False)


class _CsvLines:
    """Lines of text with their ends, of which none is longer than may be held.

    Args:
        pieces: The file's content.

    Attributes:
        head: The file's beginning.
        problem: What is the matter with the present row, if anything is.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = next(self._pieces, b"")
        self.head = self._buffer[:_HEAD].decode(errors="replace")
        self.problem: str | None = None
        self._number = 0
        self._row: list[bytes] = []

    def begin_row(self) -> int:
        """Forget the last row's lines; return the number of the next one's first."""
        self._row = []
        self.problem = None
        return self._number + 1

    def row(self) -> bytes:
        """Return the present row's lines, or their beginning."""
        return b"".join(self._row)[:MAX_LINE]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, end, self._buffer = self._buffer.partition(b"\n")
        while not end and (piece := next(self._pieces, None)) is not None:
            if len(line) > MAX_LINE:
                self.problem = f"longer than {MAX_LINE} bytes"
                line = line[:_HEAD]
            more, end, self._buffer = piece.partition(b"\n")
            line += more
        line += end
        if not line:
            raise StopIteration
        self._number += 1
        if sum(map(len, self._row)) <= MAX_LINE:
            self._row.append(line)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.problem = "not UTF-8"
            return line.decode(errors="replace")


def _parquet(file: HistoryFile, counted: Callable[[int], None]) -> Iterator[Record]:
    """Yield the rows of a Parquet file.

    Raises:
        UserError: ``pyarrow`` is not installed, or it is no such file.
    """
    problem = "Parquet needs pyarrow: pip install 'tap-vero-segment[parquet]'"
    with importing(UserError(f"{file.name}: {problem}")):
        import pyarrow as pa  # noqa: PLC0415  # an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    with file.opened() as opened:
        try:
            table = pq.ParquetFile(opened)
            schema = table.schema_arrow
            yield Record(_COLUMNS, b"", schema.names)
            types = [_in_micros(field.type) for field in schema]
            number = 0
            for batch in table.iter_batches(_PARQUET_ROWS):
                columns = [
                    batch.column(index).cast(wanted, safe=False)
                    for index, wanted in enumerate(types)
                ]
                for values in zip(*(column.to_pylist() for column in columns), strict=True):
                    number += 1
                    row = dict(zip(schema.names, values, strict=True))
                    content = {name: _plain(value) for name, value in row.items()}
                    content = {name: value for name, value in content.items() if value is not None}
                    yield Record(f"row {number}", b"", content, exact=False)
        except (pa.ArrowException, ValueError, OverflowError) as error:  # a time beyond 9999
            msg = "it is not Parquet that can be read to its end"
            raise UnreadableError(msg) from error
    counted(file.size)


def _in_micros(kind: Any) -> Any:
    """Return a type of a table without billionths of a second, which Python's times do not know."""
    import pyarrow as pa  # noqa: PLC0415  # an extra

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_time64(kind):
        return pa.time64("us")
    if pa.types.is_duration(kind):
        return pa.duration("us")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_micros(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_in_micros(kind.value_type)))
    return kind


def _plain(value: Any) -> Any:  # noqa: PLR0911  # a line for each type
    """Return a value as JSON could have it."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return value


_READERS: Final[dict[str, Callable[[Iterable[bytes]], Iterator[Record]]]] = {
    "ndjson": _ndjson,
    "json": _json,
    "csv": _csv,
}
