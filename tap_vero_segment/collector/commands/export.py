"""``vero-collector export``: what the store holds, as an archive in Segment's layout."""

from __future__ import annotations

from contextlib import closing

from tap_vero_segment import times
from tap_vero_segment.archive.objects import Objects
from tap_vero_segment.archive.writing import write_archive
from tap_vero_segment.errors import SettingError
from tap_vero_segment.stores.base import Exported
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.terminal import progress


def export(store: str, to: str, before: str | None) -> str:
    """Write what an archive does not have yet; return what was done, in a line.

    Safe beside a running collector and other exports: ``loaded_at`` rises, so what is not later
    than the newest event is closed. What an export has begun that broke off is finished first.

    Args:
        store: The store's URL.
        to: The archive's URL.
        before: Only events with an earlier ``received_at``, a date or time; None: all.

    Raises:
        SettingError: The store or the archive cannot be opened, or ``before`` is no time.
        StoreError: The store cannot be read or written.
        ObjectStoreError: The archive cannot be written.
    """
    end = times.LATEST + 1 if before is None else times.from_text(before)
    objects = Objects(to, {}, "--to", create=True)
    events = written = 0
    with open_reader(store, "store") as reader:
        writer = open_writer(store, "store")
        try:
            wanted = Exported(reader.high_water() or 0, end)
            # How many are lacking is known beforehand only where all of them are.
            all_of_it = before is None and objects.url not in reader.exports()
            total = sum(each.events for each in reader.summary().totals) if all_of_it else 0
            with progress("exporting", total) as advance:
                for done in write_archive(reader, writer, objects, wanted):
                    events += done.events
                    written += done.objects
                    advance(done.events)
        finally:
            writer.close()
    return f"{events} events in {written} objects written to {objects.url}"


def forget(store: str, archive: str) -> str:
    """Forget what an archive has, as it is gone; return what was done, in a line.

    Args:
        store: The store's URL.
        archive: The archive's URL, as it was exported to.

    Raises:
        SettingError: The store cannot be opened, or nothing was exported there.
        StoreError: It failed.
    """
    open_reader(store, "store").close()  # which makes no store
    url = archive.rstrip("/")
    with closing(open_writer(store, "store")) as writer:
        if not writer.forget_export(url):
            problem = "this store was not exported there: give the URL that --to was given"
            raise SettingError("--forget", problem)
    return f"{url} was forgotten; no file there was deleted"
