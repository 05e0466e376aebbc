"""Finding events: a search finds what a plain look at every event finds, whatever has happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import psycopg
import pytest

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT, COLLECTIONS
from tap_vero_segment.recipients import address, user_id
from tap_vero_segment.stores.base import Event, Search, SearchPage
from tap_vero_segment.stores.erasures import Deletion
from tap_vero_segment.stores.open import backup, open_reader, repair_clock, restore
from tap_vero_segment.stores.postgres.connection import READER_ROLE
from tap_vero_segment.stores.search import find, index
from tap_vero_segment.stores.search.keys import PARTS, keys_wanted
from tap_vero_segment.track import TrackCall, encode
from tests.stores.test_any_store import prune_all, read
from tests.support.rounds import by_rounds, rounds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.stores.base import Reader, Writer
    from tap_vero_segment.stores.search.index import Block, Index, WritableIndex
    from tap_vero_segment.stores.search.keys import Key

START = times.from_text("2026-11-01T00:00:00Z")
PEOPLE = 12
NUMBER = "15550000001"
numbers = count()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(index, "BLOCK", 20)


def event(chance: random.Random) -> Event:
    """An event of one of a few people and campaigns, written in one of several ways."""
    person = chance.randrange(PEOPLE)
    spelt = chance.choice(["Person{}@Example.com", "person{}@example.com", " person{}@example.com"])
    where = chance.choice(["traits", "sent_to", "anonymous", "text", "number"])
    to = spelt.format(person)
    campaign = chance.randrange(5)
    properties: dict[str, Any] = {"campaign_name": f"Campaign {campaign}"}
    if chance.random() < 0.8:
        properties["campaign_id"] = campaign if chance.random() < 0.5 else str(campaign)
    if chance.random() < 0.8:
        properties["email_id"] = chance.choice([f"mail-{person}@veromail", person])
    if where == "sent_to":
        properties["campaign_sent_to"] = to
    if where == "number":
        properties["phone_number"] = chance.choice(["+1 (555) 000-0001", NUMBER])
    if where == "text":
        properties["emailAddress"] = f'A "Person" <{to.strip()}>'
    happened = times.to_text(START + chance.randrange(30) * 86_400 * times.SECOND)
    name = f"event-{next(numbers)}"
    call = TrackCall(
        message_id=name,
        event=chance.choice(COLLECTIONS).event,
        user_id=None if where == "anonymous" else str(person),
        anonymous_id=to if where == "anonymous" else None,
        timestamp=happened,
        received_at=happened,
        context={"traits": {"email": to}} if where == "traits" else None,
        properties=properties,
    )
    slug = BY_EVENT[call.event].stream
    return Event(name, slug, times.from_text(happened), encode(call), "vero", None)


def some_search(chance: random.Random, calls: list[dict[str, Any]]) -> Search:
    person, campaign = chance.randrange(PEOPLE + 1), chance.randrange(6)
    given = {
        "recipient": chance.choice([f"PERSON{person}@example.COM", "+1-555-000-0001"]),
        "user_id": str(person),
        "email_id": chance.choice([f"mail-{person}@veromail", str(person)]),
        "campaign": chance.choice([f"campaign {campaign}", f" CAMPAIGN {campaign}", str(campaign)]),
        "id": chance.choice(calls)["messageId"] if calls else "event",
        "text": chance.choice(
            [f"Person{person}@example.com", str(person), f"Campaign {campaign}", NUMBER, "event-7"]
        ),
        "collection": chance.choice(COLLECTIONS).stream,
        "since": START + chance.randrange(30) * 86_400 * times.SECOND,
        "until": START + chance.randrange(30) * 86_400 * times.SECOND,
    }
    fields = chance.sample(sorted(given), chance.choice([0, 1, 1, 1, 2, 2, 3]))
    return Search(**{name: given[name] for name in fields})


def recipients(call: dict[str, Any]) -> set[str]:
    """Whom an event of :func:`event` went to."""
    properties = call["properties"]
    holders = [
        call.get("context", {}).get("traits", {}).get("email"),
        call.get("anonymousId"),
        properties.get("campaign_sent_to"),
        properties.get("emailAddress", "").partition("<")[2].rstrip(">"),
    ]
    number = [NUMBER] if "phone_number" in properties else []
    return {each.strip().lower() for each in holders if each} | set(number)


def fits(call: dict[str, Any], search: Search) -> bool:
    """Say plainly whether an event of :func:`event` is looked for."""
    properties = call["properties"]
    campaigns = {properties["campaign_name"].lower(), str(properties.get("campaign_id", "none"))}
    has = {
        "recipient": lambda text: (
            "".join(each for each in text.lower() if "@" in text or each.isdigit())
            in recipients(call)
        ),
        "user_id": lambda text: call.get("userId") == text,
        "email_id": lambda text: str(properties.get("email_id", "none")) == text,
        "campaign": lambda text: text.strip().lower() in campaigns,
        "id": lambda text: call["messageId"] == text,
    }
    happened = times.from_text(call["timestamp"])
    given = search._asdict()
    return (
        all(test(given[name]) for name, test in has.items() if given[name] is not None)
        and (search.text is None or any(test(search.text) for test in has.values()))
        and (search.collection is None or BY_EVENT[call["event"]].stream == search.collection)
        and (search.since is None or happened >= search.since)
        and (search.until is None or happened < search.until)
    )


def older_pages(reader: Reader, search: Search, limit: int) -> Iterator[SearchPage]:
    before = None
    while True:
        page = reader.search(search, before=before, limit=limit)
        yield page
        if page.older is None:
            return
        before = page.older


def newer_pages(reader: Reader, search: Search, limit: int) -> Iterator[SearchPage]:
    after: int | None = 0
    while after is not None:
        page = reader.search(search, after=after, limit=limit)
        yield page
        after = page.newer


def found_by(reader: Reader, search: Search, limit: int = 10_000) -> list[dict[str, Any]]:
    """All that a search finds, the newest first, page by page."""
    pages = list(older_pages(reader, search, limit))
    assert all(len(page.lines) <= limit for page in pages)
    return [json.loads(line) for page in pages for line in page.lines]


def check(reader: Reader, chance: random.Random, searches: int = 6) -> None:
    calls = read(reader)
    for _ in range(searches):
        search = some_search(chance, calls)
        limit = chance.choice([max(1, len(calls) // 50), 10_000])
        expected = [call for call in calls if fits(call, search)][::-1]
        assert found_by(reader, search, limit) == expected, search
        newer = [page.lines for page in newer_pages(reader, search, limit)]
        assert [json.loads(line) for page in newer[::-1] for line in page] == expected, search
        if expected:
            middle = times.from_text(chance.choice(expected)["loadedAt"])
            [page] = [reader.search(search, before=middle, limit=10_000)]
            assert [json.loads(line) for line in page.lines] == [
                call for call in expected if times.from_text(call["loadedAt"]) < middle
            ][: len(page.lines)]


def erase(writer: Writer, reader: Reader, search: Search) -> None:
    """Erase whom a search finds."""
    digest = writer.erased_people().digest
    whose = digest(user_id(search.user_id) if search.user_id else address(search.recipient or ""))
    writer.begin_erasure([whose])
    writer.erase(
        [
            Deletion(times.from_text(call["loadedAt"]), call["messageId"], whose)
            for call in found_by(reader, search)
        ]
    )
    writer.finish_erasures([whose])


def build_all(writer: Writer) -> None:
    while writer.build_index():
        pass


def blocks_of(writer: Writer) -> list[Block]:
    return index_of(writer).blocks()


def index_of(writer: Any) -> WritableIndex:
    """The index, as the writer builds it."""
    found: list[WritableIndex] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("sqlite", "postgres"):
            name = f"tap_vero_segment.stores.{module}.writer.build"
            patch.setattr(name, lambda built, _rest: found.append(built))
        writer.build_index()
    return found[0]


@by_rounds
@pytest.mark.parametrize("seed", range(rounds(20)))
def test_a_search_finds_what_a_look_at_every_event_finds(
    writer, reader, url, seed, monkeypatch, tmp_path
):
    chance = random.Random(seed)
    monkeypatch.setattr(find, "SEARCHED", chance.choice([5, 20_000]))
    monkeypatch.setattr(index, "SPAN", chance.choice([1 << 40, 1 << 13]))
    for _ in range(8):
        writer.write([event(chance) for _ in range(chance.randrange(40))], [])
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                for _ in range(chance.randrange(4)):
                    writer.build_index()
            case 4:
                erase(writer, reader, Search(user_id=str(chance.randrange(PEOPLE))))
            case 5:
                prune_all(writer, START + chance.randrange(8) * 86_400 * times.SECOND)
            case 6 if url.startswith("sqlite"):
                copy = f"sqlite:///{tmp_path}/{chance.random()}.db"
                backup(url, "store", tmp_path / "copy")
                restore(copy, "store", tmp_path / "copy", replace=False)
                (tmp_path / "copy").unlink()
                with open_reader(copy, "store") as restored:
                    check(restored, random.Random(seed), 4)
        check(reader, chance, 2)
    build_all(writer)
    check(reader, chance)
    assert len(blocks_of(writer)) > 2 or len(read(reader)) < 60


def test_a_search_looks_at_few_events(writer, reader, monkeypatch):
    chance = random.Random(1)
    writer.write([event(chance) for _ in range(500)], [])
    build_all(writer)
    monkeypatch.setattr(find, "SEARCHED", 100)

    for search in (Search(recipient="person3@example.com"), Search(collection="email_bounced")):
        page = reader.search(search, limit=100)
        assert page.searched_to is page.older is None
        assert [json.loads(line) for line in page.lines] == [
            call for call in read(reader)[::-1] if fits(call, search)
        ]
    # No index leads to a time of day: it goes on where it broke off.
    day = START + 15 * 86_400 * times.SECOND
    page = reader.search(Search(since=day, until=day), limit=100)
    assert (page.lines, page.older) == ([], page.searched_to)
    assert page.searched_to == times.from_text(read(reader)[-100]["loadedAt"])
    # Blocks of another time are not even looked at.
    page = reader.search(Search(since=START + 40 * 86_400 * times.SECOND), limit=100)
    assert page == SearchPage([], None, None)


def entries_of(built: Index, keys: set[Key]) -> int:
    """How many entries there are of some keys, in all blocks."""
    found = 0
    for block in built.blocks():
        for part, begins in keys:
            number = block.number * PARTS + part
            entries = index.read_part(number, built.parts([number]))
            found += sum(entry // index.SPAN == begins for entry in entries or ())
    return found


def keys_of_person(person: int) -> set[Key]:
    search = Search(recipient=f"person{person}@example.com", user_id=str(person))
    return {key for keys in keys_wanted(search) for key in keys}


def test_an_erased_person_leaves_nothing_in_the_index(writer, reader, url):
    chance = random.Random(2)
    writer.write([event(chance) for _ in range(300)], [])
    build_all(writer)
    built = index_of(writer)
    before = len(blocks_of(writer))
    assert entries_of(built, keys_of_person(3)) > 10
    others = entries_of(built, keys_of_person(4))
    gone = [
        begins * index.SPAN + times.from_text(call["loadedAt"]) - block.first
        for block in blocks_of(writer)
        for call in read(reader)
        if call.get("userId") == "3"
        and block.after < times.from_text(call["loadedAt"]) <= block.until
        for _, begins in keys_of_person(3)
    ]

    erase(writer, reader, Search(user_id="3"))
    erase(writer, reader, Search(recipient="person3@example.com"))

    assert entries_of(built, keys_of_person(3)) == 0
    assert entries_of(built, keys_of_person(4)) == others
    assert len(blocks_of(writer)) == before
    check(reader, chance)
    assert writer.scrub() is None
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///")).read_bytes()
        assert not [entry for entry in gone if index.pack([entry]) in file]


@pytest.mark.parametrize("deleted", ["erased", "pruned", "built"])
def test_a_block_of_events_that_are_deleted_meanwhile_is_not_kept(
    writer, open_writer, reader, deleted
):
    chance = random.Random(3)
    writer.write([event(chance) for _ in range(50)], [])
    other = open_writer()
    done = []

    def meanwhile() -> None:
        if done:
            return
        done.append(deleted)
        if deleted == "erased":
            erase(other, reader, Search(user_id="3"))
        elif deleted == "pruned":
            prune_all(other, START + 5 * 86_400 * times.SECOND)
        else:
            build_all(other)

    assert not writer.build_index(meanwhile)
    build_all(writer)

    if deleted == "erased":
        assert entries_of(index_of(writer), keys_of_person(3)) == 0
    ends = sorted((block.after, block.until) for block in blocks_of(writer))
    assert ends
    assert all(one[1] == following[0] for one, following in pairwise(ends))
    check(reader, chance)


def damage(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with closing(apsw.Connection(url.removeprefix("sqlite:///"))) as connection:
            connection.execute(statement)
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(b"SET search_path TO vero_collector")
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE search_parts SET checksum = checksum + 1",
        "DELETE FROM search_parts WHERE number % 3 = 0",
        "UPDATE search_blocks SET until = until + 1000000000 WHERE number = 2",
        "UPDATE search_blocks SET newest = oldest - 1",
        "DELETE FROM search_blocks WHERE number < 4",
    ],
)
def test_a_damaged_index_hides_no_event(writer, reader, url, statement):
    chance = random.Random(4)
    writer.write([event(chance) for _ in range(150)], [])
    build_all(writer)
    damage(url, statement)

    check(reader, chance)
    writer.repair_index()
    build_all(writer)
    assert writer.repair_index() == 0
    assert len(blocks_of(writer)) >= 7
    check(reader, chance)
    # What a damaged block has of erased people goes with it.
    damage(url, statement)
    erase(writer, reader, Search(user_id="3"))
    build_all(writer)
    assert entries_of(index_of(writer), keys_of_person(3) - keys_of_person(4)) <= 10
    check(reader, chance)


def test_the_index_follows_a_repaired_clock(open_writer, url):
    chance = random.Random(5)
    ahead = 0
    writer = open_writer(lambda: times.now() + ahead)
    writer.write([event(chance) for _ in range(50)], [])
    build_all(writer)
    ahead = 70 * 365 * 86_400 * times.SECOND
    writer.write([event(chance) for _ in range(90)], [])
    build_all(writer)
    writer.close()

    assert repair_clock(url, "store") == 90

    with open_reader(url, "store") as reader:
        check(reader, chance)
        writer = open_writer()
        build_all(writer)
        check(reader, chance)
        assert max(block.until for block in blocks_of(writer)) <= times.now()


_BUILD = """
import sys
from tap_vero_segment.stores.open import open_writer
from tap_vero_segment.stores.search import index
index.BLOCK = 20
writer = open_writer(sys.argv[1], "store")
print("ready", flush=True)
while writer.build_index():
    pass
"""


@by_rounds
def test_a_kill_in_building_costs_no_event(writer, reader, url):
    chance = random.Random()
    writer.write([event(chance) for _ in range(800)], [])
    for _ in range(rounds(20, least=1)):
        with subprocess.Popen(
            [sys.executable, "-c", _BUILD, url], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            built = len(blocks_of(writer))
            for _ in range(10_000):
                if process.poll() is not None or len(blocks_of(writer)) > built:
                    break
            os.kill(process.pid, signal.SIGKILL)
        check(reader, chance, 3)
    build_all(writer)
    assert writer.repair_index() == 0
    check(reader, chance, 3)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_the_role_for_readers_may_search(writer, url):
    chance = random.Random(6)
    writer.write([event(chance) for _ in range(100)], [])
    build_all(writer)
    user = f"searches-{url.rpartition('/')[2]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{user}" LOGIN IN ROLE {READER_ROLE}'.encode())
    with open_reader(url.replace("vero@", f"{user}@"), "store") as reader:
        check(reader, chance)
        assert reader.search(Search(text="\0"), limit=1) == SearchPage([], None, None)
        assert reader.search(Search(id="\udcff"), limit=1) == SearchPage([], None, None)
