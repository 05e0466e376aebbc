"""The index that leads to events, and how it is built.

An index of the usual kind would be dear where events are written: the keys are random, so that each
event would change a page of its own for each of them. Here a *block* has the keys of some thousands
of events that follow each other, and is made once, apart from what stores events: it is written and
never changed, unless an event of it is deleted. A block is cut into *parts* by the hash of a key,
of which a search reads one for each block. Events that no block has yet are looked at one by one.

The index holds no address and no id, only 31 bits of their hashes: whatever it leads to is compared
with what is looked for.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from zlib import crc32

from tap_vero_segment import times
from tap_vero_segment.stores.search.keys import PARTS, keys_of
from tap_vero_segment.track import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tap_vero_segment.stores.search.keys import Key

BLOCK: Final = 4_096
"""Events in a block: so many, at most, are looked at one by one as no block has them yet."""

MAX_KEYS: Final = 32 * BLOCK
"""Keys in a block, or those of a single event: an event can hold thousands of addresses."""

SPAN: Final = 1 << 40
"""Microseconds between the events of a block, which an entry has room for: twelve days."""

Row = tuple[int, bytes]
"""An event's ``loaded_at``, and its track call without it."""


class Block(NamedTuple):
    """A block: the keys of some events; times in microseconds since 1970.

    Attributes:
        number: What the store calls it. Its parts have the numbers from 256 times that on.
        after: It has the keys of all events with ``after < loaded_at``
        until: ``<= until``.
        first: The ``loaded_at`` that its entries count from.
        oldest: The earliest ``timestamp`` of its events.
        newest: The latest one.
        checksum: Tells whether the others are as they were written.
    """

    number: int
    after: int
    until: int
    first: int
    oldest: int
    newest: int
    checksum: int

    def checked(self) -> Block:
        """Return the block with the checksum that fits."""
        return self._replace(checksum=crc32(_pack(*self[:-1])))

    @property
    def whole(self) -> bool:
        """Whether it is as it was written."""
        return self.checksum == crc32(_pack(*self[:-1]))


_pack: Final = Struct("<6q").pack


class Part(NamedTuple):
    """The entries of a part: 8 bytes each, sorted; 24 bits of a key, 40 of ``loaded_at``."""

    entries: bytes
    checksum: int


class Index(Protocol):
    """The index of a store, as far as a search needs it."""

    def blocks(self) -> list[Block]:
        """Return all blocks."""

    def parts(self, numbers: Sequence[int]) -> Mapping[int, Part]:
        """Return parts by their numbers, without those that are missing."""

    def with_ids(self, ids: Sequence[str]) -> list[int]:
        """Return the ``loaded_at`` of the events that have one of some ids."""

    def at(self, moments: Sequence[int], *, newest_first: bool) -> list[Row]:
        """Return the events of some ``loaded_at``: :data:`PAGE_BYTES` at most, and one at least."""

    def between(self, after: int, until: int, limit: int, *, newest_first: bool) -> list[Row]:
        """Return events with ``after < loaded_at <= until``, likewise."""


class WritableIndex(Index, Protocol):
    """The same, as far as it is written. Each call is a transaction of its own."""

    def changes(self) -> int:
        """Return how often blocks were changed, or events deleted."""

    def add(self, block: Block, entries: Sequence[bytes], changes: int) -> bool:
        """Add a block; return whether that was done.

        Args:
            block: The block, which has no number yet.
            entries: Those of each part, as :func:`pack` returns them.
            changes: Only if there were no changes since.
        """

    def extend(self, block: Block, changes: int) -> bool:
        """Let a block begin earlier, likewise."""

    def forget(self, numbers: Sequence[int]) -> None:
        """Delete blocks."""


# Blocks and parts


def whole(blocks: Iterable[Block]) -> list[Block]:
    """Return the blocks that are as they were written, in order; the others count for nothing."""
    return sorted((block for block in blocks if block.whole), key=lambda block: block.until)


def pack(entries: Iterable[int]) -> bytes:
    """Return the entries of a part as they are stored."""
    written = array("Q", sorted(entries))
    if sys.byteorder == "big":
        written.byteswap()
    return written.tobytes()


def part_of(number: int, entries: bytes) -> Part:
    """Return a part of some entries."""
    return Part(entries, crc32(entries, number & 0xFFFFFFFF))


def read_part(number: int, parts: Mapping[int, Part]) -> Sequence[int] | None:
    """Return the entries of a part; None: it is missing, or is not as it was written."""
    part = parts.get(number)
    if part is None or part.checksum != crc32(part.entries, number & 0xFFFFFFFF):
        return None
    if sys.byteorder == "little":
        return memoryview(part.entries).cast("Q")
    read = array("Q", part.entries)
    read.byteswap()
    return read


def moments_of(entries: Sequence[int], begins: int, block: Block) -> list[int]:
    """Return the ``loaded_at`` of the events that have a key, as the entries of its part say."""
    start = bisect_left(entries, begins * SPAN)
    if start == len(entries) or entries[start] >= (begins + 1) * SPAN:  # as in most blocks
        return []
    end = bisect_left(entries, (begins + 1) * SPAN, start)
    return [block.first + (entry & SPAN - 1) for entry in entries[start:end]]


def without(
    index: Index, events: Iterable[tuple[int, set[Key]]]
) -> tuple[dict[int, Part], set[int]]:
    """Take events out of the parts of their blocks, as they are deleted for good.

    Args:
        index: The index.
        events: Their ``loaded_at``, and all that they are found by.

    Returns:
        What the parts become, by their numbers, and the numbers of blocks in which that cannot be
        done, as a part is damaged: they have to be deleted.
    """
    every = index.blocks()
    blocks = whole(every)
    ends = [block.until for block in blocks]
    gone: dict[int, set[int]] = {}
    broken = {block.number for block in every} - {block.number for block in blocks}
    for moment, keys in events:
        place = bisect_left(ends, moment)
        if place == len(blocks) or moment <= blocks[place].after:
            continue
        block = blocks[place]
        for part, begins in keys:
            entry = begins * SPAN + moment - block.first
            gone.setdefault(block.number * PARTS + part, set()).add(entry)
    parts = index.parts(list(gone))
    changed: dict[int, Part] = {}
    for number, entries in gone.items():
        found = read_part(number, parts)
        if found is None:
            broken.add(number // PARTS)
        else:
            changed[number] = part_of(number, pack(set(found) - entries))
    return changed, broken


# Building


def build(index: WritableIndex, rest: Callable[[], None]) -> bool:
    """Add a block to the index, unless there are too few events for one.

    Args:
        index: The index.
        rest: Called between pieces of work of some milliseconds, to leave the machine to others.

    Returns:
        Whether something was done, so that there may be more to do.
    """
    changes = index.changes()
    after = 0
    following = None
    for block in whole(index.blocks()):
        if block.after > after:
            following = block
            break
        after = block.until
    end = times.LATEST if following is None else following.after
    making = _Making(after)
    while rows := index.between(making.until, end, _READ_AT_ONCE, newest_first=False):
        rest()
        for moment, call in rows:
            if not making.takes(moment):
                return making.store(index, changes)
            making.add(moment, call)
    if following is None:
        return False
    if not making.events:  # they were deleted
        return index.extend(following._replace(after=after).checked(), changes)
    making.until = end
    return making.store(index, changes)


_READ_AT_ONCE: Final = 128


class _Making:
    """A block that is being made.

    Args:
        after: It has the keys of all events from here on, up to the last one that was added.

    Attributes:
        until: That one's ``loaded_at``; ``after``, where there is none.
        events: How many it has.
    """

    def __init__(self, after: int) -> None:
        self.until = self._after = self._first = after
        self.events = 0
        self._keys = 0
        self._oldest, self._newest = "9", ""
        self._parts: list[list[int]] = [[] for _ in range(PARTS)]

    def takes(self, moment: int) -> bool:
        """Return whether there is room for an event of a ``loaded_at``."""
        return not self.events or (
            self.events < BLOCK and self._keys < MAX_KEYS and moment - self._first < SPAN
        )

    def add(self, moment: int, line: bytes) -> None:
        """Add an event."""
        call = decode(line)
        if not self.events:
            self._first = moment
        offset = moment - self._first
        keys = keys_of(call)
        for part, begins in keys:
            self._parts[part].append(begins * SPAN + offset)
        self._keys += len(keys)
        self._oldest = min(self._oldest, call.timestamp)
        self._newest = max(self._newest, call.timestamp)
        self.until = moment
        self.events += 1

    def store(self, index: WritableIndex, changes: int) -> bool:
        """Add the block to the index, unless that has changed since; return whether it was done."""
        moments = (times.from_text(self._oldest), times.from_text(self._newest))
        block = Block(0, self._after, self.until, self._first, *moments, 0)
        return index.add(block, [pack(entries) for entries in self._parts], changes)


def repair(index: WritableIndex, rest: Callable[[], None]) -> int:
    """Delete the blocks that are not as they were written, so that they are built again.

    Returns:
        How many there were.
    """
    broken = []
    for block in index.blocks():
        rest()
        numbers = range(block.number * PARTS, (block.number + 1) * PARTS)
        parts = index.parts(numbers)
        if not block.whole or any(read_part(each, parts) is None for each in numbers):
            broken.append(block.number)
    if broken:
        index.forget(broken)
    return len(broken)
