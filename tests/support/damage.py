"""A store that a real collector left when it was killed, and ways to damage its files."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from tap_vero_segment import times
from tap_vero_segment.stores.sqlite.integrity import check_events, translating_errors
from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tests.support.collector import Collector
from tests.support.payloads import many
from tests.support.stored import url_of

if TYPE_CHECKING:
    import random
    from pathlib import Path

NAME = "vero-events.db"
PAGE_SIZE = 8192
AUTO_CHECKPOINT = 1000
"""Pages in the log from which on SQLite folds it into the file (sqlite.org/wal.html, 2.1)."""


class Kept(NamedTuple):
    """What a store has to have.

    Attributes:
        events: The whole track calls by their ``messageId``.
        bodies: The bodies that were posted, each with its ``messageId``.
        letters: The bodies of the dead letters.
    """

    events: dict[str, Any]
    bodies: dict[str, bytes]
    letters: list[bytes]


def leave(folder: Path) -> Kept:
    """Fill a store, in its file and its log, by a collector that is killed in the end."""
    payloads = many(400)
    bodies = [
        json.dumps(payload | {"long": "x" * (number % 4 // 3 * 50 * number)}).encode()
        for number, payload in enumerate(payloads)
    ]
    letters = [b"nonsense %d " % number * 300 for number in range(10)]
    with Collector(folder) as collector:
        for body in [*bodies[:300], *letters[:5]]:
            collector.post(body)
        assert collector.stop() == 0  # which folds the log into the file
        collector.start()
        for body in [*letters[5:], *bodies[300:]]:
            collector.post(body)
        collector.kill()
    # SQLite has not folded the log into the file by itself, so that damage to it costs events.
    assert (folder / f"{NAME}-wal").stat().st_size < AUTO_CHECKPOINT * PAGE_SIZE
    kept = read(folder / NAME)
    assert sorted(kept.bodies.values()) == sorted(bodies)
    assert sorted(kept.letters) == sorted(letters)
    assert len(kept.events) == 400
    return kept


def read(store: Path) -> Kept:
    """Read all that a store has.

    Raises:
        SettingError: It is refused when it is opened.
        StoreError: It is refused when it is read.
    """
    with SqliteReader(url_of(store), "store") as reader:
        mark = reader.high_water()
        lines: list[bytes] = []
        after = 0
        while page := reader.lines(after, mark, 150):
            lines += page
            after = times.from_text(json.loads(page[-1])["loadedAt"])
        letters = [kept.letter.body for kept in reader.dead_letters(0, 1_000)]
    calls = [json.loads(line) for line in lines]
    return Kept({call["messageId"]: call for call in calls}, _bodies(store), letters)


def _bodies(store: Path) -> dict[str, bytes]:
    connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        with translating_errors():
            check_events(connection, 0)
        return dict(connection.execute("SELECT id, body FROM events").fetchall())
    finally:
        connection.close()


def copy(source: Path, target: Path) -> Path:
    """Copy a store with all that lies beside it; return its file."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for suffix in ("", "-wal", "-shm", "-mark"):
        shutil.copy(source / f"{NAME}{suffix}", target)
    return target / NAME


def flip(path: Path, chance: random.Random, bits: int, start: int = 0) -> str:
    """Turn bits over; return what was done."""
    content = bytearray(path.read_bytes())
    places = [chance.randrange(start * 8, len(content) * 8) for _ in range(bits)]
    for place in places:
        content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)
    return f"bits {places} of {path.name}"


def cut(path: Path, chance: random.Random) -> str:
    """Cut a file short; return what was done."""
    size = path.stat().st_size
    # As often at the end of a page as anywhere.
    length = chance.choice([chance.randrange(size), chance.randrange(size) // 8192 * 8192])
    with path.open("r+b") as file:
        file.truncate(length)
    return f"{path.name} cut at {length} of {size}"
