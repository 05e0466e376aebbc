"""The pages of the dead letters, and what their buttons do to many of them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.commands.dead_letters import (
    DELETED_AT_ONCE,
    discard_those_left,
    find_dead_letter,
)
from tap_vero_segment.collector.commands.replay import Replay
from tap_vero_segment.collector.committer import RefusedError
from tap_vero_segment.collector.live_page.snapshot import LetterEntry, entry_of_letter
from tap_vero_segment.collector.redaction import readable
from tap_vero_segment.errors import UserError, describe_fault
from tap_vero_segment.stores.base import LAST_LETTER, StoreError
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.collector.reader_pool import ReaderPool
    from tap_vero_segment.stores.base import LetterGroup, Reader, Writer

logger = logging.getLogger("vero-collector")

PATH: Final = "/dead-letters"
LISTED: Final = 50
"""Dead letters on a page."""
SAMPLES: Final = 10
"""Reasons of which a body is shown."""
SAMPLE_BYTES: Final = 16 * 1024
"""A longer body is no sample: to make it readable can take a second."""
SAMPLE_SHOWN: Final = 2_000
"""Characters of a sample."""
SOON_SECONDS: Final = 2.0
"""How long a response waits for the end of what its button has begun."""


class Group(msgspec.Struct, frozen=True, gc=False):
    """The dead letters of one reason, as they are shown.

    Attributes:
        reason: The reason.
        letters: How many there are.
        oldest: When the oldest one was received.
        newest: The same of the newest one.
        last: The number of the newest one.
        sample: The beginning of its body, without secrets; None: it is too long.
    """

    reason: str
    letters: int
    oldest: str
    newest: str
    last: int
    sample: str | None


class Listing(msgspec.Struct, frozen=True, gc=False):
    """A page of dead letters.

    Attributes:
        groups: All of them by their reasons.
        reason: The reason of those that are listed; None: any.
        dead_letters: Those that are listed, the newest first.
        older: The path of the next page; None: there is none.
    """

    groups: list[Group]
    reason: str | None
    dead_letters: list[LetterEntry]
    older: str | None

    @property
    def letters(self) -> int:
        """How many dead letters there are."""
        return sum(group.letters for group in self.groups)

    @property
    def last(self) -> int:
        """The number of the newest one, or 0."""
        return max((group.last for group in self.groups), default=0)


def read(reader: Reader, query: Mapping[str, str], secrets: Sequence[str]) -> Listing:
    """Read a page of dead letters.

    Args:
        reader: The store's reading half.
        query: ``reason``: only those of this group; ``before``: only those with a lower number.
        secrets: What is not shown, wherever it stands.

    Raises:
        StoreError: They cannot be read.
    """
    groups = reader.letter_groups()
    reason = query.get("reason")
    before = _number(query.get("before", ""))
    heads = []
    if reason is None or any(group.reason == reason for group in groups):
        heads = reader.letter_heads(LISTED + 1, before, reason)
    older = None
    if len(heads) > LISTED:
        cursor = {} if reason is None else {"reason": reason}
        older = f"{PATH}?{urlencode(cursor | {'before': heads[LISTED - 1].number})}"
    return Listing(
        [
            _shown(reader, group, secrets, sampled=place < SAMPLES)
            for place, group in enumerate(groups)
        ],
        reason,
        [entry_of_letter(head) for head in heads[:LISTED]],
        older,
    )


def _shown(reader: Reader, group: LetterGroup, secrets: Sequence[str], *, sampled: bool) -> Group:
    kept = find_dead_letter(reader, group.last) if sampled else None
    sample = None
    if kept is not None and len(kept.letter.body) <= SAMPLE_BYTES:
        sample = printable(readable(kept.letter.body, secrets)[:SAMPLE_SHOWN])
    oldest, newest = map(times.to_text, (group.oldest, group.newest))
    return Group(group.reason, group.letters, oldest, newest, group.last, sample)


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < len(str(LAST_LETTER)) else LAST_LETTER


class Chosen(NamedTuple):
    """The dead letters that a form is about.

    Attributes:
        until: None has a higher number, so that those that came since are left alone.
        reason: The reason of all of them; None: any.
    """

    until: int
    reason: str | None


def chosen(fields: Mapping[str, str]) -> Chosen:
    """Read what a form is about; without ``until`` it is about no dead letter at all."""
    until = _number(fields.get("until", "0"))
    return Chosen(0 if until == LAST_LETTER else until, fields.get("reason"))


def count(reader: Reader, reason: str | None) -> tuple[int, Chosen]:
    """Return how many dead letters there are of a reason, or of any, and which those are.

    Raises:
        StoreError: They cannot be read.
    """
    groups = [group for group in reader.letter_groups() if reason in {None, group.reason}]
    until = max((group.last for group in groups), default=0)
    return sum(group.letters for group in groups), Chosen(until, reason)


class Progress(NamedTuple):
    """How far it has come what was begun by a button.

    Attributes:
        what: In words.
        letters: How many dead letters there were.
        done: How many of them are done.
        result: What was done, a fact a line; empty: it goes on.
    """

    what: str
    letters: int
    done: int = 0
    result: str = ""


class Many:
    """Replays or deletes many dead letters beside what comes in: one such thing at a time.

    Broken off at any point, also by the end of the process, nothing is lost: what is not done is
    still there.

    Args:
        reader_pool: Reads the store.
        committer: Writes it.
    """

    def __init__(self, reader_pool: ReaderPool, committer: Committer) -> None:
        self._reader_pool = reader_pool
        self._committer = committer
        self._task: asyncio.Task[None] | None = None
        self.progress: Progress | None = None

    async def replay(self, those: Chosen) -> str:
        """Read dead letters again; return ``many``, or ``busy`` where something goes on already."""
        return await self._begin("Replaying", those)

    async def delete(self, those: Chosen) -> str:
        """Delete dead letters; return as :meth:`replay` does."""
        return await self._begin("Deleting", those)

    def close(self) -> None:
        """Break off."""
        if self._task is not None:
            self._task.cancel()

    async def _begin(self, what: str, those: Chosen) -> str:
        if self._task is not None and not self._task.done():
            return "busy"
        self.progress = Progress(what, 0)
        self._task = asyncio.create_task(self._run(what, those))
        await asyncio.wait({self._task}, timeout=SOON_SECONDS)
        return "many"

    async def _run(self, what: str, those: Chosen) -> None:
        work = self._replay if what == "Replaying" else self._delete
        try:
            letters, _ = await self._reader_pool.read(lambda reader: count(reader, those.reason))
            self.progress = Progress(what, letters)
            result = await work(those)
        except RefusedError as error:
            result = f"{what} stopped: the collector is {error.message}. Try again."
        except (StoreError, UserError, OSError) as error:
            logger.error("%s dead letters stopped: %s", what.lower(), error)  # noqa: TRY400
            result = f"{what} stopped: the store failed. Try again."
        except Exception as error:  # noqa: BLE001  # whose text could name recipients
            logger.error("%s dead letters: a fault: %s", what.lower(), describe_fault(error))  # noqa: TRY400
            result = f"{what} stopped: a fault of the collector. See its log."
        self._advance(0, result)

    def _advance(self, done: int, result: str = "") -> None:
        if self.progress is not None:
            self.progress = self.progress._replace(done=self.progress.done + done, result=result)

    async def _pages(self, those: Chosen) -> AsyncIterator[list[int]]:
        """Yield the numbers of the dead letters, the highest first."""
        before = those.until + 1
        while heads := await self._reader_pool.read(
            lambda reader: reader.letter_heads(DELETED_AT_ONCE, before, those.reason)  # noqa: B023
        ):
            yield [head.number for head in heads]
            before = heads[-1].number

    async def _replay(self, those: Chosen) -> str:
        """Read each again in a transaction of its own, so that what comes in hardly waits."""
        replaying: Replay | None = None

        def read_again(writer: Writer, kept: Any) -> None:
            nonlocal replaying
            replaying = replaying or Replay(writer)
            replaying.read(kept)

        try:
            async for numbers in self._pages(those):
                for number in numbers:
                    kept = await self._reader_pool.read(
                        lambda reader: find_dead_letter(reader, number)  # noqa: B023
                    )
                    if kept is not None:  # somebody has been quicker
                        await self._committer.run(lambda writer: read_again(writer, kept))  # noqa: B023
                    self._advance(1)
        finally:
            lines = replaying.told() if replaying else "dead letters read again: 0"
            logger.info("on the live page: %s", "; ".join(lines.splitlines()))
        return lines

    async def _delete(self, those: Chosen) -> str:
        deleted = 0
        try:
            async for numbers in self._pages(those):
                deleted += await delete(numbers, self._committer)
                self._advance(len(numbers))
        finally:
            log_deleted(deleted)
        return f"dead letters deleted: {deleted}"


async def delete(numbers: Sequence[int], committer: Committer) -> int:
    """Delete dead letters as far as they are still there; return how many were.

    Raises:
        RefusedError: The collector takes nothing at present.
        StoreError: The store failed; nothing was deleted.
    """
    return await committer.run(lambda writer: discard_those_left(writer, numbers))


def log_deleted(deleted: int) -> None:
    """Say that dead letters were deleted; never what they held."""
    if deleted:
        about = {"count": deleted}
        logger.warning("dead letters deleted on the live page: %d", deleted, extra=about)
