"""What the endpoints of all inputs share: reading a body beside the event loop, and keeping it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.inputs.intake import Calls
    from tap_vero_segment.stores.base import DeadLetter, Event

T = TypeVar("T")

MAX_IN_LOOP: Final = 16 * 1024
"""Bytes of calls that are read in the event loop itself, which takes some milliseconds at most."""

# One thread: as Python runs one at a time, more would only take turns more often.
_thread: Final = ThreadPoolExecutor(1, "reading")


async def read_in_thread(size: int, work: Callable[[], T], committer: Committer) -> T:
    """Return what ``work`` makes of a body; large ones are read in a thread.

    Half a megabyte of calls can take half a second, and the event loop must go on meanwhile.

    Args:
        size: Bytes of the calls, with what is said for all of them counted for each.
        work: Reads them.
        committer: In whose budget they count while they wait.

    Raises:
        RefusedError: Too much waits already.
    """
    if size <= MAX_IN_LOOP:
        return work()
    with committer.holding(size):
        return await asyncio.get_running_loop().run_in_executor(_thread, work)


async def keep(calls: Calls, committer: Committer) -> None:
    """Store calls, all or none; return when they are synced to disk."""
    size = sum(len(event.call) for event in calls.events)
    size += sum(len(letter.body) for letter in calls.dead_letters)
    await commit(calls.events, calls.dead_letters, committer, size, ignored=calls.ignored)


async def keep_dead_letter(letter: DeadLetter, committer: Committer) -> None:
    """Keep a body that cannot be read or mapped; return when it is synced to disk."""
    await commit([], [letter], committer, len(letter.body))


async def commit(
    events: Sequence[Event],
    letters: Sequence[DeadLetter],
    committer: Committer,
    size: int,
    *,
    ignored: int = 0,
) -> None:
    """Store what a body has come to, all or none; return when it is synced to disk.

    Large ones are searched for suppressed people beside the writer thread, which all wait for.

    Args:
        events: Its events.
        letters: Its dead letters.
        committer: Stores them.
        size: Bytes of memory that they hold while they wait.
        ignored: How many of its calls belong to no collection.

    Raises:
        RefusedError: Too much waits already.
        StoreError: The store failed.
    """
    people, dropped = committer.people, 0
    searched = people.suppress and size > MAX_IN_LOOP
    if searched:
        events, letters, dropped = await read_in_thread(
            size, lambda: people.without(events, letters), committer
        )
    await committer.commit(
        events,
        letters,
        ignored=ignored,
        size=size,
        searched_for=people if searched else None,
        dropped=dropped,
    )
