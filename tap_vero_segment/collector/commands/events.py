"""``vero-collector events``: finding events in a store."""

from __future__ import annotations

import csv
import logging
import time
from io import StringIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import (
    COLLECTIONS,
    COMMON_COLUMNS,
    EMAIL_COLUMNS,
    PROPERTIES_COLUMN,
)
from tap_vero_segment.collector.searching import Hit
from tap_vero_segment.stores.open import open_reader
from tap_vero_segment.terminal import PROGRESS_SECONDS, printable, spreadsheet_safe, table

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Reader, Search

logger = logging.getLogger("vero-collector")

_PAGE: Final = 1_000
"""Events that are read together."""

_WITH_ID: Final = 120
"""Characters of a line that has room for the event's id as well."""

_OWN_COLUMNS: Final = [column for collection in COLLECTIONS for column in collection.columns]
COLUMNS: Final = [
    column.name for column in (*COMMON_COLUMNS, *EMAIL_COLUMNS, *_OWN_COLUMNS, PROPERTIES_COLUMN)
]
"""The columns of the CSV: those of all collections."""


class Wish(NamedTuple):
    """Which events are printed of those that a search finds.

    Attributes:
        search: What is looked for.
        before: Only events that were loaded earlier, in microseconds since 1970; None: all.
        after: Those that were loaded just later.
        limit: The most to print.
    """

    search: Search
    before: int | None
    after: int | None
    limit: int


class Printed(NamedTuple):
    """What is printed.

    Attributes:
        lines: For standard output.
        closing: How many events these are, and how to get more.
    """

    lines: list[str]
    closing: str


def as_table(store: str, wish: Wish, width: int | None) -> Printed:
    """Find events, and lay them out for people.

    Args:
        store: The store's URL.
        wish: Which events.
        width: Characters of a line; None: as many as it takes.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
    """
    lines, closing = _find(store, wish)
    header = ["happened", "event", "recipient", "campaign"]
    if width is None or width >= _WITH_ID:
        header.append("id")
    rows = [_row(Hit.of(line))[: len(header)] for line in lines]
    return Printed(
        [*table(header, rows, width, ("recipient", "campaign")), ""] if rows else [], closing
    )


def as_json(store: str, wish: Wish) -> Printed:
    """Find events, as the read API returns them: a track call a line; see :func:`as_table`."""
    lines, closing = _find(store, wish)
    return Printed([line.decode() for line in lines], closing)


def as_csv(store: str, wish: Wish) -> Printed:
    """Find events, as rows of a warehouse with the columns of all streams; see :func:`as_table`.

    A value that a spreadsheet would take for a formula has a ``'`` in front.
    """
    lines, closing = _find(store, wish)
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        record = Hit.of(line).record
        writer.writerow([_cell(record.get(name)) for name in COLUMNS])
    return Printed([out.getvalue().removesuffix("\n")], closing)


def _cell(value: Any) -> str | None:
    if isinstance(value, dict):
        value = msgspec.json.encode(value).decode()
    return None if value is None else spreadsheet_safe(value)


def _row(hit: Hit) -> list[str]:
    moment = hit.call.timestamp
    cells = (
        f"{moment[:10]} {moment[11:19]}",
        hit.call.event,
        hit.recipient,
        hit.campaign,
        hit.call.message_id,
    )
    return [printable(" ".join(cell.split())) for cell in cells]


def _find(store: str, wish: Wish) -> tuple[list[bytes], str]:
    """Return the events, and the closing line."""
    with open_reader(store, "store") as reader:
        lines, cursor = _pages(reader, wish)
    count = "1 event" if len(lines) == 1 else f"{len(lines):,} events"
    if not lines:
        count = "No event was found"
    elif len(lines) > 1:
        count += ", the newest to arrive first"
    if cursor is None:
        return lines, f"{count}."
    which = "Older ones: add --before" if wish.after is None else "Newer ones: add --after"
    return lines, f"{count}. {which} {times.to_text(cursor)}"


def _pages(reader: Reader, wish: Wish) -> tuple[list[bytes], int | None]:
    """Return events, the newest first, and the cursor of those behind them; None: there are none.

    Where a search breaks off, as no index leads further, this goes on with it.
    """
    upwards = wish.after is not None
    before, after = wish.before, wish.after
    lines: list[bytes] = []
    shown = time.monotonic()
    while True:
        limit = min(_PAGE, wish.limit - len(lines))
        page = reader.search(wish.search, before=before, after=after, limit=limit)
        lines = [*page.lines, *lines] if upwards else [*lines, *page.lines]
        cursor = page.newer if upwards else page.older
        if cursor is None or len(lines) >= wish.limit:
            return lines, cursor
        before, after = (None, cursor) if upwards else (cursor, None)
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            logger.info(
                "searching: %d events found so far, at %s", len(lines), times.to_text(cursor)
            )
