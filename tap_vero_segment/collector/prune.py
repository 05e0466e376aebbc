"""``vero-collector prune``: deleting what an archive has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.readers import open_reader
from tap_vero_segment.stores.turns import in_turn
from tap_vero_segment.stores.writers import open_writer

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Reader


def prune(store: str, before: str, *, force: bool) -> str:
    """Delete events; return what was done, in a line.

    Safe beside a running collector, tap and export. Broken off, the next one goes on.

    Args:
        store: The store's URL.
        before: Only events with an earlier ``loaded_at``, a date or time.
        force: Whether events are deleted that no archive has.

    Raises:
        SettingError: The store cannot be opened, or ``before`` is no time.
        StoreError: The store failed.
        UserError: No archive has all of it, and nothing was deleted.
    """
    end = times.from_text(before)
    with open_reader(store, "store") as reader:
        if not force:
            end = _exported(reader, end)
        writer = open_writer(store, "store")
        try:
            deleted = 0
            count: int | None = None
            while count != 0:
                with in_turn():
                    count = writer.prune(end)
                deleted += count
        finally:
            writer.close()
    return f"{deleted} events deleted"


def _exported(reader: Reader, before: int) -> int:
    """Return the end of what may be deleted: what arrives meanwhile is not exported yet."""
    until = reader.exported_until()
    if reader.lines(-1 if until is None else until, before - 1, 1):
        has = (
            "no archive has any" if until is None else f"archives have it to {times.to_text(until)}"
        )
        date = times.to_text(before)
        msg = (
            f"not all before {date} was exported ({has}), so nothing was deleted: run "
            f"`vero-collector export --to URL --before {date}`, or add --force"
        )
        raise UserError(msg)
    return min(before, (until or 0) + 1)
