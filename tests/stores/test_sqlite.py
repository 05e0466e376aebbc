from __future__ import annotations

import json
import os
import random
import shutil
import stat
from concurrent.futures import wait
from contextlib import contextmanager
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.base import (
    DeadLetter,
    Event,
    StoreBrokenError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    Summary,
    Total,
)
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.stores.sqlite import connection, pruning
from tap_vero_segment.stores.sqlite.connection import open_to_read, open_to_write
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.disk import Disk
from tests.support.mounts import make_read_only, small_disk
from tests.support.payloads import documented, many
from tests.support.racing import open_together, processes
from tests.support.store import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOUR = 3600 * times.SECOND
NOW = times.from_text("2026-11-23T09:24:00Z")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vero-events.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def writer(url: str) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(url, "store")
    yield writer
    writer.close()


@pytest.fixture
def reader(writer: SqliteWriter, url: str) -> Iterator[SqliteReader]:
    """A reader beside the writer."""
    with SqliteReader(url, "store") as reader:
        yield reader


def events(count: int, seed: int = 7) -> list[Event]:
    return [read_vero(json.dumps(payload).encode(), NOW) for payload in many(count, seed)]


def read(reader: SqliteReader, after: int = 0) -> list[dict]:
    return [json.loads(line) for line in reader.lines(after, None, 100_000)]


def loaded(reader: SqliteReader) -> list[str]:
    return [event["loadedAt"] for event in read(reader)]


def scanned(path: Path) -> list[Total]:
    """The totals of a scan."""
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY) as store:
        rows = store.execute(
            "SELECT collection, count(*), min(loaded_at), max(loaded_at) FROM events "
            "GROUP BY collection ORDER BY collection"
        ).fetchall()
    return [Total(*row) for row in rows]


def strictly_rises(values: list) -> bool:
    return all(one < other for one, other in pairwise(values))


# Writing


def test_what_was_written_is_read_in_the_order_of_writing(writer, reader):
    expected = events(50)
    for start in range(0, 50, 7):
        assert writer.write(expected[start : start + 7], []) == len(expected[start : start + 7])

    found = read(reader)

    assert [event["messageId"] for event in found] == [event.id for event in expected]
    for event, line in zip(expected, found, strict=True):
        assert line == json.loads(event.call) | {"loadedAt": line["loadedAt"]}


def test_an_event_is_stored_once(writer, reader):
    one, two, three = events(3)

    assert writer.write([one, two, one], []) == 2
    assert writer.write([two, three, three, one], []) == 1
    assert writer.write([one, two, three], []) == 0

    assert [event["messageId"] for event in read(reader)] == [one.id, two.id, three.id]
    assert sum(total.events for total in reader.summary().totals) == 3


def test_a_clock_that_steps_back_does_not_take_loaded_at_back(url):
    clock = iter([NOW, NOW - HOUR, NOW - HOUR + 5, NOW + 7, NOW + 2 * HOUR])
    writer = SqliteWriter(url, "store", clock=lambda: next(clock, NOW + 2 * HOUR))
    groups = [events(10, seed) for seed in range(5)]
    for number, group in enumerate(groups):
        numbered = [event._replace(id=f"{number}-{event.id}") for event in group]
        assert writer.write(numbered, []) == 10
    writer.close()

    with SqliteReader(url, "store") as reader:
        found = loaded(reader)
    assert len(found) == 50
    assert strictly_rises(found)


def test_a_clock_that_stands_still_gives_each_event_a_time_of_its_own(url):
    writer = SqliteWriter(url, "store", clock=lambda: NOW)
    for event in events(300):
        writer.write([event], [])
    writer.close()

    with SqliteReader(url, "store") as reader:
        found = loaded(reader)
    assert found[0] == times.to_text(NOW)
    assert len(found) == 300
    assert strictly_rises(found)


def test_loaded_at_does_not_go_back_in_a_later_process_either(url):
    for number, clock in enumerate([NOW, NOW - HOUR]):
        writer = SqliteWriter(url, "store", clock=lambda clock=clock: clock)
        writer.write([events(2)[number]], [])
        writer.close()

    with SqliteReader(url, "store") as reader:
        assert strictly_rises(loaded(reader))
        assert len(loaded(reader)) == 2


def test_a_dead_letter_is_kept_once(writer, path, reader):
    letter = DeadLetter(NOW, "vero", "not JSON", b"nonsense")
    writer.write([], [letter, letter])
    writer.write([], [letter._replace(received_at=NOW + 1, reason="told otherwise")])
    writer.write([], [letter._replace(body=b"other nonsense"), letter._replace(input="other")])

    assert reader.summary().dead_letters == 3
    with apsw.Connection(str(path)) as store:
        rows = store.execute("SELECT received_at, input, reason, body FROM dead_letters")
        assert rows.fetchall()[0] == tuple(letter)


def test_the_totals_are_those_of_a_scan(writer, reader, path):
    chance = random.Random(5)
    pool = events(400)
    for _ in range(60):
        writer.write(chance.choices(pool, k=chance.randint(0, 30)), [])

    assert reader.summary().totals == scanned(path)
    assert len(scanned(path)) == 7


def test_a_group_is_stored_whole_or_not_at_all(writer, reader):
    good, bad, other = events(3)
    letter = DeadLetter(NOW, "vero", "not JSON", b"nonsense")

    with pytest.raises(StoreError) as raised:
        writer.write([good, bad._replace(id=None)], [letter])

    assert good.id not in str(raised.value)
    assert read(reader) == []
    assert reader.summary() == Summary([], 0, 0)
    assert writer.write([good, other], [letter]) == 2


def test_a_large_body_is_kept_as_it_is(writer, path):
    body = json.dumps(documented() | {"a": "ü" * 250_000}, ensure_ascii=False).encode()

    writer.write([read_vero(body, NOW)], [DeadLetter(NOW, "vero", "not JSON", b"\xff\0" * 250_000)])

    with apsw.Connection(str(path)) as store:
        assert store.execute("SELECT body FROM events").get == body
        assert store.execute("SELECT body FROM dead_letters").get == b"\xff\0" * 250_000


def test_a_locked_store_is_busy_and_nothing_is_stored(url, path, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_TIMEOUT", 20)
    writer = SqliteWriter(url, "store")
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreBusyError):
        writer.write(events(1), [])
    with pytest.raises(StoreBusyError):
        writer.probe()
    with SqliteReader(url, "store") as reader:
        assert read(reader) == []

    other.execute("ROLLBACK")
    assert writer.write(events(1), []) == 1
    writer.probe()
    writer.close()
    other.close()


# Several at once


def test_two_processes_may_write_one_store(path, url):
    payloads = many(1_200)
    SqliteWriter(url, "store").close()
    found: list[dict] = []

    with processes(2) as pool, SqliteReader(url, "store") as reader:
        writing = [
            pool.submit(fill, path, payloads[:800], 3),
            pool.submit(fill, path, payloads[400:], 5),  # a third of it, both write
        ]
        while True:
            ended = not wait(writing, timeout=0).not_done
            after = times.from_text(found[-1]["loadedAt"]) if found else 0
            page = [json.loads(line) for line in reader.lines(after, None, 50)]
            found += page
            if ended and not page:
                break
        ids = [future.result() for future in writing]
        assert found == read(reader)
        assert sum(total.events for total in reader.summary().totals) == 1_200

    # Whoever read along has seen all of it, once, in the order of commits.
    assert strictly_rises([event["loadedAt"] for event in found])
    order = {event["messageId"]: place for place, event in enumerate(found)}
    assert len(order) == len(found) == 1_200
    for own in (ids[0][:400], ids[1][400:]):
        assert strictly_rises([order[event_id] for event_id in own])


def test_several_processes_may_make_the_store_together(tmp_path):
    count = 4
    with processes(count) as pool:
        for attempt in range(25):
            start = tmp_path / str(attempt)
            start.mkdir()
            opening = [
                pool.submit(open_together, start, number, count, tmp_path / f"{attempt}.db")
                for number in range(count)
            ]
            for future in opening:
                future.result(timeout=60)
            with SqliteReader(f"sqlite:///{tmp_path}/{attempt}.db", "store") as reader:
                assert reader.summary() == Summary([], 0, 0)


def test_a_reader_sees_what_is_written_after_it_was_opened(writer, reader):
    assert reader.high_water() is None
    assert read(reader) == []
    marks = []
    for event in events(5):
        writer.write([event], [])
        marks.append(reader.high_water())

    assert strictly_rises(marks)
    assert marks[-1] == times.from_text(loaded(reader)[-1])


def test_a_page_is_bounded_at_both_ends_and_in_size(writer, reader):
    writer.write(events(20), [])
    found = loaded(reader)
    instants = [times.from_text(text) for text in found]

    def page(after: int, until: int | None, limit: int) -> list[str]:
        return [json.loads(line)["loadedAt"] for line in reader.lines(after, until, limit)]

    assert page(instants[3], None, 100) == found[4:]
    assert page(instants[3] - 1, instants[7], 100) == found[3:8]
    assert page(0, instants[7], 5) == found[:5]
    assert page(instants[7], instants[7], 5) == []
    assert page(times.EARLIEST, times.LATEST, 100) == found


# Pruning


class Pruning:
    """Prunes on a connection of its own, and sees what that does.

    Attributes:
        looks: For each look at events to come, whether it held the write lock.
        overtaken: Called between a page's looks and its deletion.
    """

    def __init__(self, path: Path) -> None:
        self.connection = open_to_write(path, "store")
        self.connection.exec_trace = self._trace
        self.looks: list[bool] = []
        self.overtaken: Callable[[], None] = lambda: None

    def prune(self, until: int) -> int:
        return pruning.prune(self.connection, self._transaction, times.LATEST, until)

    def _trace(self, *statement: Any) -> bool:
        _, sql, _ = statement
        if "GROUP BY collection" in sql:
            self.looks.append(self.connection.in_transaction)
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.overtaken()
        self.connection.execute("BEGIN IMMEDIATE")
        yield
        self.connection.execute("COMMIT")


@pytest.fixture
def pruner(writer: SqliteWriter, path: Path) -> Iterator[Pruning]:
    pruner = Pruning(path)
    yield pruner
    pruner.connection.close()


def numbered(number: int, count: int) -> list[Event]:
    """Events that differ from those of another number."""
    return [event._replace(id=f"{number}-{event.id}") for event in events(count)]


def of(collection: str, some: list[Event]) -> list[Event]:
    return [event for event in some if event.collection == collection]


def without(collection: str, some: list[Event]) -> list[Event]:
    return [event for event in some if event.collection != collection]


def test_a_rare_collection_is_looked_for_once_and_under_no_lock(
    writer, reader, path, pruner, monkeypatch
):
    monkeypatch.setattr(pruning, "PAGE", 50)
    monkeypatch.setattr(pruning, "SLICE", 200)
    first, second, *_ = of("email_bounced", events(40))
    for group in (
        [first],
        without("email_bounced", numbered(1, 6_000)),
        [second],
        without("email_bounced", numbered(2, 500)),
    ):
        writer.write(group, [])

    assert pruner.prune(times.LATEST) == 50
    [total] = [each for each in reader.summary().totals if each.collection == "email_bounced"]
    assert total.events == 1
    assert 20 < len(pruner.looks) < 60
    assert not any(pruner.looks)
    for _ in range(60):
        pruner.looks.clear()
        assert pruner.prune(times.LATEST) == 50
        assert len(pruner.looks) <= 1
        assert total in reader.summary().totals
    assert reader.summary().totals == scanned(path)


def test_a_collection_that_ends_is_not_looked_for(writer, reader, path, pruner, monkeypatch):
    monkeypatch.setattr(pruning, "PAGE", 10)
    writer.write([*of("email_bounced", events(40))[:1], *of("email_sent", events(400))], [])

    assert pruner.prune(times.LATEST) == 10

    assert len(pruner.looks) == 1
    assert reader.summary().totals == scanned(path)


def test_a_prune_may_be_overtaken_by_others(writer, reader, path, pruner, monkeypatch):
    """By writers, and by another prune, which deletes what this one has found."""
    monkeypatch.setattr(pruning, "PAGE", 7)
    chance = random.Random(3)
    numbers = count()

    def write() -> None:
        made = numbered(next(numbers), 40)
        writer.write(chance.sample(made, chance.randint(1, 40)), [])

    def overtaken() -> None:
        for _ in range(chance.randint(0, 3)):
            if chance.random() < 0.4:
                write()
            else:
                writer.prune(times.LATEST, chance.choice([middle, times.LATEST]))

    pruner.overtaken = overtaken
    for _ in range(40):
        write()
        at = [times.from_text(text) for text in loaded(reader)]
        middle = at[len(at) // 2]
        until = chance.choice([middle, times.LATEST])
        if not pruner.prune(until):
            assert reader.lines(0, until, 1) == []
        assert reader.summary().totals == scanned(path)
        if chance.random() < 0.2:
            while writer.prune(times.LATEST):
                pass
        assert reader.summary().totals == scanned(path)
        write()
        assert reader.summary().totals == scanned(path)


def test_the_room_of_what_was_pruned_is_used_again(writer, path):
    sizes = []
    for number in range(4):
        writer.write(numbered(number, 3_000), [])
        while writer.prune(times.LATEST):
            pass
        sizes.append(path.stat().st_size)
    assert max(sizes) < sizes[0] * 1.2


def test_a_letter_is_resolved_whole_or_not_at_all(writer, reader):
    writer.write([], [DeadLetter(NOW, "vero", "not JSON", b"nonsense")])
    good, bad = events(2)

    with pytest.raises(StoreError):
        writer.resolve(1, [good, bad._replace(id=None)])

    assert reader.summary().dead_letters == 1
    assert read(reader) == []
    assert writer.resolve(1, [good]) == 1
    assert reader.summary().dead_letters == 0


# On disk


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


def test_every_commit_is_synced_once(url, disk):
    done: list[str] = []
    writer = SqliteWriter(url, "store")
    disk.watch = lambda what, name: done.append(what) if "-wal" in name else None
    for start in range(0, 100, 10):
        done.clear()
        writer.write(events(100)[start : start + 10], [])
        assert done[-1] == "sync"
        assert done.count("sync") == 1
    writer.close()


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (apsw.FullError, StoreFullError),
        (apsw.IOError, StoreBrokenError),
        (apsw.CorruptError, StoreBrokenError),
        (apsw.ReadOnlyError, StoreError),
    ],
)
def test_an_error_of_the_disk_has_its_meaning_and_stores_nothing(url, disk, error, meaning):
    writer = SqliteWriter(url, "store")
    disk.fail = lambda what, _: error("told by the disk") if what == "write" else None

    for failing in (lambda: writer.write(events(3), []), writer.probe):
        with pytest.raises(StoreError) as raised:
            failing()
        assert type(raised.value) is meaning

    disk.fail = lambda *_: None
    assert writer.write(events(3), []) == 3
    writer.close()


def test_what_a_killed_writer_left_unsynced_is_synced_before_it_counts(tmp_path, path, url, disk):
    """It was written and not synced when its writer was killed; the next one reads it as stored."""
    left = tmp_path / "left"
    left.mkdir()
    writer = SqliteWriter(url, "store")

    def killed(what: str, name: str) -> None:
        if what == "sync" and "-wal" in name:
            for file in (path.name, f"{path.name}-wal"):
                shutil.copy(path.with_name(file), left)

    disk.fail = killed
    writer.write(events(1), [])
    writer.close()
    disk.fail = lambda *_: None
    synced: list[str] = []
    disk.watch = lambda what, name: synced.append(name) if what == "sync" else None

    again = SqliteWriter(f"sqlite:///{left}/{path.name}", "store")

    assert [name for name in synced if name.endswith("-wal")]
    assert again.write(events(1), []) == 0
    again.close()


def test_a_reader_cannot_write(writer, path):
    reading = open_to_read(path, "store")

    with pytest.raises(apsw.ReadOnlyError):
        reading.execute("DELETE FROM events")
    reading.close()


def test_reading_changes_nothing_on_disk(tmp_path, path, url):
    fill(path, many(100))
    before = path.read_bytes()

    with SqliteReader(url, "store") as reader:
        assert len(read(reader)) == 100
        reader.summary()

    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "vero-events.db"
        fill(path, many(3))
        make_read_only(disk)

        for opening in (SqliteReader, SqliteWriter):
            with pytest.raises(SettingError, match=r"source: .*vero-events\.db"):
                opening(f"sqlite:///{path}", "source")


def test_a_damaged_store_is_an_error_and_no_short_answer(path, url):
    fill(path, many(2_000))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4)
        file.write(b"\xff" * (size // 2))

    with SqliteReader(url, "store") as reader, pytest.raises(StoreError):
        read(reader)


@pytest.mark.parametrize("size", [20, 20_000])
def test_nothing_of_a_discarded_letter_stays_in_the_file(path, url, size):
    writer = SqliteWriter(url, "store")
    body = b"someone@example.com" * (size // 19)
    writer.write([], [DeadLetter(0, "vero", "not JSON", body)])
    writer.write([], [DeadLetter(0, "vero", "not JSON", b"another")])
    writer.close()
    assert b"someone@example.com" in path.read_bytes()

    writer = SqliteWriter(url, "store")
    assert writer.discard([1]) == []
    writer.close()

    assert b"someone@example.com" not in path.read_bytes()
    assert b"another" in path.read_bytes()


def modes(path: Path) -> dict[str, int]:
    return {
        file.name.removeprefix(path.name): stat.S_IMODE(file.stat().st_mode)
        for file in path.parent.glob(f"{path.name}*")
    }


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_files_are_their_owners_until_he_opens_them(path, url, mask):
    """Also those that SQLite makes anew at each start."""
    before = os.umask(mask)
    try:
        for mode in (0o600, 0o660):
            writer = SqliteWriter(url, "store")
            writer.write(events(1), [])
            found = modes(path)
            writer.close()

            assert found == {"": mode, "-wal": mode, "-shm": mode, "-mark": mode}
            for file in (path, path.with_name(f"{path.name}-mark")):
                file.chmod(0o660)
    finally:
        os.umask(before)


def test_a_store_behind_a_link_is_its_owners_too(tmp_path, path, url):
    (tmp_path / "disk").mkdir()
    path.symlink_to(tmp_path / "disk" / "events.db")

    SqliteWriter(url, "store").close()

    assert stat.S_IMODE((tmp_path / "disk" / "events.db").stat().st_mode) == 0o600


def test_commits_survive_a_loss_of_power(path):
    opened = open_to_write(path, "store")

    assert opened.pragma("journal_mode") == "wal"
    assert opened.pragma("synchronous") == 2  # FULL
    opened.close()


@pytest.mark.parametrize("name", ["plain.db", "with space.db", "ümläut.db", "a?b#c%20.db", "x"])
def test_a_url_names_the_file_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{name}", f"sqlite:///{tmp_path}/{name}"):
        writer = open_writer(url, "store")
        writer.write(events(1), [])
        writer.close()
        with open_reader(url, "store") as reader:
            assert len(reader.lines(0, None, 10)) == 1

    made = {entry.name for entry in tmp_path.iterdir()}
    assert name in made
    assert made <= {name, f"{name}-mark", f"{name}-wal", f"{name}-shm"}


def test_a_missing_folder_is_made_by_a_writer_and_not_by_a_reader(tmp_path):
    url = f"sqlite:///{tmp_path}/some/folder/vero.db"

    with pytest.raises(SettingError, match="source: "):
        open_reader(url, "source")
    assert list(tmp_path.iterdir()) == []
    open_writer(url, "store").close()
    open_reader(url, "source").close()
