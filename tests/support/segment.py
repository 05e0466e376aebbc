"""Segment's calls as Hypothesis makes them up, and what must hold of the records made of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.record import to_record
from tests.support.archive import FIRST_DAY, STREAM_OF_EVENT, track
from tests.support.fuzz import AWKWARD_TEXTS, mutate, normal, texts, values
from tests.support.records import LOADED_AT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.track import TrackCall

DROPPED = {
    "writeKey",
    "_metadata",
    "__segment_internal",
    "integrations",
    "projectId",
    "channel",
    "version",
    "type",
}
"""What records do not keep, as the public interface has it."""

_TIMES = {
    "timestamp": "timestamp",
    "originalTimestamp": "original_timestamp",
    "sentAt": "sent_at",
    "receivedAt": "received_at",
}
_KEYS = (*track(1, "Email Sent", FIRST_DAY), "ip", "traits", "userAgent", "replayed", "loadedAt")

times = st.one_of(
    st.sampled_from(["2026-11-23T09:24:00.5Z", "2026-11-23", "2026-11-23T09:24:00+01:00", "now"]),
    st.sampled_from(AWKWARD_TEXTS),
    values,
)


@st.composite
def usual(draw: st.DrawFn) -> dict[str, Any]:
    """Calls of ours, each field of the type that it should have."""
    call = track(
        draw(st.integers(1, 999)), draw(st.sampled_from(sorted(STREAM_OF_EVENT))), FIRST_DAY
    )
    call["properties"] |= draw(st.dictionaries(texts, values, max_size=3))
    call["context"] |= draw(st.dictionaries(texts, values, max_size=3))
    for key in draw(st.sets(st.sampled_from(sorted(call.keys() - {"type", "event"})))):
        if draw(st.booleans()):
            del call[key]
        elif key in _TIMES:
            call[key] = draw(times)
        elif key.endswith("Id"):
            call[key] = draw(texts)
    return normal(call)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """Calls with fields taken away, replaced and added, at any depth."""
    call = draw(usual())
    event = call["event"]
    for _ in range(draw(st.integers(1, 6))):
        mutate(draw, call)
    call |= draw(st.dictionaries(st.sampled_from(_KEYS), times, max_size=2))
    call["type"] = draw(st.sampled_from(["track", "track", "track", "identify", "page", 1, None]))
    call["event"] = draw(st.one_of(st.just(event), st.just(event), texts, values))
    return normal(call)


calls = st.one_of(usual(), mutated())


def record_of(call: TrackCall) -> dict[str, Any]:
    """Return the record of a call that an archive's object has given."""
    call.loaded_at = LOADED_AT
    return to_record(call, BY_EVENT[call.event])


def assert_no_field_lost(call: dict[str, Any], record: dict[str, Any]) -> None:
    """Each text, number and boolean of a call is in its record as often as in the call.

    It stays as it is in ``properties`` or ``context``, or it is a column.
    """
    kept = {key: value for key, value in call.items() if key not in {*DROPPED, "event"}}
    for field, column in _TIMES.items():
        if _is_time(kept.get(field), record[column]):
            del kept[field]
    for identity in ("userId", "anonymousId"):
        if kept.get(identity) == "":
            del kept[identity]
    wanted = Counter(map(_typed, _leaves(kept)))
    there = Counter(map(_typed, _leaves([record["properties"], record["context"]])))
    assert not there - wanted, f"{there - wanted} come from nowhere"
    made = {*_TIMES.values(), *_MADE}
    context = call.get("context")
    said = _typed(context.get("channel") if isinstance(context, dict) else None)
    if record["campaign_channel"] is not None and said != ("str", record["campaign_channel"]):
        made.add("context_channel")  # which repeats that one
    columns = Counter(
        value for name, value in record.items() if isinstance(value, str) and name not in made
    )
    moved = Counter(_as_column(leaf) for leaf in (wanted - there).elements())
    assert moved == columns


_MADE = {"loaded_at", "event", "event_text"}


def _is_time(value: Any, column: str | None) -> bool:
    """Whether a column says the time that a field said."""
    if column is None or not isinstance(value, str):
        return False
    try:
        said = datetime.fromisoformat(value)
    except ValueError:
        return False
    said = said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)
    return said.isoformat(timespec="microseconds").replace("+00:00", "Z") == column


def _as_column(leaf: tuple[str, str]) -> str:
    """A text or number as a column of text has it: 550.0 and 550 are the same code."""
    kind, text = leaf
    if kind == "float" and float(text).is_integer() and abs(float(text)) < 2**53:
        return str(int(float(text)))
    assert kind in {"str", "int", "float"}, leaf
    return text


def _typed(leaf: Any) -> tuple[str, str]:
    """A leaf with its type, as 1, 1.0 and True are equal in Python."""
    if isinstance(leaf, str):
        return "str", re.sub("[\0\ud800-\udfff]", "\ufffd", leaf)
    return type(leaf).__name__, repr(leaf)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _leaves(child)
    elif value is not None:
        yield value


def line_of(call: dict[str, Any]) -> bytes:
    """Write a call as most writers of JSON do: whatever is not ASCII is escaped."""
    return json.dumps(call).encode()
