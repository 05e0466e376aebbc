"""What must hold of every record, and of every record beside the payload that it was made from."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.inputs.body import read_object
from tap_vero_segment.inputs.vero import to_track
from tap_vero_segment.record import to_record
from tap_vero_segment.track import decode, encode, with_loaded_at
from tests.support.contract import COLUMNS, NEVER_NULL, OBJECTS, TIMES, VERO_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIVED = 1_795_425_840_000_000
"""2026-11-23T09:24:00Z, in microseconds since 1970."""
RECEIVED_AT = "2026-11-23T09:24:00.000000Z"
LOADED_AT = "2026-11-23T09:24:00.004217Z"

_NOT_THE_PAYLOADS = {*TIMES, "id", "event", "event_text", "anonymous_id", "context_channel"}
"""Columns that the payload's fields do not move to: the last two repeat the email address and the
campaign's channel."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def record_of(body: bytes, received_at: int = RECEIVED) -> dict[str, Any]:
    """Take a webhook's body all the way that it goes, except over the disk."""
    line = with_loaded_at(encode(to_track(read_object(body), received_at)), LOADED_AT)
    call = decode(line)
    return to_record(call, BY_EVENT[call.event])


def assert_shape(record: dict[str, Any]) -> None:
    """A record has its stream's columns, each of its type."""
    assert record.keys() == COLUMNS[record["event"]]
    for name, value in record.items():
        if value is None:
            assert name not in NEVER_NULL, name
        elif name in OBJECTS:
            assert isinstance(value, dict), name
            assert value, f"{name} is an empty object, not null"
        else:
            assert type(value) is str, name
            value.encode()  # no half of a surrogate pair
            assert "\0" not in value, name
            if name in TIMES:
                assert len(value) == 27, name
                assert _TIME.fullmatch(value), name


def assert_nothing_lost(payload: dict[str, Any], record: dict[str, Any]) -> None:
    """Each text, number and boolean of a payload is in its record, as often as in the payload.

    It stays as it is in ``properties`` or ``context``, or it is a column of text, or the event's
    time, or its type.
    """
    vero_type = payload["type"]
    time_key = f"{vero_type}_at"
    assert (record["event"], record["event_text"]) == VERO_TYPES[vero_type]
    rest = {key: value for key, value in payload.items() if key not in {"type", time_key}}
    wanted = Counter(map(_typed, _leaves(rest)))
    kept = Counter(map(_typed, _leaves([record["properties"], record["context"]])))
    wanted += _time_if_kept_as_it_was(payload.get(time_key), record)
    columns = [
        value
        for name, value in record.items()
        if isinstance(value, str) and name not in _NOT_THE_PAYLOADS
    ]
    # A float has more than one spelling, so it takes what the others have left.
    moved = sorted((wanted - kept).elements(), key=lambda leaf: leaf[0] == "float")
    for kind, text in moved:
        column = next((value for value in columns if _says(value, kind, text)), None)
        assert column is not None, f"{kind} {text!r} of the payload is lost"
        columns.remove(column)
    assert not columns, f"{columns} come from nowhere"
    assert not kept - wanted, f"{kept - wanted} come from nowhere"


def _time_if_kept_as_it_was(value: Any, record: dict[str, Any]) -> Counter[tuple[str, str]]:
    """What of an event's time has to be found elsewhere than in ``timestamp``."""
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            said = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(value))
        except (ValueError, OverflowError):
            pass
        else:
            if record["timestamp"] == f"{said:%Y-%m-%dT%H:%M:%S}.000000Z".rjust(27, "0"):
                return Counter()
    return Counter(map(_typed, _leaves(value)))


def _says(column: str, kind: str, text: str) -> bool:
    """Whether a column of text says what a leaf said; 550, 550.0 and "550" are alike in text."""
    if kind == "float":
        try:
            return float(column) == float(text)
        except ValueError:
            return False
    return kind in {"str", "int"} and column == text


def _typed(leaf: Any) -> tuple[str, str]:
    """A leaf with its type, as 1, 1.0 and True are equal in Python."""
    if isinstance(leaf, str):
        return "str", re.sub("[\0\ud800-\udfff]", "\ufffd", leaf)
    return type(leaf).__name__, repr(leaf)


def _leaves(value: Any) -> Iterator[str | float | bool]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _leaves(child)
    elif value is not None:
        yield value
