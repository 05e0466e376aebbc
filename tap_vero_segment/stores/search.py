"""Finding events by whom and what they are about, and the index that leads to them.

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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from zlib import crc32

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.recipients import address, digits_of, folded, identities_of
from tap_vero_segment.record import as_text
from tap_vero_segment.stores.base import SearchPage
from tap_vero_segment.track import decode, with_loaded_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tap_vero_segment.stores.base import Search
    from tap_vero_segment.track import TrackCall

BLOCK: Final = 8_192
"""Events in a block: so many, at most, are looked at one by one as no block has them yet."""

MAX_KEYS: Final = 32 * BLOCK
"""Keys in a block, or those of a single event: an event can hold thousands of addresses."""

SEARCHED: Final = 20_000
"""Events that a search looks at before it breaks off."""

PARTS: Final = 256
"""Parts of a block: the first half for keys of a person or a message, the other for the rest."""

SPAN: Final = 1 << 40
"""Microseconds between the events of a block, which an entry has room for: twelve days."""

Row = tuple[int, bytes]
"""An event's ``loaded_at``, and its track call without it."""

Key = tuple[int, int]
"""What an event is found by: the number of a part, and what an entry there begins with."""


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
        return self._replace(checksum=crc32(repr(self[:-1]).encode()))


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

    def add(self, block: Block, entries: Sequence[Iterable[int]], changes: int) -> bool:
        """Add a block; return whether that was done.

        Args:
            block: The block, which has no number yet.
            entries: Those of each part.
            changes: Only if there were no changes since.
        """

    def extend(self, block: Block, changes: int) -> bool:
        """Let a block begin earlier, likewise."""

    def forget(self, numbers: Sequence[int]) -> None:
        """Delete blocks."""


# What is looked for


class _Properties(msgspec.Struct, gc=False):
    email_id: Any = None
    campaign_id: Any = None
    campaign_name: Any = None


class _Call(msgspec.Struct, rename="camel", gc=False):
    """What of a track call is read in a fifth of the time that all of it takes."""

    message_id: str
    event: str
    timestamp: str
    user_id: str | None = None
    properties: _Properties | None = None


_decode: Final = msgspec.json.Decoder(_Call).decode
_NO_PROPERTIES: Final = _Properties()
_NOT_DIGITS: Final = bytes(sorted(set(range(256)) - set(b"0123456789")))


def matcher(search: Search) -> Callable[[bytes], bool]:
    """Return what says whether a track call, as JSON, fits a search."""
    tests = [
        test(value)
        for test, value in (
            (_is_of, search.collection),
            (_has_id, search.id),
            (_has_user_id, search.user_id),
            (_has_email_id, search.email_id),
            (_has_campaign, search.campaign),
        )
        if value is not None
    ]
    # Fixed-width text sorts as time does.
    if search.since is not None:
        since = times.to_text(search.since)
        tests.append(lambda call: call.timestamp >= since)
    if search.until is not None:
        until = times.to_text(search.until)
        tests.append(lambda call: call.timestamp < until)
    has_recipient = None if search.recipient is None else _has_recipient(search.recipient)
    has_text = None if search.text is None else _has_text(search.text)

    def fits(line: bytes) -> bool:
        if tests or has_text:
            call = _decode(line)
            if not all(test(call) for test in tests):
                return False
            if has_text and not has_text(call, line):
                return False
        return has_recipient is None or has_recipient(line)

    return fits


def _is_of(collection: str) -> Callable[[_Call], bool]:
    names = {event for event, found in BY_EVENT.items() if found.stream == collection}
    return lambda call: call.event in names


def _has_id(value: str) -> Callable[[_Call], bool]:
    ids = {value, value.strip()}
    return lambda call: call.message_id in ids


def _has_user_id(value: str) -> Callable[[_Call], bool]:
    value = value.strip()
    return lambda call: call.user_id is not None and call.user_id.strip() == value


def _has_email_id(value: str) -> Callable[[_Call], bool]:
    value = value.strip()
    return lambda call: _plain((call.properties or _NO_PROPERTIES).email_id) == value


def _has_campaign(value: str) -> Callable[[_Call], bool]:
    value = folded(value)

    def test(call: _Call) -> bool:
        properties = call.properties or _NO_PROPERTIES
        return value in (_folded(properties.campaign_name), _folded(properties.campaign_id))

    return test


def _plain(value: Any) -> str | None:
    text = as_text(value)
    return None if text is None else text.strip()


def _folded(value: Any) -> str | None:
    text = as_text(value)
    return None if text is None else folded(text)


def _has_recipient(value: str) -> Callable[[bytes], bool]:
    identity = address(value)
    can_have = _can_have(identity.value)
    return lambda line: can_have(line) and identity in identities_of(decode(line))


def _can_have(value: str) -> Callable[[bytes], bool]:
    """Return what says in a moment that a track call does not hold a recipient, where it can.

    Whether it does takes twenty times as long to say.
    """
    if digits_of(value):
        # However it is written there: no digit stands between those of a number.
        digits = value.encode()
        return lambda line: b"\\" in line or digits in line.translate(None, _NOT_DIGITS)
    if value.isascii() and "\\" not in value:
        return lambda line: b"\\" in line or value in line.decode().lower()
    return lambda _: True


def _has_text(value: str) -> Callable[[_Call, bytes], bool]:
    tests = [test(value) for test in (_has_id, _has_user_id, _has_email_id, _has_campaign)]
    has_recipient = _has_recipient(value)
    return lambda call, line: any(test(call) for test in tests) or has_recipient(line)


# Keys


def _hash(kind: str, value: str) -> int:
    return crc32(value.encode(errors="replace"), crc32(kind.encode()))


def _of_person(kind: str, value: str) -> Key:
    found = _hash(kind, value)
    return found >> 25, found & 0xFFFFFF


def _of_many(kind: str, value: str) -> Key:
    """Return a key that many events share, so that those of persons have short parts."""
    part, begins = _of_person(kind, value)
    return PARTS // 2 + part, begins


def keys_of(call: TrackCall) -> set[Key]:
    """Return all that an event is found by, apart from its id, which stores have an index of."""
    addresses = (each for each in identities_of(call) if each.kind == "address")
    keys = {_of_person("address", each.value) for each in addresses}
    if call.user_id is not None:
        keys.add(_of_person("user_id", call.user_id.strip()))
    properties = call.properties
    if properties:
        email_id = _plain(properties.get("email_id"))
        if email_id is not None:
            keys.add(_of_person("email_id", email_id))
        for name in ("campaign_id", "campaign_name"):
            campaign = _folded(properties.get(name))
            if campaign is not None:
                keys.add(_of_many("campaign", campaign))
    if collection := BY_EVENT.get(call.event):
        keys.add(_of_many("collection", collection.stream))
    return keys


def _keys_wanted(search: Search) -> list[set[Key]]:
    """Return the keys that events need which fit a search: one of each set."""
    wanted = []
    if search.recipient is not None:
        wanted.append({_recipient(search.recipient)})
    if search.user_id is not None:
        wanted.append({_of_person("user_id", search.user_id.strip())})
    if search.email_id is not None:
        wanted.append({_of_person("email_id", search.email_id.strip())})
    if search.campaign is not None:
        wanted.append({_of_many("campaign", folded(search.campaign))})
    if search.text is not None:
        wanted.append(
            {
                _recipient(search.text),
                _of_person("user_id", search.text.strip()),
                _of_person("email_id", search.text.strip()),
                _of_many("campaign", folded(search.text)),
            }
        )
    if search.collection is not None:
        wanted.append({_of_many("collection", search.collection)})
    return wanted


def _recipient(value: str) -> Key:
    return _of_person("address", address(value).value)


# Searching


def find(
    index: Index, search: Search, before: int | None, after: int | None, limit: int
) -> SearchPage:
    """Do what :meth:`tap_vero_segment.stores.base.Reader.search` does, in one snapshot."""
    newest_first = after is None
    low = times.EARLIEST - 1 if after is None else after
    high = times.LATEST if before is None else before - 1
    fits = matcher(search)
    found: list[Row] = []
    size = 0
    more = False
    searched_to = None
    candidates = _candidates(index, search, low, high, newest_first=newest_first)
    for looked_at, (moment, call) in enumerate(candidates, start=1):
        if fits(call):
            size += len(call)
            if found and (len(found) == limit or size > PAGE_BYTES):
                more = True
                break
            found.append((moment, call))
        if looked_at == SEARCHED:
            more = True
            searched_to = moment
            break
    return _page(found, (before, after), searched_to, more=more)


def _page(
    found: list[Row],
    given: tuple[int | None, int | None],
    searched_to: int | None,
    *,
    more: bool,
) -> SearchPage:
    before, after = given
    last = found[-1][0] if found else 0
    onward = (last if searched_to is None else searched_to) if more else None
    if after is None:
        back = None if before is None else found[0][0] if found else before - 1
        older, newer = onward, back
    else:
        older, newer = found[0][0] if found else after + 1, onward
        found.reverse()
    lines = [with_loaded_at(call, times.to_text(moment)) for moment, call in found]
    return SearchPage(lines, older, newer, searched_to)


def _candidates(
    index: Index, search: Search, low: int, high: int, *, newest_first: bool
) -> Iterator[Row]:
    """Yield the events with ``low < loaded_at <= high`` that may fit a search, in order.

    It is a generator that is ahead of what is taken from it by a little only.
    """
    if search.id is not None:
        moments = index.with_ids([*{search.id, search.id.strip()}])
        inside = sorted((at for at in moments if low < at <= high), reverse=newest_first)
        yield from _at(index, inside, newest_first=newest_first)
        return
    wanted = _keys_wanted(search)
    extra = [] if search.text is None else index.with_ids([*{search.text, search.text.strip()}])
    stretches = [
        stretch
        for stretch in _stretches(index.blocks(), low, high)
        if stretch.block is None or _overlaps(stretch.block, search)
    ]
    if newest_first:
        stretches.reverse()
    place = 0
    size = 2
    while place < len(stretches):
        some = stretches[place : place + size]
        place += size
        size = min(4 * size, _BLOCKS_AT_ONCE)
        waiting: list[int] = []
        entries = _Entries(index, [each.block for each in some if each.block], wanted)
        for stretch in some:
            fitting = entries.moments(stretch.block) if stretch.block and wanted else None
            if fitting is None:
                yield from _at(index, waiting, newest_first=newest_first)
                waiting = []
                yield from _between(index, stretch, newest_first=newest_first)
            else:
                waiting += sorted(
                    (at for at in fitting.union(extra) if stretch.after < at <= stretch.until),
                    reverse=newest_first,
                )
        yield from _at(index, waiting, newest_first=newest_first)


_BLOCKS_AT_ONCE: Final = 1_024


class _Stretch(NamedTuple):
    """Events with ``after < loaded_at <= until``, and the block that has their keys, if any."""

    after: int
    until: int
    block: Block | None


def _stretches(blocks: Iterable[Block], low: int, high: int) -> Iterator[_Stretch]:
    """Cut a range of ``loaded_at`` into what blocks have and what none has."""
    edge = low
    for block in _whole(blocks):
        if not low < block.until or not block.after < high:
            continue
        if edge < block.after:
            yield _Stretch(edge, block.after, None)
        edge = max(edge, block.after)
        if edge < block.until:
            yield _Stretch(edge, min(block.until, high), block)
            edge = block.until
    if edge < high:
        yield _Stretch(edge, high, None)


def _overlaps(block: Block, search: Search) -> bool:
    """Return whether a block can have events of the time that is looked for."""
    return (search.since is None or block.newest >= search.since) and (
        search.until is None or block.oldest < search.until
    )


class _Entries:
    """Parts of some blocks.

    Args:
        index: Where they are.
        blocks: The blocks.
        wanted: What is looked for: an event has to have one key of each set.
    """

    def __init__(self, index: Index, blocks: Iterable[Block], wanted: list[set[Key]]) -> None:
        self._wanted = wanted
        numbers = {part for keys in wanted for part, _ in keys}
        self._parts = index.parts(
            [block.number * PARTS + part for block in blocks for part in numbers]
        )

    def moments(self, block: Block) -> set[int] | None:
        """Return the ``loaded_at`` of the events that may fit; None: a part is not whole."""
        found: set[int] | None = None
        for keys in self._wanted:
            some: set[int] = set()
            for part, begins in keys:
                entries = read_part(block.number * PARTS + part, self._parts)
                if entries is None:
                    return None
                start = bisect_left(entries, begins * SPAN)
                end = bisect_left(entries, (begins + 1) * SPAN, start)
                some.update(block.first + (entry & SPAN - 1) for entry in entries[start:end])
            found = some if found is None else found & some
            if not found:
                return set()
        return found


def _at(index: Index, moments: Sequence[int], *, newest_first: bool) -> Iterator[Row]:
    """Yield the events of some ``loaded_at``, which are in order."""
    size = 128
    place = 0
    while place < len(moments):
        some = moments[place : place + size]
        rows = index.at(some, newest_first=newest_first)
        yield from rows
        # Fewer where the page was long enough, or some of them are not there any more.
        place += len(some) if not rows else some.index(rows[-1][0]) + 1
        size = 512


def _between(index: Index, stretch: _Stretch, *, newest_first: bool) -> Iterator[Row]:
    """Yield all events of a stretch."""
    after, until, _ = stretch
    size = 128
    while rows := index.between(after, until, size, newest_first=newest_first):
        yield from rows
        if newest_first:
            until = rows[-1][0] - 1
        else:
            after = rows[-1][0]
        size = min(4 * size, 2_048)


# Blocks and parts


def _whole(blocks: Iterable[Block]) -> list[Block]:
    """Return the blocks that are as they were written, in order; the others count for nothing."""
    found = (block for block in blocks if block == block.checked())
    return sorted(found, key=lambda block: block.until)


def make_part(number: int, entries: Iterable[int]) -> Part:
    """Return a part of some entries."""
    written = array("Q", sorted(entries))
    if sys.byteorder == "big":
        written.byteswap()
    content = written.tobytes()
    return Part(content, crc32(content, crc32(str(number).encode())))


def read_part(number: int, parts: Mapping[int, Part]) -> Sequence[int] | None:
    """Return the entries of a part; None: it is missing, or is not as it was written."""
    part = parts.get(number)
    if part is None or part.checksum != crc32(part.entries, crc32(str(number).encode())):
        return None
    if sys.byteorder == "little":
        return memoryview(part.entries).cast("Q")
    read = array("Q", part.entries)
    read.byteswap()
    return read


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
    blocks = _whole(every)
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
            changed[number] = make_part(number, set(found) - entries)
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
    for block in _whole(index.blocks()):
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
        return index.add(block, self._parts, changes)


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
        if block != block.checked() or any(read_part(each, parts) is None for each in numbers):
            broken.append(block.number)
    if broken:
        index.forget(broken)
    return len(broken)
