"""Object stores in threads of their own: downloads run ahead of their reader, within bounds."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from tap_vero_segment.archive.objects import StoredObject

_Result = TypeVar("_Result")

AHEAD: Final = 3
"""Objects whose download is under way, the present one included."""
CHUNKS: Final = 1
"""Chunks of an object that wait for their reader, beside the one that waits for its place: with
chunks of 1 MiB, 6 MiB in all."""

_POLL: Final = 0.1
"""Seconds until who waits looks up: a download that nobody reads, whether it is still wanted; the
main thread, whether a signal came just as it began to wait, which would not wake it."""


class _End(NamedTuple):
    error: BaseException | None


class _Download:
    """One object's bytes, fetched by a thread of its own."""

    def __init__(
        self, read: Callable[[StoredObject], Iterator[bytes]], stored: StoredObject
    ) -> None:
        self.stored = stored
        self._read = read
        self._queue: queue.Queue[bytes | _End] = queue.Queue(CHUNKS)
        self._unwanted = threading.Event()
        threading.Thread(target=self._fetch, name="download", daemon=True).start()

    def _fetch(self) -> None:
        error: BaseException | None = None
        try:
            for chunk in self._read(self.stored):
                self._put(chunk)
                if self._unwanted.is_set():
                    return
        except BaseException as raised:  # noqa: BLE001  # for the reader, in its own thread
            error = raised
        self._put(_End(error))

    def _put(self, item: bytes | _End) -> None:
        while not self._unwanted.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return

    def chunks(self) -> Generator[bytes]:
        while True:
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def stop(self) -> None:
        self._unwanted.set()


def in_thread(work: Callable[[], _Result]) -> _Result:
    """Do what blocks in a thread of its own: while obstore waits, no signal would be handled."""
    return all_in_threads([work])[0]


def all_in_threads(works: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """Do what blocks, all at once, each in a thread of its own; return the results in order."""
    results: dict[int, _Result] = {}
    errors: list[BaseException] = []

    def run(number: int, work: Callable[[], _Result]) -> None:
        try:
            results[number] = work()
        except BaseException as error:  # noqa: BLE001  # for the caller, in its own thread
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=each, name="aside", daemon=True)
        for each in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_POLL)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(works))]


def read_ahead(
    read: Callable[[StoredObject], Iterator[bytes]], wanted: Iterable[StoredObject]
) -> Generator[tuple[StoredObject, Iterator[bytes]]]:
    """Yield objects in order, each with its bytes, while the next ones are being downloaded.

    Args:
        read: Downloads an object. What it raises comes out of the object's bytes.
        wanted: The objects.
    """
    under_way: deque[_Download] = deque()
    rest = iter(wanted)
    try:
        while True:
            while len(under_way) < AHEAD and (stored := next(rest, None)) is not None:
                under_way.append(_Download(read, stored))
            if not under_way:
                return
            present = under_way[0]
            yield present.stored, present.chunks()
            present.stop()
            under_way.popleft()
    finally:
        for download in under_way:
            download.stop()
