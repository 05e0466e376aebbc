from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager, closing
from types import NoneType
from typing import TYPE_CHECKING

import apsw
import pytest

from tap_vero_segment import times
from tap_vero_segment.collector.committer import Committer, RefusedError
from tap_vero_segment.collector.endpoints.storing import keep_dead_letter
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.recipients import address, identities_in
from tap_vero_segment.stores import erasures
from tap_vero_segment.stores.base import DeadLetter, StoreBrokenError, StoreError, StoreFullError
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.asgi import ask, post, running
from tests.support.disk import Disk
from tests.support.payloads import documented, many
from tests.support.store import NobodyErased

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

SECONDS = 30
BROKEN = StoreBrokenError("disk I/O error")
EVENTS = [read_vero(json.dumps(payload).encode(), times.now()) for payload in many(200)]


class HeldWriter(SqliteWriter):
    """Waits before each commit until the test lets it go on.

    Attributes:
        groups: How many events each commit had.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}", "store")
        self.groups: list[int] = []
        self.hold()

    def hold(self) -> None:
        """Begin anew: nothing has arrived, nothing is released."""
        self._arrived = threading.Semaphore(0)
        self._released = threading.Semaphore(0)

    def write(self, events, dead_letters, ignored=0):
        self.groups.append(len(events))
        self._arrived.release()
        assert self._released.acquire(timeout=SECONDS)
        return super().write(events, dead_letters, ignored)

    async def arrived(self) -> None:
        """Wait until the writer has begun one more commit."""
        assert await asyncio.to_thread(self._arrived.acquire, timeout=SECONDS)

    def release(self, count: int = 1) -> None:
        self._released.release(count)


class FailingWriter(NobodyErased):
    """Meets an error at each write that it has one for."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = list(errors)
        self.closed = False

    def write(self, events, *_):
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error
        return len(events)

    def probe(self):
        self.write([], [])

    def check(self):
        return 0

    def close(self):
        self.closed = True


@asynccontextmanager
async def started(
    open_writer: Callable,
    *,
    max_pending: int = 1_000,
    max_pending_bytes: int = 1_000_000,
    on_broken: Callable[[], None] = lambda: None,
) -> AsyncIterator[Committer]:
    taker = Committer(
        open_writer,
        max_pending=max_pending,
        max_pending_bytes=max_pending_bytes,
        on_broken=on_broken,
    )
    await taker.start()
    try:
        yield taker
    finally:
        await taker.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def within_time() -> None:
        async with asyncio.timeout(SECONDS):
            await scenario()

    asyncio.run(within_time())


async def submit(taker: Committer, events, size: int = 0) -> list[asyncio.Task]:
    """Submit events, one a request, and see that all of them wait."""
    tasks = [asyncio.create_task(taker.commit([event], [], size=size)) for event in events]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


def stored(path: Path) -> int:
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs="unix") as store:
        number: int = store.execute("SELECT count(*) FROM events").get
    return number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vero-events.db"


def held(path: Path) -> tuple[list[HeldWriter], Callable[[], HeldWriter]]:
    """Return where the writer will be, and how to open it."""
    opened: list[HeldWriter] = []

    def open_writer() -> HeldWriter:
        opened.append(HeldWriter(path))
        return opened[0]

    return opened, open_writer


def test_what_queues_during_a_commit_is_the_next_commit(path):
    async def scenario():
        opened, open_writer = held(path)
        async with started(open_writer) as taker:
            [writer] = opened
            first = await submit(taker, EVENTS[:1])
            await writer.arrived()
            second = await submit(taker, EVENTS[1:51])
            writer.release()
            await asyncio.gather(*first)
            await writer.arrived()
            third = await submit(taker, EVENTS[51:53])
            assert not any(task.done() for task in second)
            writer.release(2)
            await asyncio.gather(*second, *third)
            assert writer.groups == [1, 50, 2]
            assert stored(path) == 53

    run(scenario)


def test_stopping_writes_all_that_waits_and_takes_nothing_more(path):
    async def scenario():
        opened, open_writer = held(path)
        async with started(open_writer) as taker:
            tasks = await submit(taker, EVENTS)
            stopping = asyncio.create_task(taker.stop())
            await asyncio.sleep(0)
            with pytest.raises(RefusedError):
                await taker.commit(EVENTS[:1], [])
            opened[0].release(len(EVENTS))
            await asyncio.gather(stopping, *tasks)

    run(scenario)
    assert stored(path) == len(EVENTS)


@pytest.mark.parametrize(
    ("limits", "size"),
    [({"max_pending": 3}, 0), ({"max_pending_bytes": 300}, 100)],
    ids=["requests", "bytes"],
)
def test_a_full_queue_refuses_until_there_is_room(path, limits, size):
    async def scenario():
        opened, open_writer = held(path)
        async with started(open_writer, **limits) as taker:
            tasks = await submit(taker, EVENTS[:3], size)
            with pytest.raises(RefusedError):
                await taker.commit(EVENTS[3:4], [], size=size)
            opened[0].release(1_000)
            await asyncio.gather(*tasks)
            for event in EVENTS[4:8]:
                await taker.commit([event], [], size=size)

    run(scenario)
    assert stored(path) == 7


@pytest.mark.parametrize("size", [0, 100])
def test_requests_that_were_given_up_make_room_like_any_other(path, size):
    async def scenario():
        opened, open_writer = held(path)
        async with started(open_writer, max_pending=20, max_pending_bytes=2_000) as taker:
            [writer] = opened
            for start in range(0, 200, 20):
                tasks = await submit(taker, EVENTS[start : start + 20], size)
                await writer.arrived()
                assert not taker.accepting
                for task in tasks[::2]:
                    task.cancel()
                writer.release(1_000)
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [result is None for result in results] == [False, True] * 10
                assert taker.accepting
                writer.hold()

    run(scenario)
    # Whoever gave up has learnt nothing; the events were taken all the same.
    assert stored(path) == 200


def test_a_full_disk_is_told_to_those_it_met_and_nobody_else():
    broken = []

    async def scenario():
        async with started(
            lambda: FailingWriter(StoreFullError("full"), None), on_broken=lambda: broken.append(1)
        ) as taker:
            with pytest.raises(StoreFullError):
                await taker.commit(EVENTS[:1], [])
            await taker.commit(EVENTS[1:2], [])
            assert taker.accepting

    run(scenario)
    assert broken == []


def test_an_event_that_the_store_cannot_take_costs_no_other(path):
    poison = EVENTS[2]._replace(id="\ud800")  # no UTF-8 can write it
    broken = []
    opened: list[HeldWriter] = []

    async def scenario():
        async with started(
            lambda: opened.append(HeldWriter(path)) or opened[0], on_broken=lambda: broken.append(1)
        ) as taker:
            first = await submit(taker, EVENTS[:1])
            await opened[0].arrived()
            rest = await submit(taker, [EVENTS[1], poison, EVENTS[3]])
            for _ in range(5):  # the first, the three together, and then each of them
                opened[0].release()
            results = await asyncio.gather(*first, *rest, return_exceptions=True)
            assert [type(result) for result in results] == [
                NoneType,
                NoneType,
                StoreError,
                NoneType,
            ]
            assert taker.accepting

    run(scenario)
    assert broken == []
    with SqliteReader(f"sqlite:///{path}", "store") as reader:
        ids = [json.loads(line)["messageId"] for line in reader.lines(0, None, 100)]
    assert ids == [event.id for event in (EVENTS[0], EVENTS[1], EVENTS[3])]


def test_after_a_failure_that_nothing_can_answer_for_nothing_is_taken():
    broken = []
    writer = FailingWriter(BROKEN)

    async def scenario():
        async with started(lambda: writer, on_broken=lambda: broken.append(1)) as taker:
            tasks = await submit(taker, EVENTS[:5])
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {StoreBrokenError}
            with pytest.raises(RefusedError):
                await taker.commit(EVENTS[5:6], [])

    run(scenario)
    assert broken == [1]
    assert writer.closed


def test_what_waits_behind_a_broken_store_fails_too(path):
    class Breaking(HeldWriter):
        def write(self, events, dead_letters, ignored=0):
            super().write(events, dead_letters, ignored)
            raise BROKEN

    async def scenario():
        broken = []
        opened: list[Breaking] = []
        async with started(
            lambda: opened.append(Breaking(path)) or opened[0], on_broken=lambda: broken.append(1)
        ) as taker:
            first = await submit(taker, EVENTS[:1])
            await opened[0].arrived()
            rest = await submit(taker, EVENTS[1:50])
            opened[0].release()
            results = await asyncio.gather(*first, *rest, return_exceptions=True)
            assert {type(result) for result in results} == {StoreBrokenError}
            assert opened[0].groups == [1]
            assert broken == [1]

    run(scenario)


def test_a_store_that_breaks_while_stopping_is_told_too():
    broken = []

    async def scenario():
        async with started(
            lambda: FailingWriter(BROKEN), on_broken=lambda: broken.append(1)
        ) as taker:
            tasks = await submit(taker, EVENTS[:3])
            await taker.stop()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {StoreBrokenError}

    run(scenario)
    assert broken == [1]


def test_a_store_that_cannot_be_opened_is_told_at_the_start(tmp_path):
    async def scenario():
        with pytest.raises(SettingError, match="store: "):
            async with started(lambda: SqliteWriter(f"sqlite:///{tmp_path}", "store")):
                pytest.fail("it started")

    run(scenario)


# Other work for the writer


def test_a_task_is_run_between_two_commits_in_the_thread_that_writes(path):
    async def scenario():
        held = []
        async with started(lambda: held.append(HeldWriter(path)) or held[0]) as taker:
            before = await submit(taker, EVENTS[:1])
            await held[0].arrived()
            before += await submit(taker, EVENTS[1:3])
            task = asyncio.create_task(taker.run(lambda writer: (writer, writer.groups.copy())))
            await asyncio.sleep(0)
            after = await submit(taker, EVENTS[3:6])
            held[0].release(3)
            writer, groups = await task
            await asyncio.gather(*before, *after)
            assert taker.pending == 0
        assert (writer, groups, writer.groups) == (held[0], [1, 2], [1, 2, 3])

    run(scenario)


@pytest.mark.parametrize("error", [StoreError("not this one"), ValueError("an address")])
def test_a_task_that_fails_costs_nobody_else(path, error):
    async def scenario():
        async with started(lambda: SqliteWriter(f"sqlite:///{path}", "store")) as taker:
            with pytest.raises(StoreError) as failed:
                await taker.run(lambda _: _raise(error))
            assert "address" not in str(failed.value)
            await taker.commit(EVENTS[:1], [])

    run(scenario)


def test_a_task_that_finds_the_store_broken_ends_the_writer(path):
    broken = []

    async def scenario():
        async with started(
            lambda: SqliteWriter(f"sqlite:///{path}", "store"), on_broken=lambda: broken.append(1)
        ) as taker:
            tasks = [asyncio.create_task(taker.run(lambda _: _raise(BROKEN))) for _ in range(3)]
            await asyncio.sleep(0)
            tasks += await submit(taker, EVENTS[:2])
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {StoreBrokenError}
            with pytest.raises(RefusedError):
                await taker.run(lambda _: None)

    run(scenario)
    assert broken == [1]


def _raise(error: Exception) -> None:
    raise error


def test_dead_letters_are_committed_with_the_events(path):
    letter = DeadLetter(times.now(), "vero", "not JSON", b"nonsense")

    async def scenario():
        async with started(lambda: SqliteWriter(f"sqlite:///{path}", "store")) as taker:
            await asyncio.gather(taker.commit(EVENTS[:1], []), taker.commit([], [letter]))

    run(scenario)
    assert stored(path) == 1
    with SqliteReader(f"sqlite:///{path}", "store") as reader:
        assert reader.summary().dead_letters == 1


def test_large_bodies_are_searched_for_suppressed_people_beside_the_writer(path, monkeypatch):
    """Half a megabyte of addresses takes more than a second, in which all would wait."""
    url, searchers = f"sqlite:///{path}", []
    with closing(SqliteWriter(url, "store")) as writer:
        ann = writer.erased_people().digest(address("ann@example.com"))
        writer.begin_erasure([ann], suppress=True)

    def search(body):
        searchers.append(threading.current_thread().name)
        return identities_in(body)

    monkeypatch.setattr(erasures, "identities_in", search)
    others = b" ".join(b"%x@example.com" % number for number in range(2_000))
    letters = [
        DeadLetter(times.now(), "vero", "not JSON", body)
        for body in (others, others + b" ann@example.com", b"a small one of ann@example.com")
    ]

    async def scenario():
        async with started(lambda: SqliteWriter(url, "store")) as taker:
            for letter in letters:
                await keep_dead_letter(letter, taker)
            assert taker.pending == 0

    run(scenario)
    assert [name.partition("_")[0] for name in searchers] == ["reading", "reading", "writer"]
    with SqliteReader(url, "store") as reader:
        assert [kept.letter.body for kept in reader.dead_letters(0, 9)] == [others]
        assert reader.erasure_figures().dropped == 2


# What clients see of it


def test_clients_of_a_full_queue_are_told_to_come_back(path):
    body = json.dumps(documented()).encode()

    async def scenario():
        opened, open_writer = held(path)
        async with running(open_writer, max_pending=2) as app:
            waiting = [asyncio.create_task(post(app, body)) for _ in range(2)]
            await opened[0].arrived()
            refused = [await post(app, body), await post(app, b"nonsense")]
            refused.append(await ask(app, "GET", "/ready"))
            health = await ask(app, "GET", "/health")
            opened[0].release(10)
            answered = await asyncio.gather(*waiting)
            again = await post(app, body)
        assert [answer.status for answer in refused] == [503] * 3
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert [answer.status for answer in (health, *answered, again)] == [200] * 4

    run(scenario)


def test_clients_of_a_collector_that_stops_are_told_to_come_back(path):
    async def scenario():
        async with running(lambda: SqliteWriter(f"sqlite:///{path}", "store")) as app:
            pass
        answer = await post(app, json.dumps(documented()).encode())
        assert answer.status == 503
        assert answer.headers["retry-after"]

    run(scenario)


def test_a_client_whom_the_server_waits_for_no_longer_is_told_to_come_back(path):
    async def scenario():
        opened, open_writer = held(path)
        async with running(open_writer) as app:
            waiting = asyncio.create_task(post(app, json.dumps(documented()).encode()))
            await opened[0].arrived()
            waiting.cancel()
            answer = await waiting
            opened[0].release(10)
        assert answer.status == 503
        assert answer.headers["retry-after"]

    run(scenario)


# On a disk that is watched and fails


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


def test_the_answer_comes_after_the_sync(path, disk):
    order: list[str] = []

    async def scenario():
        async with running(lambda: SqliteWriter(f"sqlite:///{path}", "store")) as app:
            for payload in many(20):
                order.clear()
                disk.watch = lambda what, name: order.append(what) if "-wal" in name else None
                answer = await post(app, json.dumps(payload).encode())
                order.append("answer")
                assert answer.status == 200
                assert order[:1] == ["write"]
                assert order[-2:] == ["sync", "answer"]

    run(scenario)


@pytest.mark.parametrize("body", [b'{"type": "sent"}', b"nonsense"])
def test_a_failed_sync_is_never_acknowledged(path, disk, body):
    broken = []

    async def scenario():
        async with running(
            lambda: SqliteWriter(f"sqlite:///{path}", "store"), on_broken=lambda: broken.append(1)
        ) as app:
            disk.fail = lambda what, _: apsw.IOError("fsync") if what == "sync" else None
            answer = await post(app, body)
            disk.fail = lambda *_: None
            later = await post(app, body)
        assert (answer.status, later.status) == (503, 503)

    run(scenario)
    assert broken == [1]


def test_a_full_disk_loses_nothing_that_was_acknowledged(path, disk):
    async def scenario():
        async with running(lambda: SqliteWriter(f"sqlite:///{path}", "store")) as app:
            statuses = []
            for number, payload in enumerate(many(60)):
                full = number % 3 == 2
                disk.fail = lambda what, _, full=full: (
                    apsw.FullError("full") if full and what == "write" else None
                )
                statuses.append((await post(app, json.dumps(payload).encode())).status)
            disk.fail = lambda *_: None
        assert statuses == [200, 200, 503] * 20

    run(scenario)
    assert stored(path) == 40


def test_a_dead_letter_is_logged_when_it_is_kept_and_not_before(caplog):
    letter = DeadLetter(times.now(), "vero", "not JSON", b"nonsense")

    async def scenario():
        async with started(lambda: FailingWriter(StoreFullError("no room"))) as taker:
            with pytest.raises(StoreFullError):
                await taker.commit([], [letter])
            assert not any("dead letter" in line for line in caplog.messages)
            await taker.commit([], [letter])
            assert caplog.messages[-1] == "kept a dead letter of 8 bytes: not JSON"

    run(scenario)
