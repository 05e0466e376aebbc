"""Erasing people from an archive: objects that hold their events are written anew."""

from __future__ import annotations

import gzip
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from obstore.store import LocalStore

from tap_vero_segment import times
from tap_vero_segment.archive.lines import unzip
from tap_vero_segment.archive.listing import list_objects
from tap_vero_segment.archive.objects import ReplacedError
from tap_vero_segment.inputs.body import UnmappableError
from tap_vero_segment.inputs.segment import read_call
from tap_vero_segment.recipients import identities_in, identities_of

if TYPE_CHECKING:
    from tap_vero_segment.archive.objects import Objects, StoredObject
    from tap_vero_segment.stores.erasures import ErasedPeople

_TRIES: Final = 5
_STALE_SECONDS: Final = 3_600
"""How old the temporary file of an export must be to be one that broke off."""


class ArchiveFigures(NamedTuple):
    """What was done to an archive, or would be.

    Attributes:
        events: Lines that were deleted.
        rewritten: Objects that hold others.
        deleted: Objects that held nothing else.
    """

    events: int = 0
    rewritten: int = 0
    deleted: int = 0

    def __add__(self, other: ArchiveFigures) -> ArchiveFigures:  # type: ignore[override]
        """Return the sums."""
        return ArchiveFigures(*(one + two for one, two in zip(self, other, strict=True)))


def erase_from(objects: Objects, people: ErasedPeople, *, dry_run: bool = False) -> ArchiveFigures:
    """Delete all lines of people from an archive, of whatever kind of call they are.

    An object keeps its name, and is replaced as a whole. One in which nothing is found is not
    touched. Broken off, the next call goes on.

    Args:
        objects: The archive.
        people: Who is erased; what was received later stays.
        dry_run: Only look.

    Raises:
        ObjectStoreError: The archive cannot be read or written.
        DamagedError: An object is damaged, so that nobody knows what it holds.
    """
    figures = ArchiveFigures()
    for stored in list_objects(objects, None, None).objects:
        figures += _erase_from_object(objects, stored, people, dry_run=dry_run)
    if isinstance(objects.store, LocalStore) and not dry_run:
        for left in Path(objects.store.prefix or "").rglob(".*.part"):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink(missing_ok=True)
    return figures


def _erase_from_object(
    objects: Objects, stored: StoredObject, people: ErasedPeople, *, dry_run: bool
) -> ArchiveFigures:
    for _ in range(_TRIES):
        try:
            content = b"".join(unzip(objects.read(stored)))
            kept, found = _without(content, people)
            if not found:
                return ArchiveFigures()
            if not dry_run:
                if kept:
                    objects.replace(stored, _zipped(kept))
                else:
                    objects.delete(stored)
        except ReplacedError:
            stored = objects.find(stored.path)
            continue
        return ArchiveFigures(found, 1 if kept else 0, 0 if kept else 1)
    raise objects.problem(stored.path, "it is replaced again and again: run this again later")


def _without(content: bytes, people: ErasedPeople) -> tuple[bytes, int]:
    """Return a content without the lines of people, and how many these are."""
    lines = content.splitlines(keepends=True)
    kept = [line for line in lines if not _is_of(line, people)]
    return b"".join(kept), len(lines) - len(kept)


def _is_of(line: bytes, people: ErasedPeople) -> bool:
    try:
        call = read_call(line)
    except UnmappableError:
        call = None
    if call is None:  # another kind of call, or none
        return people.find(identities_in(line), times.EARLIEST) is not None
    return people.find(identities_of(call), times.from_text(call.received_at)) is not None


def _zipped(content: bytes) -> bytes:
    zipped = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=zipped, mtime=0) as file:
        file.write(content)
    return zipped.getvalue()
