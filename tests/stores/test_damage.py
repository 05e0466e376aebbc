"""Files that were cut or damaged: whole, or refused; nothing is lost silently."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.sources.store import StoreSource
from tap_vero_segment.stores.base import DeadLetter, StoreError
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.collector import SECRETS, Collector, run_collector
from tests.support.damage import NAME, Kept, copy, cut, flip, leave, read
from tests.support.events import read_events
from tests.support.payloads import documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.store import fill
from tests.support.stored import url_of

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIANTS = rounds(200)
NEW = read_vero(json.dumps(documented("user_created")).encode(), times.now())


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is such a thing, as each copy of a store is synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> tuple[Path, Kept]:
    """What a killed collector left, and what it had acknowledged."""
    folder = tmp_path_factory.mktemp("left")
    # Opening it to see what it has changes nothing but the -shm file, which is made anew.
    return folder, leave(folder)


def outcome(opening) -> str | Kept | None:
    """What a store has, or the line that refuses it."""
    try:
        return opening()
    except (SettingError, StoreError) as error:
        return str(error)
    except apsw.Error:
        return "SQLite's own error"  # in reading the bodies, which nothing but this test does


def is_a_line(found: object) -> bool:
    return isinstance(found, str) and "\n" not in found


def write_and_read(store: Path) -> Kept:
    writer = SqliteWriter(url_of(store), "store")
    try:
        assert writer.write([NEW], []) == 1
    finally:
        writer.close()
    return read(store)


@by_rounds
def test_a_damaged_store_is_whole_or_refused(left, tmp_path):
    """To look at one of them again: ``range(seed, seed + 1)``."""
    folder, kept = left
    told: Counter[str] = Counter()
    for seed in range(VARIANTS):
        chance = random.Random(seed)
        store = copy(folder, tmp_path / "copy")
        file = store.with_name(NAME + chance.choice(["", "", "-wal", "-wal", "-shm"]))
        if chance.random() < 0.4:
            done = cut(file, chance)
        else:
            done = flip(file, chance, chance.choice([1, 1, 2, 8]))
        before = [store.read_bytes(), store.with_name(f"{NAME}-wal").read_bytes()]

        found = outcome(lambda store=store: read(store))
        assert is_a_line(found) or found == kept, f"seed {seed}: {done}"
        assert [store.read_bytes(), store.with_name(f"{NAME}-wal").read_bytes()] == before

        started = outcome(lambda store=store: SqliteWriter(url_of(store), "store").close())
        if started is not None:
            assert is_a_line(started), f"seed {seed}: {done}"
            told["refused at the start"] += 1
            after = [store.read_bytes(), store.with_name(f"{NAME}-wal").read_bytes()]
            assert after == before, f"seed {seed}: {done}"  # nothing that could be saved is gone
            continue
        found = outcome(lambda store=store: write_and_read(store))
        if is_a_line(found):
            told["refused when read or written"] += 1
            continue
        told["whole"] += 1
        assert found.bodies == kept.bodies | {NEW.id: NEW.body}, f"seed {seed}: {done}"
        assert found.letters == kept.letters, f"seed {seed}: {done}"
        assert found.events.pop(NEW.id), f"seed {seed}: {done}"
        assert found.events == kept.events, f"seed {seed}: {done}"
    sys.stdout.write(f"{VARIANTS} damaged stores: {dict(told)}\n")
    assert len(told) > 1  # each of them is met, but the rare one that only reading finds


def first_frame(store: Path) -> None:
    flip(store.with_name(f"{NAME}-wal"), random.Random(1), 1, start=32)


def no_log(store: Path) -> None:
    store.with_name(f"{NAME}-wal").unlink()


def short_log(store: Path) -> None:
    log = store.with_name(f"{NAME}-wal")
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size // 2)


def empty_file(store: Path) -> None:
    store.write_bytes(b"")


def short_file(store: Path) -> None:
    store.write_bytes(store.read_bytes()[: store.stat().st_size // 2])


def damaged_mark(store: Path) -> None:
    flip(store.with_name(f"{NAME}-mark"), random.Random(1), 1)


@pytest.mark.parametrize(
    "damage", [first_frame, no_log, short_log, empty_file, short_file, damaged_mark]
)
def test_a_collector_does_not_start_on_a_damaged_store(left, tmp_path, damage):
    store = copy(left[0], tmp_path / "copy")
    damage(store)
    for command in (["serve", "--port", "0"], ["status"]):
        if damage is short_file and command == ["status"]:
            continue  # which reads the totals only, and they are there
        done = run_collector(*command, "--store", url_of(store), cwd=tmp_path, env=SECRETS)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("vero-collector: store: ")
        assert str(store) in done.stderr


def test_a_tap_does_not_read_on_where_events_are_missing(left, tmp_path):
    store = copy(left[0], tmp_path / "copy")
    short_log(store)
    with pytest.raises(SettingError, match=r"^source: .* newest events are missing"):
        StoreSource(url_of(store))


def test_without_its_mark_a_store_whose_log_was_cut_cannot_be_told_from_an_earlier_one(
    left, tmp_path
):
    """What the mark is for, and what is not promised where power was lost or it was deleted."""
    folder, kept = left
    store = copy(folder, tmp_path / "copy")
    short_log(store)
    store.with_name(f"{NAME}-mark").unlink()

    assert set(read(store).events) < set(kept.events)


@pytest.mark.parametrize("content", [b"", b"\0" * 57])
def test_a_mark_that_never_reached_the_disk_is_none(tmp_path, content):
    store = tmp_path / NAME
    fill(store, many(10))
    store.with_name(f"{NAME}-mark").write_bytes(content)

    assert len(read(store).events) == 10
    SqliteWriter(url_of(store), "store").close()
    assert store.with_name(f"{NAME}-mark").read_bytes().startswith(b"vero-mark 1 ")


def test_a_store_goes_on_once_its_mark_is_deleted(left, tmp_path):
    """The way on that the error names."""
    store = copy(left[0], tmp_path / "copy")
    short_log(store)
    with pytest.raises(SettingError, match="delete that file"):
        SqliteWriter(url_of(store), "store")

    store.with_name(f"{NAME}-mark").unlink()

    assert NEW.id in write_and_read(store).events


# Stores without a mark: a copy that was put back, or a mark that was deleted


def put_back(folder: Path, later: int) -> Path:
    """A copy of a store beside the log of the newer file, as its collector was killed.

    Args:
        folder: To put it into.
        later: How many events came after the copy had been made.
    """
    newer = folder / "newer" / NAME
    some = [
        read_vero(json.dumps(documented() | {"user": {"id": number}}).encode(), times.now())
        for number in range(300 + later)
    ]
    writer = SqliteWriter(url_of(newer), "store")
    for start in range(0, len(some), 20):
        if start == 300:
            subprocess.run(
                [sys.executable, "-m", "apsw", newer, f".backup {folder / NAME}"], check=True
            )
        writer.write(some[start : start + 20], [])
    for suffix in ("-wal", "-shm"):
        shutil.copy(f"{newer}{suffix}", folder)
    writer.close()
    return folder / NAME


@pytest.mark.parametrize("later", [2_200, 4_000])
def test_a_copy_beside_the_log_of_a_newer_file_is_refused_with_the_remedy(tmp_path, later):
    """Their newest events are whole, being in the log; a collector would run and not be read."""
    store = put_back(tmp_path, later)
    before = [store.read_bytes(), store.with_name(f"{NAME}-wal").read_bytes()]

    done = run_collector("serve", "--port", "0", cwd=tmp_path, env=SECRETS)

    assert done.returncode == 1
    checking, refusal = done.stderr.splitlines()
    assert "WARNING vero-events.db has no -mark beside it" in checking
    assert refusal.startswith("vero-collector: store: vero-events.db: the store is damaged: SQLite")
    assert "vero-collector restore --replace FILE" in refusal
    assert [store.read_bytes(), store.with_name(f"{NAME}-wal").read_bytes()] == before

    for suffix in ("-wal", "-shm"):  # what it said to do
        store.with_name(f"{NAME}{suffix}").unlink()
    with Collector(tmp_path) as collector:
        assert len(read_events(collector)) == 300
        assert collector.stop() == 0
        assert "is whole: checked in" in collector.log()
        collector.start()  # there is a mark now
    assert collector.log().count("is whole: checked in") == 1


def execute(store: Path, statements: str) -> None:
    with closing(apsw.Connection(str(store))) as connection:
        connection.execute(statements)


def forget_an_event(store: Path) -> None:
    execute(
        store,
        "DROP TRIGGER keep_chain; DELETE FROM events "
        "WHERE loaded_at = (SELECT loaded_at FROM events ORDER BY loaded_at LIMIT 1 OFFSET 500)",
    )


def change_a_body(store: Path) -> None:
    execute(
        store,
        "UPDATE events SET body = CAST('{}' AS BLOB) "
        "WHERE loaded_at = (SELECT min(loaded_at) FROM events)",
    )


def change_an_index(store: Path) -> None:
    """Have the index of ids miss an event, so that it could be stored once more."""
    connection = apsw.Connection(str(store))
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.pragma("writable_schema", 1)
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'TEXT NOT NULL UNIQUE', 'TEXT NOT NULL') "
        "WHERE name = 'events'; DELETE FROM sqlite_schema WHERE name = 'sqlite_autoindex_events_1'"
    )
    connection.close()


def change_a_letter(store: Path) -> None:
    execute(store, "UPDATE dead_letters SET body = CAST('other' AS BLOB)")


@pytest.mark.parametrize(
    "damage", [forget_an_event, change_a_body, change_an_index, change_a_letter]
)
def test_without_a_mark_all_of_a_store_is_looked_at(tmp_path, damage):
    """With one it is the newest 1,000 events."""
    store = tmp_path / NAME
    fill(store, many(2_500))
    writer = SqliteWriter(url_of(store), "store")
    writer.write([], [DeadLetter(times.now(), "vero", "not JSON", b"nonsense")])
    writer.close()
    damage(store)
    SqliteWriter(url_of(store), "store").close()
    store.with_name(f"{NAME}-mark").unlink()

    with pytest.raises(SettingError, match=r"the store is damaged: .*vero-collector restore"):
        SqliteWriter(url_of(store), "store")


def test_an_empty_store_is_not_said_to_be_checked(tmp_path, caplog):
    for _ in range(2):
        SqliteWriter(url_of(tmp_path / NAME), "store").close()

    assert caplog.text == ""


@pytest.mark.parametrize("where", ["true", "rowid % 3", "NOT rowid % 3", "rowid > {middle}"])
def test_events_that_were_deleted_on_purpose_are_no_damage(tmp_path, where):
    store = tmp_path / NAME
    fill(store, many(90))
    with SqliteReader(url_of(store), "store") as reader:
        before = [json.loads(line) for line in reader.lines(0, None, 1_000)]
        middle = times.from_text(before[45]["loadedAt"])

        execute(store, f"DELETE FROM events WHERE {where.format(middle=middle)}")

        size = len(reader.lines(0, None, 1_000))
        assert size < 90
        reader.high_water()
        for after in before[::7]:
            reader.lines(times.from_text(after["loadedAt"]), middle, 3)
        found = write_and_read(store)
        assert len(found.events) == size + 1
        # Whatever goes missing beside them is told as ever.
        execute(
            store,
            "DROP TRIGGER keep_chain; "
            "DELETE FROM events WHERE loaded_at = (SELECT max(rowid) FROM events)",
        )
        with pytest.raises(StoreError, match="missing"):
            reader.lines(0, None, 1_000)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET call = CAST(replace(CAST(call AS TEXT), '987', '986') AS BLOB)",
        "UPDATE events SET loaded_at = loaded_at + 1",
        "UPDATE events SET call_check = 0",
        "UPDATE events SET previous = previous + 1",
        "UPDATE totals SET last_loaded_at = last_loaded_at + 1",
        "DROP TRIGGER keep_chain; DELETE FROM events",
    ],
)
@pytest.mark.parametrize("which", ["40, 1", "0, 1", "89, 1"])
def test_a_row_that_is_not_as_it_was_written_is_told(tmp_path, change, which):
    store = tmp_path / NAME
    fill(store, many(90))
    if "totals" not in change:
        row = f" WHERE rowid = (SELECT rowid FROM events ORDER BY rowid DESC LIMIT {which})"
        change += row
    execute(store, change.replace("loaded_at = loaded_at + 1", "loaded_at = loaded_at + 100"))

    with pytest.raises((StoreError, SettingError), match="damaged"):
        read(store)
    with pytest.raises(SettingError, match="damaged"):
        SqliteWriter(url_of(store), "store")
