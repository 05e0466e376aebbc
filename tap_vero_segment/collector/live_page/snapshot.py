"""What the live page shows of a store, read in one go."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT, COLLECTIONS
from tap_vero_segment.collector.error_reasons import STATUSES
from tap_vero_segment.collector.live_page import sparkline
from tap_vero_segment.stores.base import ARRIVALS_SLOT

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from tap_vero_segment.stores.base import Arrivals, LetterHead, Reader, Refused, Summary, Total


SHOWN: Final = 120
"""Characters of a value; what is longer is cut, and is whole in the event itself."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event in the list.

    Attributes:
        at: Its ``loadedAt``, which names it.
        event: The event's name.
        collection: The slug of its collection.
        who: The recipient.
        what: The campaign, or what else it is about.
    """

    at: str
    event: str
    collection: str
    who: str
    what: str


def entry_of(line: bytes) -> Entry:
    """Return what the page shows of an event.

    Args:
        line: The track call with ``loadedAt``, as a store returns it.
    """
    call = msgspec.json.decode(line)
    properties = _object(call.get("properties"))
    traits = _object(_object(call.get("context")).get("traits"))
    event = call["event"]
    return Entry(
        call["loadedAt"],
        event,
        BY_EVENT[event].stream,
        _first(traits.get("email"), call.get("userId"), call.get("anonymousId")),
        _first(properties.get("campaign_name"), properties.get("email_subject")),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(*values: Any) -> str:
    """Return the first of some values that says anything, as short text."""
    for value in values:
        text = value if isinstance(value, str) else ""
        text = " ".join(text.split())
        if text:
            return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
    return ""


EVERYTHING: Final = ""
"""Stands for all collections, where events of one can be asked for."""

LETTERS: Final = 3
"""Dead letters that are listed; the others are on a page of their own."""

QUIET_REASONS: Final = frozenset(
    {"answer_not_read", "forbidden", "method", "no_session", "not_found", "not_http", "timeout"}
)
"""Reasons of refusals that any public server meets: they are counted, and need nobody's care."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """What a store holds of a collection.

    Attributes:
        collection: Its slug.
        events: How many events.
        hour: How many came in the last hour.
        day: How many came in the last 24 hours.
        last: When the last one came, in milliseconds since 1970; None: never.
        bars: The last 24 hours as an SVG path.
        words: The last 24 hours in words.
    """

    collection: str
    events: int
    hour: int
    day: int
    last: int | None
    bars: str
    words: str


class LetterEntry(msgspec.Struct, frozen=True, gc=False):
    """A dead letter in the list, without the body.

    Attributes:
        number: What the store calls it.
        at: When it came.
        input: Where it came in.
        bytes: How long it is.
        reason: Why it is no event.
    """

    number: int
    at: str
    input: str
    bytes: int
    reason: str


class RefusedEntry(msgspec.Struct, frozen=True, gc=False):
    """Requests that were refused for a reason.

    Attributes:
        reason: The reason, in words.
        status: The statuses that it comes with; empty: with none.
        requests: How many there were.
        at: When the last one was, in milliseconds since 1970.
        alarms: Whether somebody should look into it.
    """

    reason: str
    status: str
    requests: int
    at: int
    alarms: bool


class Cursor(NamedTuple):
    """How far somebody has seen the events of a collection, or of all.

    Attributes:
        at: The ``loadedAt`` of the newest one; empty: there was none.
        events: How many there were.
    """

    at: str
    events: int


class Snapshot(NamedTuple):
    """A store at a moment.

    Attributes:
        now: When it was read, in microseconds since 1970.
        summary: What the store itself tells.
        rows: A row for each collection, in the order of their table.
        newest: The newest events, the newest first, by collection; of those that were asked for.
        letters: The newest dead letters, the newest first.
        refused: The requests that were refused, by reason, the last one first.
        writable: Whether the store accepts writes.
    """

    now: int
    summary: Summary
    rows: list[Row]
    newest: Mapping[str, list[Entry]]
    letters: list[LetterEntry]
    refused: list[RefusedEntry]
    writable: bool

    @property
    def last(self) -> int | None:
        """When the last event came, in milliseconds since 1970."""
        return max((row.last for row in self.rows if row.last is not None), default=None)

    def events(self, collection: str = EVERYTHING) -> int:
        """Return how many events there are."""
        return sum(row.events for row in self.rows if collection in {EVERYTHING, row.collection})

    def cursor(self, collection: str) -> Cursor:
        """Return the cursor of who has seen all that this tells of a collection."""
        newest = self.newest[collection]
        return Cursor(newest[0].at if newest else "", self.events(collection))


def read(
    reader: Reader,
    now: int,
    shown: Collection[str],
    limit: int,
    before: Snapshot | None = None,
    *,
    writable: bool = True,
) -> Snapshot:
    """Read a store; where nothing has changed since an earlier snapshot, return that one.

    Args:
        reader: The store's reading half.
        now: Microseconds since 1970.
        shown: The collections whose events are shown; ``EVERYTHING``: those of all.
        limit: How many events of each.
        before: What was read earlier.
        writable: Whether the store accepts writes.

    Raises:
        StoreError: It cannot be read.
    """
    summary = reader.summary()
    refused = [_refused(each) for each in reader.refused()]
    if before is None:
        newest = {collection: _newest(reader, collection, limit) for collection in shown}
        rows = _rows(reader, summary, now)
        return Snapshot(now, summary, rows, newest, _letters(reader), refused, writable)
    newest = {
        collection: before.newest[collection]
        if collection in before.newest
        and _totals(summary, collection) == _totals(before.summary, collection)
        else _newest(reader, collection, limit)
        for collection in shown
    }
    same_slot = now // ARRIVALS_SLOT == before.now // ARRIVALS_SLOT
    same_totals = summary.totals == before.summary.totals
    rows = before.rows if same_slot and same_totals else _rows(reader, summary, now)
    same_letters = summary.dead_letters == before.summary.dead_letters
    letters = before.letters if same_letters else _letters(reader)
    latest = Snapshot(now, summary, rows, newest, letters, refused, writable)
    return before if same_slot and latest._replace(now=before.now) == before else latest


def _refused(refused: Refused) -> RefusedEntry:
    return RefusedEntry(
        refused.reason.replace("_", " "),
        STATUSES.get(refused.reason, ""),
        refused.requests,
        refused.last_at // 1_000,
        refused.reason not in QUIET_REASONS,
    )


def _newest(reader: Reader, collection: str, limit: int) -> list[Entry]:
    return [entry_of(line) for line in reader.newest(limit, collection or None)]


def _totals(summary: Summary, collection: str) -> list[Total]:
    return [total for total in summary.totals if collection in {EVERYTHING, total.collection}]


def _rows(reader: Reader, summary: Summary, now: int) -> list[Row]:
    slots: defaultdict[str, list[Arrivals]] = defaultdict(list)
    for slot in reader.arrivals(sparkline.begins(now)):
        slots[slot.collection].append(slot)
    totals = {total.collection: total for total in summary.totals}
    rows = []
    for collection in COLLECTIONS:
        total = totals.get(collection.stream)
        day = sparkline.sparkline(slots[collection.stream], now)
        rows.append(
            Row(
                collection.stream,
                total.events if total else 0,
                day.hour,
                day.events,
                total.last_loaded_at // 1_000 if total else None,
                day.bars,
                day.words,
            )
        )
    return rows


def entry_of_letter(head: LetterHead) -> LetterEntry:
    """Return what is listed of a dead letter."""
    return LetterEntry(
        head.number, times.to_text(head.received_at), head.input, head.bytes, head.reason
    )


def _letters(reader: Reader) -> list[LetterEntry]:
    return [entry_of_letter(head) for head in reader.letter_heads(LETTERS)]
