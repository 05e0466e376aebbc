"""What comes out of an archive, from a folder and from an object store alike."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tap_vero_segment.sources import progress
from tests.support.archive import (
    FIRST_DAY,
    WRITE_KEY,
    ArchiveObject,
    Call,
    Maker,
    as_written,
    below,
    day_folder,
    events_of,
    history,
    lines_of,
    path_of,
    text_of,
    track,
    write_folder,
    zipped,
)
from tests.support.faulty_s3 import LISTING, FaultyS3, Held
from tests.support.inline_tap import sync_inline
from tests.support.records import assert_shape
from tests.support.rounds import WEEKLY, by_rounds, rounds
from tests.support.s3 import ACCESS_KEY, SECRET_KEY
from tests.support.stored import ids_by_stream, ids_of
from tests.support.streams import ALL_STREAMS, bookmark_of, catalog_of, states_never_run_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.support.archive import History
    from tests.support.forked_tap import ForkedTap
    from tests.support.s3 import S3
    from tests.support.stored import Stored

EVERYTHING = catalog_of(*ALL_STREAMS)
LATEST = FIRST_DAY + timedelta(days=30)


class Place:
    """An archive in a folder or in a bucket, and how a tap gets at it."""

    def __init__(self, s3: S3 | None, folder: Path, prefix: str = "") -> None:
        self.s3 = s3
        self.folder = folder
        self.prefix = prefix
        self.url = f"s3://{folder.name}" if s3 else folder.as_uri()
        self.options: dict[str, Any] = {"storage_options": s3.options} if s3 else {}
        if s3:
            s3.make_bucket(folder.name)

    def put(self, objects: Iterable[ArchiveObject]) -> None:
        if self.s3:
            self.s3.put(self.folder.name, objects, self.prefix)
        else:
            past = (made._replace(modified_at=min(made.modified_at, LATEST)) for made in objects)
            write_folder(self.folder / self.prefix, past)

    def put_later(self, objects: Iterable[ArchiveObject], than: datetime) -> None:
        """Write objects in a later second than another one's."""
        while datetime.now(than.tzinfo) < than + timedelta(seconds=1):
            time.sleep(0.01)
        self.put(objects)

    def as_listed(self, objects: Iterable[ArchiveObject]) -> list[ArchiveObject]:
        """Return objects with the times that they have there."""
        if self.s3:
            return self.s3.times(self.folder.name, objects, self.prefix)
        return as_written(self.folder / self.prefix, objects)

    def config(self, at: str = "", **settings: Any) -> dict[str, Any]:
        return {"source": f"{self.url}/{at}".rstrip("/"), **self.options, **settings}


@pytest.fixture(params=["folder", "s3"])
def new_place(request, tmp_path: Path) -> Callable[..., Place]:
    """Makes archives, in a folder or in an object store."""
    number = random.Random(str(tmp_path)).getrandbits(40)
    name = f"archive-{number:x}"

    def make(prefix: str = "") -> Place:
        s3 = request.getfixturevalue("s3") if request.param == "s3" else None
        return Place(s3, tmp_path / name, prefix)

    return make


@pytest.fixture(scope="session")
def past() -> History:
    """Calls in forty objects, a hundred thousand of them each week."""
    return history(100_000 if WEEKLY else 10_000)


# A whole archive


class Sample(NamedTuple):
    """Calls that were written by hand, and their records."""

    calls: list[dict[str, Any]]
    records: dict[str, dict[str, Any]]


def sample() -> Sample:
    bounced = track(1, "Email Bounced", FIRST_DAY)
    bounced["messageId"] = "by-hand-1"
    bounced["properties"] |= {"bounce_code": 550, "bounce_type": "hard", "attempt": 2}
    left = {
        "type": "track",
        "event": "Unsubscribed",
        "messageId": "by-hand-2",
        "receivedAt": "2025-03-10T12:00:00Z",
        "userId": None,
        "context": {"traits": {"email": "someone@example.com"}, "ip": {"v6": "2001:db8::1"}},
        "properties": {"list_id": 5},
        "writeKey": WRITE_KEY,
    }
    empty = dict.fromkeys(
        [
            *("campaign_type", "campaign_trigger_event", "campaign_permalink"),
            *("campaign_variation", "campaign_group", "campaign_channel"),
            *("campaign_locale", "campaign_tags", "campaign_sent_to"),
            *("campaign_series_title", "campaign_template"),
        ]
    )
    records: dict[str, dict[str, Any]] = {
        "email_bounced": {
            "id": "by-hand-1",
            "received_at": "2025-03-10T00:00:00.000000Z",
            "timestamp": "2025-03-09T23:59:58.000000Z",
            "original_timestamp": "2025-03-09T23:59:58.000000Z",
            "sent_at": None,
            "event": "email_bounced",
            "event_text": "Email Bounced",
            "user_id": "1",
            "anonymous_id": "anonymous-1",
            "context_traits_email": "person1@example.com",
            "context_ip": "198.51.100.1",
            "context_user_agent": "Mozilla/5.0 (Macintosh)",
            "context_channel": None,
            "context": {
                "library": {"name": "vero", "version": "1.0.0"},
                "traits": {"plan": "pro"},
            },
            "email_id": "1@veromail.com",
            "email_subject": "Ten percent off",
            "campaign_id": "1",
            "campaign_name": "Autumn collection",
            **empty,
            "bounce_type": "hard",
            "bounce_code": "550",
            "bounce_message": None,
            "properties": {"batch": 0, "attempt": 2},
        },
        "email_unsubscribed": {
            "id": "by-hand-2",
            "received_at": "2025-03-10T12:00:00.000000Z",
            "timestamp": "2025-03-10T12:00:00.000000Z",
            "original_timestamp": None,
            "sent_at": None,
            "event": "email_unsubscribed",
            "event_text": "Email Unsubscribed",
            "user_id": None,
            "anonymous_id": None,
            "context_traits_email": "someone@example.com",
            "context_ip": None,
            "context_user_agent": None,
            "context_channel": None,
            "context": {"ip": {"v6": "2001:db8::1"}},
            "email_id": None,
            "email_subject": None,
            "campaign_id": None,
            "campaign_name": None,
            **empty,
            "list_id": "5",
            "list_name": None,
            "properties": None,
        },
    }
    return Sample([bounced, left], records)


def with_sample(made: ArchiveObject, by_hand: Sample) -> ArchiveObject:
    """An object with calls by hand behind its own, in a gzip member of their own."""
    calls = [
        Call(record["id"], stream, record["received_at"])
        for stream, record in by_hand.records.items()
    ]
    return made._replace(
        content=made.content + zipped(lines_of(by_hand.calls)), calls=made.calls + calls
    )


def later_than(events: Iterable[Stored], loaded_at: str) -> list[Stored]:
    return [event for event in events if event.loaded_at > loaded_at]


@pytest.mark.slow
def test_many_calls_come_out_once_and_then_only_what_is_new(
    tap: ForkedTap, new_place, past: History
):
    place = new_place()
    by_hand = sample()
    objects = [*past.objects[:12], with_sample(past.objects[12], by_hand), *past.objects[13:]]
    place.put([*past.overwritten, *past.strays])
    place.put(objects[:-2])
    place.put_later(objects[-2:], max(each.modified_at for each in place.as_listed(objects[:-2])))
    objects = place.as_listed(objects)
    events = events_of(objects)
    run = tap.run(place.config(), catalog=EVERYTHING)
    assert run.status == 0, run.stderr
    first = run.messages

    # All of them
    assert ids_of(first.records) == ids_by_stream(events)
    assert 6_800 < len(events) < 7_200, "about thirty in a hundred are not ours"
    loaded_at = {event.id: event.loaded_at for event in events}
    for stream, records in first.records.items():
        for record in records:
            assert record["loaded_at"] == loaded_at[record["id"]]
            if stream != "tracks":
                assert_shape(record)
    for stream, expected in by_hand.records.items():
        [found] = [each for each in first.records[stream] if each["id"] == expected["id"]]
        assert found == expected | {"loaded_at": loaded_at[expected["id"]]}

    # State, after each object and never ahead of it
    states_never_run_ahead(first, events)
    bookmarks = {bookmark_of(state, "tracks") for state in first.states} - {None}
    assert bookmarks == {text_of(made.modified_at) for made in objects}
    for secret in (WRITE_KEY, ACCESS_KEY, SECRET_KEY):
        assert secret not in run.stdout.decode() + run.stderr

    # A second time
    nothing = tap.good(place.config(lookback_seconds=0), catalog=EVERYTHING, state=first.state)
    assert nothing.counts() == {}
    assert nothing.state == first.state
    last = max(made.modified_at for made in objects)
    again = tap.good(place.config(lookback_seconds=1), catalog=EVERYTHING, state=first.state)
    near = later_than(events, text_of(last - timedelta(seconds=1)))
    assert ids_of(again.records) == ids_by_stream(near)
    assert again.state == first.state

    # A third time, after two more objects
    maker = Maker(seed=99, first=1_000_001)
    later = last + timedelta(minutes=30)
    late = maker.object(path_of("source-b", 0, "late.gz"), 200, 0, later)
    new = maker.object(path_of("source-c", 6, "new.gz"), 200, 6, later)
    place.put_later([late, new], last)
    added = events_of(place.as_listed([late, new]))
    third = tap.good(place.config(lookback_seconds=1), catalog=EVERYTHING, state=again.state)
    assert ids_of(third.records) == ids_by_stream([*near, *added])
    assert bookmark_of(third.state, "tracks") == max(event.loaded_at for event in added)


@pytest.mark.parametrize("bounds", [{}, {"start_date": "2020-01-01"}], ids=["sweep", "descent"])
def test_any_place_in_an_archive_gives_what_is_below_it(new_place, bounds):
    place = new_place("team/raw/")
    past = history(600, 12)
    place.put([*past.overwritten, *past.strays])
    place.put(past.objects)
    objects = place.as_listed(past.objects)
    day = day_folder(1)
    places = {
        "": "",
        "team": "",
        "team/raw/": "",
        "team/raw/segment-logs": "segment-logs",
        "team/raw/segment-logs/source-b": "segment-logs/source-b",
        f"team/raw/segment-logs/source-b/{day}/": f"segment-logs/source-b/{day}",
    }
    for at, folder in places.items():
        events = events_of(below(objects, folder))
        found = sync_inline(place.config(at, **bounds), catalog=EVERYTHING)
        assert ids_of(found.records) == ids_by_stream(events), at
        assert events


def test_an_object_overwritten_by_a_replay_is_read_again_and_alone(tap: ForkedTap, new_place):
    place = new_place()
    objects = Maker().small(4, 50)
    place.put(objects)
    first = tap.good(place.config(), catalog=EVERYTHING)
    listed = place.as_listed(objects)
    last = max(made.modified_at for made in listed)
    more, calls = Maker(first=1_000).content(20, 0)
    replayed = objects[1]._replace(
        content=objects[1].content + zipped(more),
        calls=objects[1].calls + calls,
        modified_at=last + timedelta(minutes=1),
    )
    place.put_later([replayed], last)
    second = tap.good(place.config(lookback_seconds=0), catalog=EVERYTHING, state=first.state)
    assert ids_of(second.records) == ids_by_stream(events_of(place.as_listed([replayed])))


# Between two times


def within(objects: Iterable[ArchiveObject], start: str | None, end: str | None) -> list[Stored]:
    """The events that were received from a time on, before another one."""
    kept = [
        made._replace(
            calls=[
                call
                for call in made.calls
                if (start or "") <= call.received_at < (end or "9999-12-31")
            ]
        )
        for made in objects
    ]
    return events_of(kept)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2025-03-11T00:00:00.000000Z", None),
        ("2025-03-11T13:30:00.500000Z", None),
        (None, "2025-03-12T00:00:00.000000Z"),
        (None, "2025-03-11T13:30:00.500000Z"),
        ("2025-03-11T00:00:00.000000Z", "2025-03-12T00:00:00.000000Z"),
        ("2025-03-11T11:00:00.000000Z", "2025-03-12T11:00:00.000000Z"),
        ("2025-03-10T11:00:00.000000Z", "2025-03-10T11:00:01.000000Z"),
        ("2025-04-01T00:00:00.000000Z", None),
        (None, "2025-01-01T00:00:00.000000Z"),
    ],
)
def test_start_and_end_bound_the_time_of_receipt(small, start, end):
    config, objects = small
    dates = {"start_date": start, "end_date": end}
    config = config | {name: date for name, date in dates.items() if date}
    found = sync_inline(config, catalog=EVERYTHING)
    assert ids_of(found.records) == ids_by_stream(within(objects, start, end))


@pytest.fixture(scope="session")
def small():
    """An archive of a few hundred calls; nobody writes to it."""
    objects = history(800, 20).objects
    with FaultyS3(objects) as store:
        yield config_of(store), objects


def config_of(store: FaultyS3, **settings: Any) -> dict[str, Any]:
    """Settings for a store in which a test chooses the times of objects."""
    return {"source": "s3://bucket", "storage_options": store.options, **settings}


def test_a_day_out_of_bounds_is_neither_listed_nor_fetched(tap: ForkedTap, s3: S3, tmp_path):
    place = Place(s3, tmp_path / "days-out-of-bounds")
    objects = Maker().small(8, 30, days=4)
    broken = [
        made._replace(path=made.path.replace(".gz", "-broken.gz"), content=b"\x1f\x8bnonsense")
        for made in (objects[0], objects[7])
    ]
    place.put([*objects, *broken])
    before = len(s3.requests())
    run = tap.run(place.config(start_date="2025-03-11", end_date="2025-03-13"), catalog=EVERYTHING)
    assert run.status == 0, run.stderr
    objects = place.as_listed(objects)
    assert ids_of(run.messages.records) == ids_by_stream(events_of(objects[2:6]))
    asked = s3.requests()[before:]
    places = [f"{request.path} {request.query.get('prefix', '')}" for request in asked]
    for day, expected in ((0, False), (1, True), (2, True), (3, False)):
        assert any(day_folder(day) in place for place in places) is expected
    # The broken ones are there all the same.
    assert tap.run(place.config(), catalog=EVERYTHING).status == 1


@by_rounds
def test_runs_with_later_and_later_ends_come_to_all_that_they_cover():
    """What an end leaves out is found when it is within a later one, whatever comes meanwhile."""
    with FaultyS3([]) as store:
        _later_and_later_ends(store)


def _later_and_later_ends(store: FaultyS3) -> None:
    for seed in range(rounds(25, least=4)):
        store.objects.clear()
        chance = random.Random(seed)
        maker = Maker(seed)
        objects: list[ArchiveObject] = []
        state = None
        got: dict[str, set[str]] = defaultdict(set)
        ends = sorted(chance.randrange(1, 6 * 24) for _ in range(chance.randrange(1, 5)))
        clock = FIRST_DAY + timedelta(days=3)
        for hours in (*ends, None):
            # Segment writes an object in the course of its day or later, often one of days ago.
            for _ in range(chance.randrange(7)):
                clock += timedelta(hours=chance.choice([0, 1, 5, 20]))
                day = chance.randint(0, (clock - FIRST_DAY).days)
                path = path_of("source", day, f"{len(objects)}.gz")
                objects.append(maker.object(path, chance.randrange(1, 6), day, clock))
                store.objects[path] = Held(objects[-1].content, clock)
            # The next run is no lookback's business.
            clock += timedelta(seconds=1)
            end = None if hours is None else text_of(FIRST_DAY + timedelta(hours=hours))
            config = config_of(store, lookback_seconds=0)
            config |= {"end_date": end} if end else {}
            messages = sync_inline(config, state=state, catalog=EVERYTHING)
            state = messages.state
            expected = ids_by_stream(within(objects, None, end))
            for stream, ids in ids_of(messages.records).items():
                assert set(ids) <= set(expected[stream]), seed
                got[stream].update(ids)
            for stream, ids in expected.items():
                assert got[stream] == set(ids), (seed, end, stream)


# Order and bookmarks


def test_objects_of_one_second_move_the_bookmark_when_all_are_read():
    objects = [
        made._replace(modified_at=FIRST_DAY + timedelta(hours=number // 3))
        for number, made in enumerate(Maker().small(9, 1_500))
    ]
    with FaultyS3(objects) as store:
        messages = sync_inline(config_of(store), catalog=EVERYTHING)
    positions = states_never_run_ahead(messages, events_of(objects))
    bookmarks = [bookmark_of(messages.all[place]["value"], "tracks") for place in positions]
    assert sorted({each for each in bookmarks if each}) == [
        text_of(FIRST_DAY + timedelta(hours=hour)) for hour in range(3)
    ]


def test_a_folder_that_a_copy_fills_is_read_also_where_times_are_kept(tmp_path, caplog):
    """``rsync -a``, ``aws s3 sync`` and ``cp -p`` bring files of long ago, after a run."""
    objects = Maker().small(6, 20)
    folder, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    write_folder(elsewhere, objects)
    config = {"source": folder.as_uri(), "lookback_seconds": 0}
    state = None
    for name in ("000.gz", "001.gz", "002.gz", "003.gz"):
        [path] = elsewhere.rglob(name)
        copied = folder / path.relative_to(elsewhere)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copied)
        with caplog.at_level(logging.INFO, "tap-vero-segment"):
            messages = sync_inline(config, state=state, catalog=EVERYTHING)
        [made] = [each for each in objects if each.path.endswith(name)]
        events = events_of(as_written(folder, [made]))
        assert ids_of(messages.records) == ids_by_stream(events)
        assert {r["loaded_at"] for rs in messages.records.values() for r in rs} == {
            events[0].loaded_at
        }
        state = messages.state
    # What it does not read again, it says.
    assert any(
        re.search(r"archive: 3 objects are not read, as they were last modified until 2", line)
        for line in caplog.messages
    )


def test_objects_dated_in_the_future_are_reported_and_hold_nothing_up(caplog):
    objects = Maker().small(4, 20)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with FaultyS3(objects[:2]) as store:
        for made in objects[2:]:
            store.objects[made.path] = Held(made.content, tomorrow)
        config = config_of(store, lookback_seconds=0)
        first = sync_inline(config, catalog=EVERYTHING)
        assert ids_of(first.records) == ids_by_stream(events_of(objects[:2]))
        warning = (
            f"2 objects are not read yet, as they are dated in the future, until {tomorrow:%F}"
        )
        assert len([line for line in caplog.messages if warning in line]) == 1
        assert bookmark_of(first.state, "tracks") == text_of(objects[1].modified_at)

        later = Maker(seed=3, first=500).object(
            path_of("source-a", 0, "later.gz"), 20, 0, datetime.now(UTC) - timedelta(minutes=1)
        )
        store.objects[later.path] = Held(later.content, later.modified_at)
        second = sync_inline(config, state=first.state, catalog=EVERYTHING)
        assert ids_of(second.records) == ids_by_stream(events_of([later]))


def test_what_is_younger_than_the_start_of_the_run_waits_for_the_next_one(tmp_path):
    objects = Maker().small(3, 20)
    url = write_folder(tmp_path / "archive", objects)
    path = tmp_path / "archive" / objects[1].path
    tomorrow = time.time() + 86_400
    os.utime(path, (tomorrow, tomorrow))
    first = sync_inline({"source": url}, catalog=EVERYTHING)
    assert ids_of(first.records) == ids_by_stream(events_of([objects[0], objects[2]]))
    an_hour_ago = time.time() - 3_600
    os.utime(path, (an_hour_ago, an_hour_ago))
    second = sync_inline(
        {"source": url, "lookback_seconds": 0}, state=first.state, catalog=EVERYTHING
    )
    assert ids_of(second.records) == ids_by_stream(events_of([objects[1]]))


@pytest.mark.parametrize(
    ("lookback", "objects_again"), [(0, 0), (3_599, 1), (3_600, 1), (7_201, 3)]
)
def test_the_lookback_is_read_again(lookback, objects_again):
    objects = Maker().small(5, 20)
    with FaultyS3(objects) as store:
        _lookback(store, objects, lookback, objects_again)


def _lookback(
    store: FaultyS3, objects: list[ArchiveObject], lookback: int, objects_again: int
) -> None:
    first = sync_inline(config_of(store), catalog=EVERYTHING)
    settings = config_of(store, lookback_seconds=lookback)
    again = sync_inline(settings, state=first.state, catalog=EVERYTHING)
    seen = objects[len(objects) - objects_again :]
    assert ids_of(again.records) == ids_by_stream(events_of(seen))
    assert again.state == first.state
    late = Maker(first=1_000).object(
        path_of("source-a", 0, "late.gz"), 20, 0, objects[-1].modified_at - timedelta(minutes=59)
    )
    store.objects[late.path] = Held(late.content, late.modified_at)
    third = sync_inline(settings, state=again.state, catalog=EVERYTHING)
    expected = [*seen, late] if lookback > 59 * 60 else seen
    assert ids_of(third.records) == ids_by_stream(events_of(expected))


def test_a_run_with_nothing_new_fetches_nothing(tmp_path):
    objects = Maker().small(5, 20)
    with FaultyS3(objects) as store:
        config = {"source": "s3://bucket", "storage_options": store.options, "lookback_seconds": 0}
        first = sync_inline(config)
        assert len(store.asked) == 1 + 5
        second = sync_inline(config, state=first.state)
        assert [asked.path for asked in store.asked[6:]] == [LISTING]
    assert (second.counts(), second.state) == ({}, first.state)


# Nothing there


@pytest.mark.parametrize(
    "strays",
    [
        [],
        [
            ArchiveObject("segment-logs/dummy-object.txt", b"Segment was here", FIRST_DAY, []),
            ArchiveObject(path_of("source-a", 0, "empty.gz"), b"", FIRST_DAY, []),
        ],
    ],
    ids=["empty", "only strays"],
)
def test_an_archive_without_objects_is_a_warning_and_the_test_fails(
    tap: ForkedTap, new_place, strays
):
    place = new_place()
    place.folder.mkdir(exist_ok=True)
    place.put(strays)
    run = tap.run(place.config())
    assert (run.status, run.messages.counts()) == (0, {})
    [warning] = [line for line in run.stderr.splitlines() if "WARNING" in line]
    assert place.url in warning
    assert "check the URL's prefix, and try --test" in warning
    tested = tap.run(place.config(), "--test")
    assert tested.status == 1
    assert re.search(rf"source: {re.escape(place.url)}: no object", tested.stderr)
    assert "Traceback" not in tested.stderr


def test_an_archive_with_objects_passes_the_test(tap: ForkedTap, new_place):
    place = new_place()
    place.put(Maker().small(2, 50))
    tested = tap.run(place.config(), "--test")
    assert tested.status == 0, tested.stderr


def test_an_archive_of_other_calls_only_is_a_good_one(tap: ForkedTap, new_place):
    place = new_place()
    place.put(Maker(others=1).small(2, 50))
    run = tap.run(place.config())
    assert (run.status, run.messages.counts()) == (0, {})
    objects = place.as_listed(Maker(others=1).small(2, 50))
    assert bookmark_of(run.messages.state, "tracks") == text_of(
        max(made.modified_at for made in objects)
    )
    assert tap.run(place.config(), "--test").status == 0


# The environment


def test_keys_and_endpoint_of_the_environment_reach_the_bucket(tap: ForkedTap, s3: S3, tmp_path):
    place = Place(s3, tmp_path / "environment")
    objects = Maker().small(2, 50)
    place.put(objects)
    run = tap.run({"source": place.url}, catalog=EVERYTHING, env=s3.environment)
    assert run.status == 0, run.stderr
    assert ids_of(run.messages.records) == ids_by_stream(events_of(place.as_listed(objects)))


def test_a_profile_of_the_environment_reaches_the_bucket(tap: ForkedTap, s3: S3, tmp_path):
    place = Place(s3, tmp_path / "with-a-profile")
    objects = Maker().small(2, 50)
    place.put(objects)
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[tests]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    environment = {
        "AWS_PROFILE": "tests",
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_REGION": "eu-west-1",
    }
    run = tap.run({"source": place.url}, catalog=EVERYTHING, env=environment)
    assert run.status == 0, run.stderr
    assert ids_of(run.messages.records) == ids_by_stream(events_of(place.as_listed(objects)))
    assert SECRET_KEY not in run.stderr


def test_an_unknown_option_is_told_in_one_line(tap: ForkedTap, s3: S3, tmp_path):
    config = {"source": "s3://bucket", "storage_options": {**s3.options, "regoin": "eu-west-1"}}
    run = tap.run(config)
    assert run.status == 1
    errors = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert "storage_options" in errors[0]
    assert "regoin" in errors[0]
    for secret in (ACCESS_KEY, SECRET_KEY, "Traceback"):
        assert secret not in run.stderr


# Progress


def test_progress_tells_objects_bytes_events_and_the_time_left(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL", 0)
    objects = Maker().small(5, 100)
    url = write_folder(tmp_path / "archive", objects)
    with caplog.at_level(logging.INFO, "tap-vero-segment"):
        sync_inline({"source": url})
    size = sum(len(made.content) for made in objects) / 1e6
    line = re.compile(
        rf"(\d) of 5 objects, (\d+\.\d) of {size:.1f} MB, (\d+) events, \d+ events/s, (\d+) s left"
    )
    told = [found for found in map(line.fullmatch, caplog.messages) if found]
    done = [int(found[1]) for found in told]
    assert done == sorted(done)
    assert set(done) == set(range(6))
    last = told[-1]
    events = sum(len(made.calls) for made in objects)
    assert (int(last[3]), int(last[4])) == (events, 0)
