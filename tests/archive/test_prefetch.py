from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment.archive.objects import StoredObject
from tap_vero_segment.archive.prefetch import AHEAD, CHUNKS, in_thread, read_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WANTED = [StoredObject(f"{number}.gz", number, 100, None) for number in range(10)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads do."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Store:
    """Downloads that say what they do.

    Attributes:
        given: How many chunks of each object were taken from its download.
        running: The objects that are being downloaded.
    """

    def __init__(self, chunks: int = 3, broken: str | None = None) -> None:
        self.given: dict[str, int] = {}
        self.running: set[str] = set()
        self._chunks = chunks
        self._broken = broken

    def read(self, stored: StoredObject) -> Iterator[bytes]:
        self.given[stored.path] = 0
        self.running.add(stored.path)
        try:
            for number in range(self._chunks):
                yield b"%b %d;" % (stored.path.encode(), number)
                self.given[stored.path] += 1
            if stored.path == self._broken:
                raise ConnectionError(stored.path)
        finally:
            self.running.remove(stored.path)


def test_objects_come_in_order_and_whole():
    store = Store()
    got = [(stored, b"".join(chunks)) for stored, chunks in read_ahead(store.read, WANTED)]
    assert [stored for stored, _ in got] == WANTED
    assert [content for _, content in got] == [b"".join(store.read(each)) for each in WANTED]


def test_nothing_wanted_gives_nothing():
    assert list(read_ahead(Store().read, [])) == []


def test_the_next_objects_are_downloaded_meanwhile_but_not_all():
    store = Store(chunks=100)
    reading = read_ahead(store.read, WANTED)
    _, chunks = next(reading)
    until(lambda: set(store.given.values()) == {CHUNKS} and len(store.given) == AHEAD)
    next(chunks)
    until(lambda: store.given["0.gz"] == CHUNKS + 1)
    assert store.given == {"0.gz": CHUNKS + 1, "1.gz": CHUNKS, "2.gz": CHUNKS}
    reading.close()


def test_an_error_comes_out_of_its_own_object_after_what_came_before_it():
    store = Store(broken="1.gz")
    reading = read_ahead(store.read, WANTED)
    assert b"".join(next(reading)[1]).count(b";") == 3
    _, chunks = next(reading)
    got = []
    with pytest.raises(ConnectionError, match=r"1\.gz"):
        got.extend(chunks)
    assert len(got) == 3
    stored, chunks = next(reading)
    assert (stored.path, len(list(chunks))) == ("2.gz", 3)
    reading.close()


def test_even_an_error_that_is_no_exception_comes_out():
    """obstore's panics are none: an object must not be waited for that nobody downloads."""

    class PanicError(BaseException):
        pass

    def read(stored: StoredObject) -> Iterator[bytes]:
        yield b"x"
        raise PanicError

    _, chunks = next(read_ahead(read, WANTED))
    assert next(chunks) == b"x"
    with pytest.raises(PanicError):
        next(chunks)


def test_an_object_that_is_left_unread_is_no_longer_downloaded():
    store = Store(chunks=10_000)
    for _, chunks in read_ahead(store.read, WANTED[:4]):
        next(chunks)
    until(lambda: not store.running)
    assert len(store.given) == 4
    assert max(store.given.values()) < 10_000


def test_closing_ends_all_downloads():
    store = Store(chunks=10_000)
    reading = read_ahead(store.read, WANTED)
    next(reading)
    until(lambda: len(store.running) == AHEAD)
    reading.close()
    until(lambda: not store.running)
    assert len(store.given) == AHEAD


def test_what_is_done_aside_gives_its_result_or_its_error():
    assert in_thread(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 // 0)
