"""``vero-collector prune``: deleting what an archive has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import Exported, throttled
from tap_vero_segment.stores.exports import missing
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.terminal import progress

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Reader


def prune(store: str, before: str, *, force: bool) -> str:
    """Delete events; return what was done, in a line.

    Safe beside a running collector, tap and export. Broken off, the next one goes on.

    Args:
        store: The store's URL.
        before: Only events with an earlier ``received_at``, a date or time.
        force: Whether events are deleted that no archive, or a destination of ``forward`` has not.

    Raises:
        SettingError: The store cannot be opened, or ``before`` is no time.
        StoreError: The store failed.
        UserError: No archive has all of it, or a destination has not; nothing was deleted.
    """
    end = times.from_text(before)
    with open_reader(store, "store") as reader:
        if force:
            parts = [Exported(times.LATEST, end)]
        else:
            parts = _exported(reader, end)
            _check_forwarded(reader, end)
        writer = open_writer(store, "store")
        try:
            deleted = 0
            with progress("deleting", 0) as advance:
                for part in parts:
                    count: int | None = None
                    while count != 0:
                        with throttled():
                            count = writer.prune(part.before, part.until)
                        deleted += count
                        advance(count)
        finally:
            writer.close()
    return f"{deleted} events deleted"


def _check_forwarded(reader: Reader, before: int) -> None:
    """See that each destination of ``forward`` has had what is to be deleted.

    Raises:
        UserError: One has not.
    """
    for forward in reader.forwards():
        if reader.span(times.EARLIEST, before, forward.until, times.LATEST) is not None:
            msg = (
                f"{forward.destination} ({forward.number}) has not had all that was received "
                f"before {times.to_text(before)}, so nothing was deleted: wait until it has, run "
                f"`vero-collector forward --forget {forward.number}`, or add --force"
            )
            raise UserError(msg)


def _exported(reader: Reader, before: int) -> list[Exported]:
    """Return what may be deleted: an archive has it, whatever arrives meanwhile.

    Raises:
        UserError: No archive has all of it.
    """
    wanted = Exported(reader.high_water() or 0, before)
    firsts = []
    for written in [[], *reader.exports().values()]:
        spans = [
            reader.span(part.since, part.before, part.after, part.until)
            for part in missing(written, wanted)
        ]
        lacks = [span.first_received_at for span in spans if span is not None]
        if not lacks:
            # Those with the earlier time first, as a page is found by it.
            parts = [has._replace(before=min(has.before, before)) for has in written]
            return sorted(parts, key=lambda part: part.before)
        firsts.append(min(lacks))
    first = max(firsts)
    has = reader.span(times.EARLIEST, first, -1, wanted.until)
    what = (
        "no archive has any"
        if has is None
        else f"archives have it to {times.to_text(has.last_received_at)}"
    )
    date = times.to_text(before)
    msg = (
        f"not all that was received before {date} was exported ({what}), so nothing was deleted: "
        f"run `vero-collector export --to URL --before {date}`, or add --force"
    )
    raise UserError(msg)
