"""Searching: the events that an index leads to, and those that it has not yet, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tap_vero_segment import times
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.base import SearchPage
from tap_vero_segment.stores.search.index import moments_of, read_part, whole
from tap_vero_segment.stores.search.keys import PARTS, keys_wanted, matcher, within
from tap_vero_segment.track import with_loaded_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tap_vero_segment.stores.base import Search
    from tap_vero_segment.stores.search.index import Block, Index, Row
    from tap_vero_segment.stores.search.keys import Key

SEARCHED: Final = 20_000
"""Events that a search looks at before it breaks off."""

_BLOCKS_AT_ONCE: Final = 1_024


def find(
    index: Index, search: Search, before: int | None, after: int | None, limit: int
) -> SearchPage:
    """Do what :meth:`tap_vero_segment.stores.base.Reader.search` does, in one snapshot."""
    newest_first = after is None
    low = times.EARLIEST - 1 if after is None else within(after)
    high = times.LATEST if before is None else within(before) - 1
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
    wanted = keys_wanted(search)
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


class _Stretch(NamedTuple):
    """Events with ``after < loaded_at <= until``, and the block that has their keys, if any."""

    after: int
    until: int
    block: Block | None


def _stretches(blocks: Iterable[Block], low: int, high: int) -> Iterator[_Stretch]:
    """Cut a range of ``loaded_at`` into what blocks have and what none has."""
    edge = low
    for block in whole(blocks):
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
                some.update(moments_of(entries, begins, block))
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
