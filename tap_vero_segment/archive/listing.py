"""Which objects of an archive are to be read, and in which order."""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from tap_vero_segment import times
from tap_vero_segment.archive.objects import StoredObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.archive.objects import Objects

IGNORED: Final = frozenset({"dummy-object.txt"})
"""What Segment writes to see whether it may."""

DAY: Final = 86_400 * times.SECOND
"""Microseconds in a day."""

_LIST_CHUNK: Final = 1_000
_DAY_DIGITS: Final = 13


class Listing(NamedTuple):
    """The objects to read.

    Attributes:
        objects: In the order of their last modification.
        left_out: How many folders of days were left out because of the bounds.
        left_out_from: The first day that was left out because of the end, in microseconds since
            1970: an object below it was not listed, and cannot have been written before.
    """

    objects: list[StoredObject]
    left_out: int
    left_out_from: int | None


def list_objects(
    objects: Objects, received_from: int | None, received_before: int | None
) -> Listing:
    """List an archive's objects.

    Without bounds the whole is listed in one sweep, a request for a thousand objects. With bounds
    the folders are descended into, so that a day that is out of bounds costs nothing. Names of
    files are never looked at: old days get new files.

    Args:
        objects: The archive: a bucket, prefix, source or day; any depth.
        received_from: The start of what is wanted, in microseconds since 1970.
        received_before: The end of it.

    Raises:
        ObjectStoreError: It cannot be listed.
    """
    left_out: list[int] = []
    found = list(_walk(objects, received_from, received_before, left_out))
    found.sort(key=lambda stored: (stored.modified_at, stored.path))
    too_late = (day for day in left_out if received_before is not None and day >= received_before)
    return Listing(found, len(left_out), min(too_late, default=None))


def first_objects(
    objects: Objects, received_from: int | None, received_before: int | None, limit: int
) -> list[StoredObject]:
    """List the objects of an archive that come first in its listing, and no more than that takes.

    Args:
        objects: As for :func:`list_objects`, and so are the bounds.
        received_from: The start of what is wanted, in microseconds since 1970.
        received_before: The end of it.
        limit: The most objects that are wanted.

    Raises:
        ObjectStoreError: It cannot be listed.
    """
    # obstore asks for pages until it has a chunk.
    found = _walk(objects, received_from, received_before, [], chunk=limit)
    return list(islice(found, limit))


def _walk(
    objects: Objects,
    received_from: int | None,
    received_before: int | None,
    left_out: list[int],
    chunk: int = _LIST_CHUNK,
) -> Iterator[StoredObject]:
    """Yield objects as they are listed; keep the days that are left out."""

    def wanted(day: int) -> bool:
        too_late = received_before is not None and day >= received_before
        if too_late or (received_from is not None and day + DAY <= received_from):
            left_out.append(day)
            return False
        return True

    try:
        if received_from is None and received_before is None:
            yield from _sweep(objects, None, chunk)
        else:
            yield from _descend(objects, None, wanted, chunk)
    except (BaseError, OSError) as error:
        raise objects.error(error) from error


def _sweep(objects: Objects, prefix: str | None, chunk: int) -> Iterator[StoredObject]:
    for found in obstore.list(objects.store, prefix, chunk_size=chunk):
        yield from _of_interest(objects, found)


def _descend(
    objects: Objects, prefix: str | None, wanted: Any, chunk: int
) -> Iterator[StoredObject]:
    level = obstore.list_with_delimiter(objects.store, prefix)
    yield from _of_interest(objects, level["objects"])
    for folder in level["common_prefixes"]:
        day = day_of(folder.rstrip("/").rpartition("/")[2])
        if day is None:
            yield from _descend(objects, folder, wanted, chunk)
        elif wanted(day):
            yield from _sweep(objects, folder, chunk)


def _of_interest(objects: Objects, found: Any) -> Iterator[StoredObject]:
    folder = objects.store.prefix if isinstance(objects.store, LocalStore) else None
    for meta in found:
        name = meta["path"].rpartition("/")[2]
        if meta["size"] and name not in IGNORED and not name.startswith("."):
            modified_at = (meta["last_modified"] - times.EPOCH) // timedelta(microseconds=1)
            if folder is not None:
                modified_at = max(modified_at, _changed_at(Path(folder, meta["path"])))
            yield StoredObject(meta["path"], modified_at, meta["size"], meta["e_tag"])


def _changed_at(path: Path) -> int:
    """Return when a file came to its folder with its content, in microseconds since 1970.

    ``rsync -a``, ``aws s3 sync``, ``cp -p`` and ``tar`` give a file the time that it had elsewhere,
    which may be long before earlier runs. Nobody can set the time of its last change.
    """
    try:
        return os.stat(path).st_ctime_ns // 1_000  # noqa: PTH116  # twice as fast
    except FileNotFoundError:  # deleted since it was listed, which its reading reports
        return times.EARLIEST


def day_of(folder: str) -> int | None:
    """Return the day that a folder's name means, in microseconds since 1970; None if it is none."""
    if len(folder) != _DAY_DIGITS or not (folder.isascii() and folder.isdigit()):
        return None
    day = int(folder) * 1_000
    return day if day % DAY == 0 else None
