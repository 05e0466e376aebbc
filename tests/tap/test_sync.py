"""What a run emits, and where the next one goes on."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_vero_segment.sources.open import open_source
from tap_vero_segment.tap import sync as sync_module
from tap_vero_segment.tap import tap as tap_module
from tests.support.collector import READ_TOKEN
from tests.support.event_server import EventServer
from tests.support.inline_tap import sync_inline
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.rounds import by_rounds, rounds
from tests.support.store import fill
from tests.support.stored import fill_at, ids_by_stream, ids_of, lines_of, stored, url_of
from tests.support.streams import (
    ALL_STREAMS,
    DEFAULT_STREAMS,
    EMAIL_STREAMS,
    OTHER_STREAMS,
    bookmark_of,
    catalog_of,
    states_never_run_ahead,
)
from tests.support.tap import read_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.sources.base import Page, Source
    from tests.support.collector import Collector
    from tests.support.forked_tap import ForkedTap

FIXED_WIDTH = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_each_event_comes_out_once_in_its_collection_and_once_in_tracks(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    fill(path, many(500))
    messages = tap.good({"source": url_of(path)})
    assert ids_of(messages.records) == ids_by_stream(stored(path))


def test_a_run_ends_with_a_line_that_says_what_it_has_done(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill(path, many(50))
    first = tap.run({"source": url_of(path)})
    records = sum(first.messages.counts().values())
    last = stored(path)[-1].loaded_at
    assert re.search(rf"{records} records of 50 events up to {last}, in \d+ s", first.stderr)
    state = first.messages.states[-1]
    again = tap.run({"source": url_of(path)}, state=state)
    assert re.search(r"0 records of 0 events, in \d+ s", again.stderr)


def test_the_five_other_types_are_neither_selected_by_default_nor_part_of_tracks(
    tap: ForkedTap, one_of_each: Path
) -> None:
    by_default = tap.good({"source": url_of(one_of_each)})
    everything = tap.good({"source": url_of(one_of_each)}, catalog=catalog_of(*ALL_STREAMS))
    assert by_default.counts() == dict.fromkeys(EMAIL_STREAMS, 1) | {"tracks": 7}
    assert by_default.schemas.keys() == DEFAULT_STREAMS
    assert everything.counts() == dict.fromkeys(EMAIL_STREAMS | OTHER_STREAMS, 1) | {"tracks": 7}
    assert {record["event"] for record in everything.records["tracks"]} == EMAIL_STREAMS


def test_an_empty_store_gives_schemas_and_no_record(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill(path, [])
    messages = tap.good({"source": url_of(path)})
    assert messages.schemas.keys() == DEFAULT_STREAMS
    assert messages.counts() == {}
    again = tap.good({"source": url_of(path)}, state=messages.state)
    assert again.state == messages.state
    ids = fill(path, many(3))
    assert tap.good({"source": url_of(path)}, state=again.state).ids("tracks") == ids


def test_with_nothing_selected_nothing_comes_out(tap: ForkedTap, one_of_each: Path) -> None:
    messages = tap.good({"source": url_of(one_of_each)}, catalog=catalog_of())
    assert messages.schemas == {}
    assert messages.counts() == {}


def test_a_run_with_nothing_new_emits_no_record_and_an_equal_state(
    tap: ForkedTap, one_of_each: Path
) -> None:
    first = tap.good({"source": url_of(one_of_each)})
    second = tap.good({"source": url_of(one_of_each)}, state=first.state)
    assert second.counts() == {}
    assert second.state == first.state
    assert second.schemas == first.schemas


def test_the_next_run_emits_what_is_new_and_nothing_else(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    config = {"source": url_of(path)}
    payloads = many(30)
    fill(path, payloads[:20])
    first = tap.good(config)
    # One that the store has already is no new event.
    fill(path, payloads[19:])
    second = tap.good(config, state=first.state)
    assert ids_of(second.records) == ids_by_stream(stored(path)[20:])


def test_a_stream_selected_later_catches_up_while_the_others_do_not_repeat(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    config = {"source": url_of(path)}
    fill(path, many(200))
    first = tap.good(config, catalog=catalog_of("tracks", "email_sent"))
    fill(path, many(250)[200:])
    catalog = catalog_of("tracks", "email_sent", "email_opened")
    second = tap.good(config, catalog=catalog, state=first.state)
    events = stored(path)
    assert second.ids("email_opened") == ids_by_stream(events)["email_opened"]
    for stream in ("tracks", "email_sent"):
        assert second.ids(stream) == ids_by_stream(events[200:])[stream]
    assert states_never_run_ahead(second, events, ids_of(first.records))


def test_a_stream_deselected_for_a_while_goes_on_where_it_stopped(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    config = {"source": url_of(path)}
    payloads = many(90)
    with_it, without = catalog_of("tracks", "email_bounced"), catalog_of("tracks")
    state = None
    got: list[str] = []
    for start, catalog in ((0, with_it), (30, without), (60, with_it)):
        fill(path, payloads[start : start + 30])
        messages = tap.good(config, catalog=catalog, state=state)
        assert messages.ids("tracks") == ids_by_stream(stored(path)[start:])["tracks"]
        if catalog is without:
            assert messages.ids("email_bounced") == []
            assert bookmark_of(messages.state, "email_bounced") == bookmark_of(
                state, "email_bounced"
            )
        got += messages.ids("email_bounced")
        state = messages.state
    assert got == ids_by_stream(stored(path))["email_bounced"]


def test_events_stored_during_a_run_are_left_for_the_next(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    config = {"source": url_of(path)}
    payloads = many(3_100)
    before = fill(path, payloads[:3_000])
    with tap.start(config) as running:
        # A page is many times what the pipe holds: the tap waits inside its first page.
        opening = running.stdout.readline()
        during = fill(path, payloads[3_000:])
        run = running.finish()
    first = read_messages([opening, *run.stdout.splitlines()])
    second = tap.good(config, state=first.state)
    assert first.ids("tracks") == before
    assert second.ids("tracks") == during


def test_events_that_a_collector_takes_during_a_run_are_left_for_the_next(
    tap: ForkedTap, collector: Collector
) -> None:
    payloads = many(3_005)
    before = fill(collector.store, payloads[:3_000])
    config = {"source": collector.url, "token": READ_TOKEN}
    with tap.start(config) as running:
        opening = running.stdout.readline()
        for payload in payloads[3_000:]:
            assert collector.post(payload).status_code == 200
        run = running.finish()
    first = read_messages([opening, *run.stdout.splitlines()])
    second = tap.good(config, state=first.state)
    assert first.ids("tracks") == before
    assert second.ids("tracks") == [event.id for event in stored(collector.store)[3_000:]]


def test_a_state_follows_every_page_and_is_never_ahead_of_it(tap: ForkedTap, large: Path) -> None:
    messages = tap.good({"source": url_of(large)})
    events = stored(large)
    assert len(states_never_run_ahead(messages, events)) >= 8
    assert ids_of(messages.records) == ids_by_stream(events)
    assert messages.all[-1]["type"] == "STATE"
    newest = events[-1].loaded_at
    assert {bookmark_of(messages.state, stream) for stream in messages.schemas} == {newest}


def test_bookmarks_and_times_are_of_fixed_width(tap: ForkedTap, one_of_each: Path) -> None:
    messages = tap.good({"source": url_of(one_of_each)}, catalog=catalog_of(*ALL_STREAMS))
    for stream in ALL_STREAMS:
        assert FIXED_WIDTH.fullmatch(bookmark_of(messages.state, stream) or "")
        for record in messages.records[stream]:
            for column in ("received_at", "loaded_at", "timestamp"):
                assert FIXED_WIDTH.fullmatch(record[column])


LOADED_AT = [
    "2026-11-22T23:59:59.999999Z",
    "2026-11-23T00:00:00.000000Z",
    "2026-11-23T00:00:00.000001Z",
    "2026-11-23T09:24:00.000000Z",
    "2026-11-23T09:24:00.500000Z",
    "2026-11-24T00:00:00.000000Z",
]


@pytest.mark.parametrize(
    ("bookmark", "canonical", "expected"),
    [
        ("2026-11-23", LOADED_AT[1], LOADED_AT[2:]),
        ("2026-11-23T09:24:00Z", LOADED_AT[3], LOADED_AT[4:]),
        ("2026-11-23T09:24:00", LOADED_AT[3], LOADED_AT[4:]),
        ("2026-11-23 09:24", LOADED_AT[3], LOADED_AT[4:]),
        ("2026-11-23T10:24:00+01:00", LOADED_AT[3], LOADED_AT[4:]),
        ("2026-11-23T04:24:00.5-05:00", LOADED_AT[4], LOADED_AT[5:]),
        ("2026-11-23T09:24:00.000000+00:00", LOADED_AT[3], LOADED_AT[4:]),
        (None, None, LOADED_AT),
    ],
)
def test_a_state_written_by_hand_works(
    tap: ForkedTap, tmp_path: Path, bookmark: str | None, canonical: str | None, expected: list[str]
) -> None:
    path = tmp_path / "store.db"
    fill_at(path, many(len(LOADED_AT)), loaded_at=LOADED_AT)
    state = {"bookmarks": {"tracks": {"replication_key_value": bookmark}}}
    messages = tap.good({"source": url_of(path)}, state=state, catalog=catalog_of("tracks"))
    assert [record["loaded_at"] for record in messages.records["tracks"]] == expected
    assert bookmark_of(messages.states[0], "tracks") == canonical
    assert bookmark_of(messages.state, "tracks") == LOADED_AT[-1]


def test_a_stream_forced_to_full_table_is_read_again_whole_and_keeps_no_bookmark(
    tap: ForkedTap, one_of_each: Path
) -> None:
    config = {"source": url_of(one_of_each)}
    catalog = catalog_of("tracks", "email_sent", "email_opened")
    for entry in catalog["streams"]:
        if entry["tap_stream_id"] == "email_sent":
            entry["replication_method"] = "FULL_TABLE"
    first = tap.good(config, catalog=catalog)
    second = tap.good(config, catalog=catalog, state=first.state)
    assert first.counts() == {"email_sent": 1, "email_opened": 1, "tracks": 7}
    assert second.counts() == {"email_sent": 1}
    assert second.state == first.state
    assert bookmark_of(second.state, "email_sent") is None
    assert bookmark_of(second.state, "email_opened") is not None
    incremental = tap.good(config, catalog=catalog_of("tracks", "email_sent", "email_opened"))
    third = tap.good(config, catalog=catalog, state=incremental.state)
    assert third.counts() == {"email_sent": 1}


@pytest.mark.parametrize("replication_key", ["received_at", None])
def test_a_catalog_with_another_replication_key_changes_nothing(
    tap: ForkedTap, one_of_each: Path, replication_key: str | None
) -> None:
    config = {"source": url_of(one_of_each)}
    catalog = catalog_of("tracks")
    for entry in catalog["streams"]:
        entry["replication_key"] = replication_key
        for metadata in entry["metadata"]:
            metadata["metadata"].pop("replication-key", None)
    first = tap.good(config, catalog=catalog)
    assert first.counts() == {"tracks": 7}
    assert first.state == tap.good(config, catalog=catalog_of("tracks")).state
    assert tap.good(config, catalog=catalog, state=first.state).counts() == {}


class CountingSource:
    """A source that counts what is read from it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.read: list[str | None] = []

    def pages(self, after: str | None, size: int) -> Iterator[Page]:
        for page in self.source.pages(after, size):
            self.read += [call.message_id for call in page.calls]
            yield page

    def resume_from(self, bookmark: str) -> str:
        return self.source.resume_from(bookmark)

    def has_reached(self, bookmark: str) -> bool:
        return self.source.has_reached(bookmark)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.source.close()


@pytest.mark.parametrize("streams", [["tracks"], sorted(ALL_STREAMS)], ids=["one", "all"])
def test_a_store_is_read_once_however_many_streams_are_selected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, streams: list[str]
) -> None:
    path = tmp_path / "store.db"
    ids = fill(path, [documented(vero_type) for vero_type in OTHER_TYPES] + many(2_500))
    opened: list[CountingSource] = []

    def open_counting(*arguments: Any) -> CountingSource:
        opened.append(CountingSource(open_source(*arguments)))
        return opened[-1]

    monkeypatch.setattr(tap_module, "open_source", open_counting)
    messages = sync_inline({"source": url_of(path)}, catalog=catalog_of(*streams))
    assert ids_of(messages.records)["tracks"] == ids[len(OTHER_TYPES) :]
    assert [source.read for source in opened] == [ids]


@pytest.mark.parametrize("streams", [["tracks"], sorted(ALL_STREAMS)], ids=["one", "all"])
def test_a_collector_is_read_once_however_many_streams_are_selected(
    tap: ForkedTap, tmp_path: Path, streams: list[str]
) -> None:
    path = tmp_path / "store.db"
    fill(path, many(2_500))
    lines = lines_of(path)
    config = {"token": READ_TOKEN}
    with EventServer(lines) as server:
        tap.good(config | {"source": server.url}, catalog=catalog_of(*streams))
    opening, *pages = server.asked
    assert opening.limit == 1
    assert len(pages) == 3
    assert server.served[1:] == lines


@by_rounds
@given(
    st.lists(
        st.one_of(
            st.integers(1, 12),
            st.tuples(
                st.sets(st.sampled_from(sorted(ALL_STREAMS)), min_size=1),
                st.none() | st.integers(0, 5),
            ),
        ),
        min_size=2,
        max_size=8,
    )
)
@settings(
    max_examples=rounds(120, least=30),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_stored_selected_and_interrupted_comes_out_exactly_once(
    monkeypatch: pytest.MonkeyPatch, steps: list[int | tuple[set[str], int | None]]
) -> None:
    """A number stores so many events. A set runs its streams; with a number, the target had only
    come to that STATE of the run when all was cut off.
    """
    monkeypatch.setattr(sync_module, "PAGE_SIZE", 3)
    types = EMAIL_TYPES + OTHER_TYPES
    got: dict[str, list[str]] = {stream: [] for stream in ALL_STREAMS}
    state: dict[str, Any] | None = None
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        fill(path, [])
        for step in [*steps, (ALL_STREAMS, None)]:
            if isinstance(step, int):
                numbers = range(number, number + step)
                fill(path, [numbered(types[n * 5 % len(types)], n) for n in numbers])
                number += step
                continue
            streams, last_state = step
            messages = sync_inline({"source": url_of(path)}, state, catalog_of(*streams))
            states = states_never_run_ahead(messages, stored(path), got)
            stop = states[-1 if last_state is None else min(last_state, len(states) - 1)]
            for message in messages.all[:stop]:
                if message["type"] == "RECORD":
                    assert message["stream"] in streams
                    got[message["stream"]].append(message["record"]["id"])
            state = messages.all[stop]["value"]
        expected = {stream: [] for stream in ALL_STREAMS} | ids_by_stream(stored(path))
    assert got == expected


def numbered(vero_type: str, number: int) -> dict[str, Any]:
    return documented(vero_type) | {"user": {"id": number}}
