"""Writing an archive in Segment's layout, from a collector's store."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.archive.listing import DAY
from tap_vero_segment.track import decode, without_loaded_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.archive.objects import Objects
    from tap_vero_segment.stores.base import Reader

SOURCE_ID: Final = "vero-collector"
"""Where Segment's layout has the source's id."""

CHUNK: Final = 20_000
"""Events that are written together; they become one object for each day of receipt."""


class Written(NamedTuple):
    """A range of events that an archive has.

    Attributes:
        events: How many.
        objects: How many objects hold them.
        until: The last one's ``loaded_at``, in microseconds since 1970.
    """

    events: int
    objects: int
    until: int


def write_archive(reader: Reader, objects: Objects, after: int, before: int) -> Iterator[Written]:
    """Write the events of a closed range, chunk by chunk.

    An object is named after the first event in it, so that a chunk which is written again, after
    a crash say, replaces what it has written before.

    Args:
        reader: The store.
        objects: The archive.
        after: Events with a later ``loaded_at`` are written; microseconds since 1970.
        before: Events with an earlier ``loaded_at`` are written.

    Yields:
        What is written by then.

    Raises:
        ObjectStoreError: An object cannot be written.
        StoreError: The store cannot be read.
    """
    while lines := reader.lines(after, before - 1, CHUNK):
        days: dict[int, list[bytes]] = {}
        firsts: dict[int, str] = {}
        for line in lines:
            call, loaded_at = without_loaded_at(line)
            received_at = times.from_text(decode(call).received_at)
            day = received_at - received_at % DAY
            days.setdefault(day, []).append(call)
            firsts.setdefault(day, loaded_at)
        for day, calls in days.items():
            name = f"{times.from_text(firsts[day])}.gz"
            path = f"segment-logs/{SOURCE_ID}/{day // 1000}/{name}"
            # Without a time in gzip's header, the same events are the same bytes.
            objects.write(path, gzip.compress(b"\n".join([*calls, b""]), mtime=0))
        after = times.from_text(loaded_at)
        yield Written(len(lines), len(days), after)
