"""What somebody looks for, as a query, a form or a command says it, and what is shown of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment import times, track
from tap_vero_segment.collection import BY_EVENT, BY_STREAM
from tap_vero_segment.errors import SettingError
from tap_vero_segment.record import to_record
from tap_vero_segment.stores.base import Search

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_vero_segment.record import Record
    from tap_vero_segment.track import TrackCall

MAX_VALUE: Final = 1_000
"""Characters of a value that is searched for."""

KEYS: Final = ("recipient", "user_id", "email_id", "campaign", "id")
"""What an event is found by: the fields of a :class:`Search` that hold a value of the event."""

FIELDS: Final = (*KEYS, "collection", "since", "until")
"""What a query can name."""


def read_search(fields: Mapping[str, str], prefix: str = "") -> Search:
    """Return what fields ask for; a field that is not there asks for nothing.

    Args:
        fields: The values by the names of a :class:`Search`.
        prefix: What an error puts before the name of a field: ``--`` for an option.

    Raises:
        SettingError: A field cannot be meant as it is. Its value is not repeated.
    """
    values: dict[str, str | None] = {}
    for name in (*KEYS, "text"):
        value = values[name] = fields.get(name)
        if value is None:
            continue
        if not value.strip():
            problem = "it is empty: give a value, or leave it out"
        elif len(value) > MAX_VALUE:
            problem = f"it is longer than {MAX_VALUE} characters, the most to search for"
        elif not _is_text(value):
            problem = "it contains a character that is in no text: check how it was copied"
        else:
            continue
        raise _wrong(prefix, name, problem)
    collection = fields.get("collection")
    if collection is not None and collection not in BY_STREAM:
        problem = f"it is not a collection: use one of {', '.join(BY_STREAM)}"
        raise _wrong(prefix, "collection", problem)
    since, until = (read_time(fields, name, prefix) for name in ("since", "until"))
    if since is not None and until is not None and until <= since:
        problem = "it is not later than since, so no event can be between them"
        raise _wrong(prefix, "until", problem)
    return Search(**values, collection=collection, since=since, until=until)


def _wrong(prefix: str, name: str, problem: str) -> SettingError:
    return SettingError(prefix + name.replace("_", "-") if prefix else name, problem)


def read_time(fields: Mapping[str, str], name: str, prefix: str = "") -> int | None:
    """Return a field that is a time, in microseconds since 1970; None: it is not there.

    Raises:
        SettingError: It is not a time. It is not repeated.
    """
    text = fields.get(name)
    if text is None:
        return None
    if "T" in text.upper():
        # An unescaped + in a query reads as a space: 2026-11-23T09:24:00+01:00.
        text = text.replace(" ", "+")
    try:
        return times.from_text(text)
    except ValueError as error:
        raise _wrong(prefix, name, f"it {times.NOT_A_TIME}") from error


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # of an argument that is not UTF-8, say
        return False
    return "\0" not in value


class Hit(NamedTuple):
    """An event that was found.

    Attributes:
        line: The track call with ``loadedAt``, as a store returns it.
        call: The same, read.
        record: Its columns, as the tap makes them.
    """

    line: bytes
    call: TrackCall
    record: Record

    @classmethod
    def of(cls, line: bytes) -> Hit:
        """Read a line of a store."""
        call = track.decode(line)
        return cls(line, call, to_record(call, BY_EVENT[call.event]))

    @property
    def recipient(self) -> str:
        """The recipient's address or number, or else the user's id; empty: it has neither."""
        return self._first("context_traits_email", "campaign_sent_to", "user_id", "anonymous_id")

    @property
    def campaign(self) -> str:
        """The campaign's name, or what else names it; empty: nothing does."""
        return self._first("campaign_name", "email_subject", "campaign_id")

    def _first(self, *columns: str) -> str:
        """Return the first value that says anything, in one line."""
        texts = (" ".join((self.record[column] or "").split()) for column in columns)
        return next(filter(None, texts), "")


_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span_in_words(micros: int) -> str:
    """Return how long a time is, in its two greatest units: ``2 h 5 min``; not below a second.

    Args:
        micros: Microseconds; 0 or more.
    """
    seconds = micros // times.SECOND
    for index, (size, unit) in enumerate(_UNITS):
        if seconds >= size:
            words = f"{seconds // size} {unit}"
            smaller, name = _UNITS[min(index + 1, len(_UNITS) - 1)]
            rest = seconds % size // smaller
            return f"{words} {rest} {name}" if rest else words
    return "less than a second"


def lag_in_words(call: TrackCall) -> str:
    """Return how much later an event was received than it happened; empty: it has no own time."""
    lag = times.from_text(call.received_at) - times.from_text(call.timestamp)
    if lag == 0:
        return ""
    return f"{span_in_words(abs(lag))} {'later' if lag > 0 else 'earlier'}"
