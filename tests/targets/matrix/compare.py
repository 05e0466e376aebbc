"""Compares what a target has loaded with what the tap sent, value by value."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.targets.matrix.destinations import JsonText

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Row = dict[str, Any]

_MISSING = object()


class Changes:
    """What differs, in words, and where.

    Attributes:
        count: How many values or rows differ, by how they differ.
        columns: The columns in which they do.
    """

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.columns: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, change: str, column: str = "", count: int = 1) -> None:
        """Count a difference."""
        if count > 0:
            self.count[change] += count
            self.columns[change] |= {column} - {""}

    def __or__(self, other: Changes) -> Changes:
        both = Changes()
        for each in (self, other):
            both.count += each.count
            for change, columns in each.columns.items():
                both.columns[change] |= columns
        return both


def compare(expected: Iterable[Row], rows: Iterable[Row], kinds: Mapping[str, str]) -> Changes:
    """Compare the rows of a table with the records that it should hold."""
    changes = Changes()
    wanted: defaultdict[str, list[Row]] = defaultdict(list)
    for record in expected:
        wanted[record["id"]].append(record)
    found: Counter[str] = Counter()
    for row in rows:
        key = row.get("id")
        if key not in wanted:
            changes.add("rows that were never sent")
            continue
        found[key] += 1
        [record, *_] = wanted[key]  # sent twice, it is the same twice
        for column, kind in kinds.items():
            change = difference(kind, record.get(column), row.get(column, _MISSING))
            if change:
                changes.add(change, column)
    for key, records in wanted.items():
        changes.add("rows missing", count=len(records) - found[key])
        changes.add("rows doubled", count=found[key] - len(records))
    return changes


def difference(kind: str, sent: Any, got: Any) -> str | None:
    """Say how a value differs from the one that was sent; None: it does not."""
    if got is _MISSING:
        return "columns missing" if sent is not None else None
    if isinstance(got, JsonText) and kind != "string" and json.loads(got) is None:
        return None if sent is not None else "NULL becomes JSON null"
    if sent is None or got is None:
        return _null(sent, got)
    if kind == "time":
        return _time(sent, got)
    if kind == "object":
        return _object(sent, got)
    return _text(sent, got)


def _null(sent: Any, got: Any) -> str | None:
    if sent is got:
        return None
    if sent == "":
        return "'' becomes NULL"
    if sent is None:
        return "NULL becomes ''" if got == "" else "NULL becomes a value"
    return "values become NULL"


def _time(sent: str, got: Any) -> str | None:
    try:
        moment = got if isinstance(got, datetime) else datetime.fromisoformat(got)
    except (TypeError, ValueError):
        return "times change"
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    expected = datetime.fromisoformat(sent)
    off = abs(moment - expected)
    for change, changed in (
        (None, not off),
        ("times cut to seconds", moment == expected.replace(microsecond=0)),
        ("times rounded to seconds", off <= timedelta(seconds=0.5) and not moment.microsecond),
        ("times cut to milliseconds", off <= timedelta(milliseconds=1)),
        ("times in the session's time zone", off == timedelta(hours=5, minutes=30)),
    ):
        if changed:
            return change
    return "times change"


def _object(sent: Any, got: Any) -> str | None:
    if isinstance(got, str):
        try:
            got = json.loads(got, parse_float=Decimal, strict=False)
        except ValueError:
            return "objects become text that is not JSON"
    if same(sent, got):
        return None
    if same(_as_texts(sent), _as_texts(got)):
        return "numbers in objects become text"
    return "values in objects change"


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; 1, 1.0 and 10e-1 are, as numbers."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, (int, float, Decimal)) and isinstance(other, (int, float, Decimal)):
        return Decimal(str(one)) == Decimal(str(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, str) and isinstance(other, str) and one == other


def _as_texts(value: Any) -> Any:
    """Return a value with its numbers as text."""
    if isinstance(value, dict):
        return {key: _as_texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_texts(each) for each in value]
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return str(Decimal(str(value)).normalize())
    return value


_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "\\": "\\\\"}


def _text(sent: str, got: Any) -> str | None:
    if not isinstance(got, str):
        return "text becomes a value of another type"
    if sent == got:
        return None
    for change, changed in (
        ("text is cut", got != "" and sent.startswith(got)),
        ("blanks at the ends are cut", sent.strip() == got),
        ("quotes change", _without_quotes(sent) == _without_quotes(got)),
        ("line ends change", _lines(sent) == _lines(got)),
        ("line ends, tabs and control characters become escapes", _escaped(sent) == got),
    ):
        if changed:
            return change
    return "text changes"


def _without_quotes(text: str) -> str:
    return text.replace('"', "").replace("'", "")


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')
