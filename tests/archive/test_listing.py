from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tap_vero_segment import times
from tap_vero_segment.archive.listing import Listing, day_of, list_objects
from tap_vero_segment.archive.objects import Objects
from tests.support.archive import (
    FIRST_DAY,
    ArchiveObject,
    as_written,
    day_folder,
    path_of,
    text_of,
    write_folder,
    write_object,
)
from tests.support.faulty_s3 import LISTING, FaultyS3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Open = Callable[[str], Objects]


def named(path: str, *, hours: int = 0, content: bytes = b"{}") -> ArchiveObject:
    return ArchiveObject(path, content, FIRST_DAY + timedelta(days=9, hours=hours), [])


def as_listed(tmp_path: Path, made: list[ArchiveObject]) -> list[ArchiveObject]:
    folder = tmp_path / "archive"
    return as_written(folder, made) if folder.exists() else made


LATER = 4_000_000_000
"""A moment of 2096, in seconds since 1970."""

DAYS = [named(path_of(source, day, f"{day}.gz")) for source in ("a", "b") for day in range(4)]
"""An object a day and source."""


@pytest.fixture(params=["folder", "s3"])
def opened(request, tmp_path: Path) -> Iterator[Callable[..., Open]]:
    """Opens a store with objects, and then any place in it."""
    servers = []

    def fill(objects: list[ArchiveObject]) -> Open:
        if request.param == "folder":
            url = write_folder(tmp_path / "archive", objects)
            return lambda place: Objects(f"{url}/{place}", {}, "source")
        server = FaultyS3(objects, page=3)  # several pages to each listing
        servers.append(server.__enter__())
        return lambda place: Objects(f"s3://bucket/{place}", server.options, "source")

    yield fill
    for server in servers:
        server.__exit__()


def between(objects: Objects, start: str | None, end: str | None) -> Listing:
    bounds = [None if text is None else times.from_text(text) for text in (start, end)]
    return list_objects(objects, *bounds)


def paths(listing: Listing) -> list[str]:
    return [stored.path for stored in listing.objects]


def midnight(day: int) -> str:
    return text_of(FIRST_DAY + timedelta(days=day))


ANYTIME = "1990-01-01"
"""A start that leaves nothing out, but has the folders descended into."""

each_way = pytest.mark.parametrize("start", [None, ANYTIME], ids=["sweep", "descent"])


# Which objects


@each_way
def test_objects_come_in_the_order_of_their_last_modification(opened, start, tmp_path):
    made = [named(path_of("a", n % 3, f"{n}.gz"), hours=7 * n % 11) for n in range(11)]
    listing = between(opened(made)(""), start, None)
    made = as_listed(tmp_path, made)
    in_order = sorted(made, key=lambda each: each.modified_at)
    assert paths(listing) == [each.path for each in in_order]
    assert [stored.modified_at for stored in listing.objects] == [
        times.from_text(text_of(each.modified_at)) for each in in_order
    ]
    assert {stored.size for stored in listing.objects} == {2}


@each_way
def test_objects_of_one_time_come_in_the_order_of_their_paths(opened, start, tmp_path):
    made = [named(f"{letter}/x.gz") for letter in "dacb"] + [named("c.gz", hours=-1)]
    objects = opened(made)("")
    for each in made:  # whoever wants files of one time dates them in the future
        if (path := tmp_path / "archive" / each.path).exists():
            os.utime(path, (LATER + (each.path != "c.gz"),) * 2)
    assert paths(between(objects, start, None)) == [
        "c.gz",
        "a/x.gz",
        "b/x.gz",
        "c/x.gz",
        "d/x.gz",
    ]


@each_way
def test_what_holds_no_call_is_left_out(opened, start):
    made = [
        named("segment-logs/dummy-object.txt", content=b"Segment was here"),
        named("dummy-object.txt", content=b"Segment was here"),
        named(path_of("a", 0, "empty.gz"), content=b""),
        named(path_of("a", 0, ".hidden.gz")),
        named(path_of("a", 0, "kept")),
        named("dummy-object.txt.gz"),
    ]
    assert sorted(paths(between(opened(made)(""), start, None))) == [
        "dummy-object.txt.gz",
        path_of("a", 0, "kept"),
    ]


@each_way
@pytest.mark.parametrize("depth", range(5))
def test_any_place_in_an_archive_is_an_archive(opened, start, depth):
    folders = ["some", "prefix", "segment-logs", "a", day_folder(2)]
    made = [named("/".join([*folders, name])) for name in ("x.gz", "y.gz")]
    made += [named("/".join([*folders[:-1], day_folder(1), "z.gz"])), named("other/w.gz")]
    place = "/".join(folders[:depth])
    found = paths(between(opened(made)(place), start, None))
    below = [each.path for each in made if each.path.startswith(f"{place}/" if place else "")]
    assert sorted(found) == sorted(
        path.removeprefix(f"{place}/" if place else "") for path in below
    )


@each_way
def test_a_place_that_holds_nothing_gives_nothing(opened, start, tmp_path):
    open_at = opened([named("segment-logs/a/x.gz")])
    (tmp_path / "archive" / "empty").mkdir(parents=True, exist_ok=True)
    assert between(open_at("empty"), start, None) == ([], 0, None)


@pytest.mark.parametrize(
    "name",
    ["a b.gz", "ü.gz", "100%.gz", "x%20y.gz", "a#1b.gz", "q?z.gz", "a&b<c>.gz", "a+b.gz", "😀.gz"],
)
@each_way
def test_names_of_objects_may_hold_anything(opened, start, name):
    objects = opened([named(f"a b/{name}", content=b"content")])("")
    [stored] = between(objects, start, None).objects
    assert stored.path == f"a b/{name}"
    assert b"".join(objects.read(stored)) == b"content"


# Days


def test_without_bounds_days_are_listed_in_one_sweep():
    with FaultyS3(DAYS) as server:
        between(Objects("s3://bucket", server.options, "source"), None, None)
        assert [asked.query.get("delimiter") for asked in server.asked] == [None]


@pytest.mark.parametrize(
    ("start", "end", "days", "left_out_from"),
    [
        (midnight(1), None, [1, 2, 3], None),
        ("2025-03-11T23:59:59.999999Z", None, [1, 2, 3], None),
        (midnight(2), None, [2, 3], None),
        (None, midnight(2), [0, 1], 2),
        (None, "2025-03-12T00:00:00.000001Z", [0, 1, 2], 3),
        (midnight(1), midnight(3), [1, 2], 3),
        ("2025-03-11T06:00:00Z", "2025-03-11T07:00:00Z", [1], 2),
        (None, midnight(9), [0, 1, 2, 3], None),
        (midnight(9), None, [], None),
        (None, midnight(0), [], 0),
    ],
)
def test_days_out_of_bounds_are_left_out(opened, start, end, days, left_out_from):
    listing = between(opened(DAYS)("segment-logs"), start, end)
    kept = [path_of(source, day, f"{day}.gz") for source in ("a", "b") for day in days]
    assert sorted(paths(listing)) == [path.removeprefix("segment-logs/") for path in kept]
    expected = None if left_out_from is None else times.from_text(midnight(left_out_from))
    assert listing.left_out_from == expected


def test_days_out_of_bounds_are_not_even_listed():
    with FaultyS3(DAYS) as server:
        objects = Objects("s3://bucket", server.options, "source")
        between(objects, midnight(1), midnight(3))
        days = {asked.query.get("prefix") for asked in server.asked_of(LISTING)} & {
            f"segment-logs/{source}/{day_folder(day)}/" for source in "ab" for day in range(4)
        }
    assert days == {
        f"segment-logs/{source}/{day_folder(day)}/" for source in "ab" for day in (1, 2)
    }


def test_pointed_at_one_day_its_objects_are_listed_whatever_the_bounds(opened):
    day = f"segment-logs/a/{day_folder(3)}"
    listing = between(opened(DAYS)(day), midnight(0), midnight(1))
    assert paths(listing) == ["3.gz"]


def test_names_of_objects_are_not_taken_for_days(opened):
    name = path_of("a", 0, day_folder(3))
    assert paths(between(opened([named(name)])(""), None, midnight(1))) == [name]


def test_a_late_object_in_an_old_day_is_listed(opened):
    late = named(path_of("a", 0, "late.gz"), hours=100)
    assert paths(between(opened([*DAYS, late])(""), midnight(0), midnight(1)))[-1] == late.path


@pytest.mark.parametrize(
    "name",
    ["segment-logs", "source", "1741564800001", "174156480000", "17415648000000", "latest"],
)
def test_a_folder_that_is_no_day_is_descended_into(opened, name):
    path = f"{name}/x.gz"
    assert day_of(name) is None
    assert paths(between(opened([named(path)])(""), midnight(2), midnight(3))) == [path]


@pytest.mark.parametrize("day", range(0, 800, 37))
def test_a_day_is_its_midnight_in_milliseconds(day):
    assert day_of(day_folder(day)) == times.from_text(midnight(day))


@pytest.mark.parametrize(
    "name", ["١٧٤١٥٦٤٨٠٠٠٠٠", "+741564800000", "-741564800000", " 741564800000"]
)
def test_what_only_looks_like_a_number_is_no_day(name):
    assert len(name) == 13
    assert day_of(name) is None


def test_a_files_time_is_kept_to_the_microsecond(tmp_path):
    write_object(tmp_path, named("x.gz"))
    later = LATER * 1_000_000_000 + 123_456_789
    os.utime(tmp_path / "x.gz", ns=(0, later))
    [stored] = list_objects(Objects(tmp_path.as_uri(), {}, "source"), None, None).objects
    assert stored.modified_at == later // 1_000
