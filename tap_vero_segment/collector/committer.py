"""Group commit: many requests wait, one thread writes, and each response follows the sync."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from tap_vero_segment import times
from tap_vero_segment.collector.commands.repair_clock import BEHIND, clock_warning
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.stores.base import (
    DeadLetter,
    Event,
    StoreBrokenError,
    StoreError,
)
from tap_vero_segment.stores.erasures import ErasedPeople

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from tap_vero_segment.stores.base import Writer

    T = TypeVar("T")

logger = logging.getLogger("vero-collector")

MAX_GROUP: Final = 1_000
"""Submissions in one commit; beyond it a commit only gets longer, not cheaper."""

CHECK_SECONDS: Final = 1.0
"""How often the store is checked, also while nothing comes in."""

STUCK_SECONDS: Final = 10.0
"""How long the writer may be at something until it is tried whether the store answers at all."""

PROBE_SECONDS: Final = 1.0
"""How long that may take."""

REMINDER_SECONDS: Final = 3600
"""How often the log says again that the clock is behind."""


_REFUSED: Final = {
    ErrorReason.OVERLOADED: "overloaded",
    ErrorReason.SHUTTING_DOWN: "shutting down",
    ErrorReason.STORE_BROKEN: "the store can no longer be trusted",
}


class RefusedError(Exception):
    """The collector takes nothing at present.

    Args:
        reason: ``OVERLOADED``: the queue is full; ``SHUTTING_DOWN``; ``STORE_BROKEN``.

    Attributes:
        reason: The same.
        message: The reason for the client.
    """

    def __init__(self, reason: ErrorReason) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = _REFUSED[reason]


class Submission(NamedTuple):
    """What one request wants stored, and the future that its response waits for.

    ``searched_for`` are the erased people that it was searched for before, and ``dropped`` is how
    many events and dead letters were left out then.
    """

    events: Sequence[Event]
    dead_letters: Sequence[DeadLetter]
    ignored: int
    size: int
    done: asyncio.Future[None]
    searched_for: ErasedPeople | None = None
    dropped: int = 0

    @property
    def is_probe(self) -> bool:
        """Whether it only asks if the store accepts writes."""
        return not (self.events or self.dead_letters or self.ignored or self.dropped)


class WriterTask(NamedTuple):
    """Other work for the writer, which is done between two groups."""

    work: Callable[[Writer], Any]
    done: asyncio.Future[Any]


class Commit(NamedTuple):
    """What became of a group.

    Attributes:
        group: The submissions.
        error: Why nothing of it was stored.
        events: How many events it had.
        new: How many of them were not stored before.
        dead_letters: Its dead letters.
        ignored: How many calls it had that are none of the collections.
        seconds: How long the store took; None: there was nothing to store.
        dropped: How many events and dead letters were not stored, as the person was erased.
    """

    group: list[Submission]
    error: StoreError | None = None
    events: int = 0
    new: int = 0
    dead_letters: Sequence[DeadLetter] = ()
    ignored: int = 0
    seconds: float | None = None
    dropped: int = 0


class Committer:
    """Hands what requests bring to a single writer thread, which commits it in groups.

    A group is what has queued while the group before was written: nothing waits for a timer, and
    under load the cost of a sync is shared by all that came in meanwhile.

    All methods but the thread's own belong to the event loop.

    Args:
        open_writer: Opens the store's writing half, in the writer thread.
        max_pending: The most submissions that wait, the one being written included.
        max_pending_bytes: The most bytes of bodies that wait.
        on_broken: Called in the event loop when the store can no longer be trusted.
        on_commit: Called in the event loop with what became of each group.
    """

    def __init__(
        self,
        open_writer: Callable[[], Writer],
        *,
        max_pending: int,
        max_pending_bytes: int,
        on_broken: Callable[[], None],
        on_commit: Callable[[Commit], None] = lambda _: None,
    ) -> None:
        self._open_writer = open_writer
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        self._on_broken = on_broken
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[Submission | WriterTask | None] = queue.SimpleQueue()
        self._pending = 0
        self._pending_bytes = 0
        self._accepting = False
        self._broken = False
        self._failing = False  # the last commit did
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        self._busy_since: float | None = None
        self._people = ErasedPeople(b"")
        self._held: WriterTask | None = None  # the writer thread's: taken from the queue, not begun
        self._checked = 0.0
        self._warned = 0.0
        self.clock_behind = 0
        """By how many microseconds the clock is behind the newest ``loaded_at``; 0: hardly."""
        self.nearly_full = False
        """Whether the store had next to no room left when it was last probed."""

    @property
    def people(self) -> ErasedPeople:
        """The people who were erased, as the writer thread last saw them."""
        return self._people

    @property
    def busy_seconds(self) -> float:
        """For how long the writer has been at what it is doing; 0 while it waits."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def accepting(self) -> bool:
        """Whether a submission would be taken now."""
        return (
            self._accepting
            and self._pending < self._max_pending
            and self._pending_bytes < self._max_pending_bytes
        )

    @property
    def pending(self) -> int:
        """How many submissions wait, the ones being written included."""
        return self._pending

    @property
    def pending_bytes(self) -> int:
        """How many bytes of memory they hold."""
        return self._pending_bytes

    def check_accepting(self) -> None:
        """See that a submission would be taken now, before work is spent on it.

        Raises:
            RefusedError: It would not.
        """
        if self.accepting:
            return
        if self._broken:
            raise RefusedError(ErrorReason.STORE_BROKEN)
        raise RefusedError(ErrorReason.OVERLOADED if self._accepting else ErrorReason.SHUTTING_DOWN)

    @contextmanager
    def holding(self, size: int) -> Generator[None]:
        """Count bytes of what is still being read as if they waited for their commit.

        Raises:
            RefusedError: The queue is full or closed.
        """
        self.check_accepting()
        self._pending_bytes += size
        try:
            yield
        finally:
            self._pending_bytes -= size

    async def start(self) -> None:
        """Open the store and start the writer thread.

        Raises:
            SettingError: The store cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        # A store that never responds must not keep the process alive: the end does not wait for it.
        self._thread = threading.Thread(
            target=self._run, args=(opened,), name="writer", daemon=True
        )
        self._thread.start()
        await opened
        self._accepting = True

    async def commit(
        self,
        events: Sequence[Event],
        dead_letters: Sequence[DeadLetter],
        *,
        ignored: int = 0,
        size: int = 0,
        searched_for: ErasedPeople | None = None,
        dropped: int = 0,
    ) -> None:
        """Store events and dead letters; return when they are synced to disk.

        Args:
            events: Track calls.
            dead_letters: Bodies that are none.
            ignored: How many calls came that are none of the collections.
            size: How many bytes of memory they hold while they wait.
            searched_for: :attr:`people` as they were when this was searched for them; None: the
                writer thread does that.
            dropped: How many events and dead letters were left out then.

        Raises:
            RefusedError: The queue is full or closed. Nothing was stored.
            StoreError: The store failed. Nothing was stored that this can tell of.
        """
        self.check_accepting()
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        submission = Submission(events, dead_letters, ignored, size, done, searched_for, dropped)
        self._pending += 1
        self._pending_bytes += size
        self._queue.put(submission)
        await submission.done

    async def probe(self) -> None:
        """Prove that the store accepts writes; return when it has.

        It waits in no place of what has come in, and a full queue does not refuse it.

        Raises:
            RefusedError: The queue is closed.
            StoreError: The store failed.
        """
        if not self._accepting:
            self.check_accepting()
        submission = Submission((), (), 0, 0, asyncio.get_running_loop().create_future())
        self._queue.put(submission)
        await submission.done

    async def accepts_writes(self) -> bool:
        """Return whether the store took what was last written; where not, try whether it does now.

        A full queue, which a moment later is empty, is not the store's fault.
        """
        if not self._failing and self.busy_seconds < STUCK_SECONDS:
            return True
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self.probe()
        except (RefusedError, StoreError, TimeoutError):
            return False
        return True

    async def run(self, work: Callable[[Writer], T]) -> T:
        """Return what ``work`` does with the store, in the writer thread.

        Raises:
            RefusedError: The queue is full or closed. It was not done.
            StoreError: The store failed.
        """
        self.check_accepting()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending += 1
        self._queue.put(WriterTask(work, done))
        return await done

    async def stop(self, seconds: float | None = None) -> bool:
        """Take nothing more, write all that waits, close the store.

        Args:
            seconds: How long that may take; None: as long as it does.

        Returns:
            Whether it was done in time. What was not written then has not been acknowledged.
        """
        self._accepting = False
        if self._thread is None:
            return True
        self._queue.put(None)
        try:
            await asyncio.wait_for(self._ended.wait(), seconds)
        except TimeoutError:
            return False
        self._thread.join()
        return True

    def _run(self, opened: asyncio.Future[None]) -> None:
        """Write group after group: the writer thread."""
        try:
            writer = self._open_writer()
            self._people = writer.erased_people()
        except Exception as error:  # noqa: BLE001  # told to the one who waits for the start
            self._call(self._ended.set)
            self._call(_settle, [opened], error)
            return
        self._call(_settle, [opened], None)
        try:
            while (group := self._next_group()) is not None:
                self._busy_since = time.monotonic()
                broken = self._serve(writer, group)
                if broken is None and time.monotonic() - self._checked >= CHECK_SECONDS:
                    broken = self._check(writer)
                self._busy_since = None
                if broken is not None:
                    self._fail_the_rest(broken)
                    return
            self._check(writer)  # what was acknowledged last may be gone as well
        finally:
            writer.close()
            self._call(self._ended.set)

    def _serve(
        self, writer: Writer, group: list[Submission] | WriterTask
    ) -> StoreBrokenError | None:
        """Write a group or run a writer task; return why the store can no longer be trusted."""
        if isinstance(group, WriterTask):
            return self._run_task(writer, group)
        for commit in _write_apart(writer, group, self._people):
            if commit.error is None and any(one.is_probe for one in commit.group):
                self.nearly_full = _is_nearly_full(writer)
            self._call(self._finish, commit)
            if isinstance(commit.error, StoreBrokenError):
                return commit.error
        return None

    def _check(self, writer: Writer) -> StoreBrokenError | None:
        """See that the store is the one that was opened; return the error where it is not."""
        try:
            behind = writer.check()
            self._people = writer.erased_people()
        except StoreBrokenError as error:
            self._call(self._break, error)
            return error
        except Exception:  # noqa: BLE001  # the next commit meets it too, and says it
            return None
        finally:
            self._checked = time.monotonic()
        self._call(self._compare_clocks, behind)
        return None

    def _next_group(self) -> list[Submission] | WriterTask | None:
        """Wait for a submission, and take all that came with it; None when the end has come.

        Where none comes for a while, the group is empty.
        """
        try:
            first = self._held or self._queue.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            return []
        self._held = None
        if not isinstance(first, Submission):
            return first
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                submission = self._queue.get_nowait()
            except queue.Empty:
                break
            if submission is None:
                self._queue.put(None)  # the end, but this group first
                break
            if isinstance(submission, WriterTask):
                self._held = submission
                break
            group.append(submission)
        return group

    def _run_task(self, writer: Writer, task: WriterTask) -> StoreBrokenError | None:
        """Do other work; return why the store can no longer be trusted, where that is so."""
        result = error = None
        try:
            result = task.work(writer)
        except StoreError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001  # a fault must not end the thread unseen
            error = StoreError(f"unexpected {describe_fault(failure)}")
        self._call(self._finish_task, task, result, error)
        return error if isinstance(error, StoreBrokenError) else None

    def _fail_the_rest(self, error: StoreError) -> None:
        while (left := self._held or self._queue.get()) is not None:
            self._held = None
            if isinstance(left, WriterTask):
                self._call(self._finish_task, left, None, error)
            else:
                self._call(self._finish, Commit([left], error))

    def _call(self, function: Callable[..., None], *args: object) -> None:
        assert self._loop is not None  # noqa: S101  # start() has set it
        with suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            self._loop.call_soon_threadsafe(function, *args)

    def _finish(self, commit: Commit) -> None:
        """Let a group's requests go on: in the event loop."""
        group, error = commit.group, commit.error
        if group:
            self._failing = error is not None
        self._pending -= sum(not submission.is_probe for submission in group)
        self._pending_bytes -= sum(submission.size for submission in group)
        if isinstance(error, StoreBrokenError):
            self._break(error)
        elif error is not None:
            about = {"group": len(group), "error": type(error).__name__}
            message = "nothing of a group of %d was stored: %s"
            logger.error(message, len(group), error, extra=about)
        else:
            _log_dead_letters(commit.dead_letters)
        _settle([submission.done for submission in group], error)
        self._on_commit(commit)  # before the responses are sent: the requests go on after this

    def _finish_task(self, task: WriterTask, result: Any, error: StoreError | None) -> None:
        """Hand what came of a writer task to its request: in the event loop."""
        self._pending -= 1
        if isinstance(error, StoreBrokenError):
            self._break(error)
        if task.done.done():  # its request was cancelled
            return
        if error is None:
            task.done.set_result(result)
        else:
            task.done.set_exception(error)

    def _compare_clocks(self, behind: int) -> None:
        """Warn of a clock that is behind the newest event: once, and then now and then."""
        before, self.clock_behind = self.clock_behind, behind if behind > BEHIND else 0
        warning = clock_warning(behind)
        now = time.monotonic()
        if warning is None:
            if before:
                logger.info("the clock is no longer behind the newest loaded_at")
        elif not before or now - self._warned >= REMINDER_SECONDS:
            self._warned = now
            logger.warning("%s", warning, extra={"clock_behind_seconds": behind / times.SECOND})

    def _break(self, error: StoreBrokenError) -> None:
        self._accepting = False
        if not self._broken:
            self._broken = True
            logger.critical("the store can no longer be trusted, ending: %s", error)
            self._on_broken()


def _write_apart(writer: Writer, group: list[Submission], people: ErasedPeople) -> Iterator[Commit]:
    """Write a group in one commit; if the store will not take it, each submission in its own.

    One that the store cannot take must not cost the others, of this group or of the next.
    """
    if not group:
        return
    commit = _write(writer, group, people)
    if type(commit.error) is StoreError and len(group) > 1:
        for submission in group:
            yield _write(writer, [submission], people)
    else:
        yield commit


def _write(writer: Writer, group: list[Submission], people: ErasedPeople) -> Commit:
    events: list[Event] = []
    dead_letters: list[DeadLetter] = []
    ignored = sum(submission.ignored for submission in group)
    began = time.perf_counter()
    dropped = 0
    try:
        for one in group:
            kept, kept_letters, more = one.events, one.dead_letters, 0
            if one.searched_for is not people:
                kept, kept_letters, more = people.without(kept, kept_letters)
            events += kept
            dead_letters += kept_letters
            dropped += one.dropped + more
        if dropped:
            writer.count_dropped(dropped)
            if not (events or dead_letters or ignored):
                return Commit(group, dropped=dropped, seconds=time.perf_counter() - began)
        if not (events or dead_letters or ignored):
            writer.probe()
            return Commit(group)
        new = writer.write(events, dead_letters, ignored)
    except StoreError as error:
        return Commit(group, error)
    except Exception as error:  # noqa: BLE001  # a fault of ours must not end the thread unseen
        return Commit(group, StoreError(f"unexpected {describe_fault(error)}"))
    seconds = time.perf_counter() - began
    return Commit(group, None, len(events), new, dead_letters, ignored, seconds, dropped)


def _log_dead_letters(letters: Sequence[DeadLetter]) -> None:
    """Say that dead letters were kept, and why; never what they hold.

    A request can bring thousands: those of one input and reason are one line.
    """
    sizes: dict[tuple[str, str], list[int]] = {}
    for letter in letters:
        sizes.setdefault((letter.input, letter.reason), []).append(len(letter.body))
    for (input_name, reason), those in sizes.items():
        about = {"input": input_name, "count": len(those), "bytes": sum(those), "reason": reason}
        what = "a dead letter" if len(those) == 1 else f"{len(those)} dead letters"
        logger.warning("kept %s of %d bytes: %s", what, sum(those), reason, extra=about)


def _is_nearly_full(writer: Writer) -> bool:
    try:
        return writer.nearly_full()
    except OSError:  # the store's folder is gone, which the next write will say better
        return False


def _settle(futures: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():  # its request was cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
