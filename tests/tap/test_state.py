"""The state of an earlier run: of which source it is, how it may be wrapped, what is not used."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment import times
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.archive import Maker, write_folder
from tests.support.collector import READ_TOKEN
from tests.support.event_server import EventServer
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import fill_at, lines_of, url_of
from tests.support.streams import bookmark_of, catalog_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import Collector
    from tests.support.forked_tap import ForkedTap
    from tests.support.tap import Run

TIMES = ["2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"]
FUTURE = "2099-01-01T00:00:00.000000Z"


def refusal(run: Run) -> str:
    assert run.status == 1, run.stderr
    assert run.stdout == b""
    assert "Traceback" not in run.stderr
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    return error


def warnings(run: Run) -> list[str]:
    assert run.status == 0, run.stderr
    return [line for line in run.stderr.splitlines() if "WARNING" in line]


def archive(folder: Path) -> dict[str, str]:
    return {"source": write_folder(folder / "archive", Maker().small(2, 20))}


def tracks_at(value: str, **more: str) -> dict[str, Any]:
    return {"bookmarks": {"tracks": {"replication_key_value": value, **more}}}


# The first STATE


@pytest.mark.parametrize("streams", [["tracks", "email_sent"], []], ids=["some", "none"])
def test_a_state_comes_before_all_else_also_in_a_first_run(
    tap: ForkedTap, one_of_each: Path, streams: list[str]
) -> None:
    messages = tap.good({"source": url_of(one_of_each)}, catalog=catalog_of(*streams))
    assert messages.all[0] == {"type": "STATE", "value": {"bookmarks": {}}}
    again = tap.good({"source": url_of(one_of_each)}, state=messages.state)
    assert again.all[0] == {"type": "STATE", "value": messages.state}


# The kind of source


def test_bookmarks_of_an_archive_are_not_used_for_a_collector_nor_the_other_way_round(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path
) -> None:
    configs = {"collector": {"source": url_of(one_of_each)}, "archive": archive(tmp_path)}
    states = {kind: tap.good(config).state for kind, config in configs.items()}
    for kind, state in states.items():
        assert state is not None
        assert {each["source"] for each in state["bookmarks"].values()} == {kind}
        assert tap.good(configs[kind], state=state).state == state
        (other,) = configs.keys() - {kind}
        error = refusal(tap.run(configs[other], state=state))
        for part in ("tracks", "email_sent", f"of a{'n' if kind == 'archive' else ''} {kind}"):
            assert part in error
        for remedy in ("--state-id-suffix", "tap-vero-segment--archive", "--full-refresh"):
            assert remedy in error


def test_a_bookmark_without_a_kind_gets_that_of_the_source(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path
) -> None:
    for kind, config in (
        ("collector", {"source": url_of(one_of_each)}),
        ("archive", archive(tmp_path)),
    ):
        messages = tap.good(config, state=tracks_at("2020-01-01"), catalog=catalog_of("tracks"))
        assert {each["bookmarks"]["tracks"]["source"] for each in messages.states} == {kind}


def test_the_stores_and_the_read_api_of_a_collector_are_one_kind(
    tap: ForkedTap, one_of_each: Path
) -> None:
    state = tap.good({"source": url_of(one_of_each)}).state
    with EventServer(lines_of(one_of_each)) as server:
        messages = tap.good({"source": server.url, "token": READ_TOKEN}, state=state)
    assert messages.counts() == {}
    assert messages.state == state


@pytest.mark.parametrize("kind", ["warehouse", 7, None])
def test_a_kind_that_there_is_not_is_refused(tap: ForkedTap, one_of_each: Path, kind: Any) -> None:
    run = tap.run({"source": url_of(one_of_each)}, state=tracks_at("2026-11-23", source=kind))
    assert "tracks" in refusal(run)


# A bookmark ahead of the source


@pytest.mark.parametrize("over", ["file", "http", "http-without-marks"])
def test_a_stream_whose_bookmark_is_ahead_of_the_source_is_read_again(
    tap: ForkedTap, tmp_path: Path, over: str
) -> None:
    path = tmp_path / "store.db"
    ids = fill_at(path, many(3), loaded_at=TIMES)
    state = tracks_at(FUTURE)
    state["bookmarks"]["email_sent"] = {"replication_key_value": TIMES[-1]}
    catalog = catalog_of("tracks", "email_sent")
    with EventServer(lines_of(path), marks=over == "http") as server:
        by_http = {"source": server.url, "token": READ_TOKEN}
        config = {"source": url_of(path)} if over == "file" else by_http
        run = tap.run(config, state=state, catalog=catalog)
    if over == "http-without-marks":  # it does not say how far it has come
        assert run.messages.counts() == {}
        return
    (warning,) = warnings(run)
    assert "tracks" in warning
    assert "restored" in warning
    assert "email_sent" not in warning
    assert run.messages.ids("tracks") == ids
    assert run.messages.counts() == {"tracks": 3}
    assert bookmark_of(run.messages.states[0], "tracks") is None
    assert bookmark_of(run.messages.state, "tracks") == "2026-11-24T00:00:00.000000Z"


@pytest.mark.parametrize("over_http", [False, True], ids=["file", "http"])
@pytest.mark.parametrize("bookmark", ["2020-01-01", FUTURE])
def test_a_bookmark_of_an_empty_store_hides_nothing_that_comes_later(
    tap: ForkedTap, tmp_path: Path, bookmark: str, *, over_http: bool
) -> None:
    path = tmp_path / "store.db"
    fill(path, [])
    with EventServer([]) as server:
        by_http = {"source": server.url, "token": READ_TOKEN}
        config = by_http if over_http else {"source": url_of(path)}
        run = tap.run(config, state=tracks_at(bookmark), catalog=catalog_of("tracks"))
    (warning,) = warnings(run)
    assert "tracks" in warning
    assert run.messages.state == {"bookmarks": {}}
    ids = fill(path, many(2))
    again = tap.good(
        {"source": url_of(path)}, state=run.messages.state, catalog=catalog_of("tracks")
    )
    assert again.ids("tracks") == ids


def test_a_store_whose_events_were_all_pruned_has_come_as_far_as_before(
    tap: ForkedTap, collector: Collector
) -> None:
    fill(collector.store, many(3))
    configs = ({"source": collector.store_url}, {"source": collector.url, "token": READ_TOKEN})
    state = tap.good(configs[0]).state
    with closing(SqliteWriter(collector.store_url, "store")) as writer:
        assert writer.prune(times.LATEST) == 3
    for config in configs:
        run = tap.run(config, state=state)
        assert warnings(run) == []
        assert run.messages.counts() == {}
        assert run.messages.state == state


def test_a_bookmark_of_an_archive_that_is_later_than_now_is_not_used(
    tap: ForkedTap, tmp_path: Path
) -> None:
    config = archive(tmp_path)
    catalog = catalog_of("tracks")
    first = tap.good(config, catalog=catalog)
    run = tap.run(config, state=tracks_at(FUTURE), catalog=catalog)
    (warning,) = warnings(run)
    assert FUTURE in warning
    assert run.messages.ids("tracks") == first.ids("tracks")
    assert run.messages.state == first.state


# Its form

BOOKMARK = {"replication_key_value": "2100-01-01"}


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda state: {"type": "STATE", "value": state}, id="message"),
        pytest.param(lambda state: {"value": state}, id="value"),
        pytest.param(lambda state: {"singer_state": state}, id="meltano-state-get"),
        pytest.param(
            lambda state: {"completed": {"singer_state": state}, "partial": {}}, id="meltano-stored"
        ),
        pytest.param(
            lambda state: {
                "completed": {"singer_state": tracks_at("2020-01-01", source="collector")},
                "partial": {"singer_state": state},
            },
            id="meltano-partial",
        ),
        pytest.param(
            lambda state: {"completed": None, "partial": {"singer_state": state}},
            id="meltano-only-partial",
        ),
        pytest.param(
            lambda state: {"currently_syncing": None, "bookmarks": state["bookmarks"]},
            id="currently-syncing",
        ),
    ],
)
def test_a_state_is_taken_out_of_its_wrapper(tap: ForkedTap, one_of_each: Path, wrap: Any) -> None:
    config = {"source": url_of(one_of_each)}
    state = tap.good(config, catalog=catalog_of("tracks")).state
    run = tap.run(config, state=wrap(state), catalog=catalog_of("tracks"))
    assert warnings(run) == []
    assert run.messages.counts() == {}
    assert run.messages.state == state


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"tracks": {"replication_key_value": "2026-11-23"}}, id="no-bookmarks"),
        pytest.param({"Bookmarks": {}}, id="misspelt"),
        pytest.param([], id="list"),
        pytest.param([{"bookmarks": {}}], id="list-of-one"),
        pytest.param("2026-11-23", id="text"),
        pytest.param(7, id="number"),
        pytest.param(False, id="false"),
        pytest.param(None, id="null"),
        pytest.param({"type": "STATE", "value": None}, id="no-value"),
        pytest.param({"type": "STATE", "value": [1]}, id="list-in-message"),
        pytest.param({"singer_state": {"tracks": "2026"}}, id="wrapped"),
        pytest.param({"bookmarks": None}, id="bookmarks-null"),
    ],
)
def test_what_is_not_a_state_is_refused(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path, state: Any
) -> None:
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(state))
    run = tap.run({"source": url_of(one_of_each)}, "--state", str(path))
    assert "state: " in refusal(run)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"bookmarks": {"email_snt": BOOKMARK}}, ["no stream email_snt", "email_sent was meant"]),
        ({"bookmarks": {}, "bookmark": {}}, ["unknown keys", "bookmark"]),
        ({"bookmarks": {"tracks": {"loaded_at": "2100-01-01"}}}, ["unknown keys", "loaded_at"]),
        ({"bookmarks": {"tracks": {"replication_key": "loaded_at"}}}, ["from the beginning"]),
    ],
)
def test_what_is_not_used_of_a_state_is_said(
    tap: ForkedTap, one_of_each: Path, state: dict[str, Any], said: list[str]
) -> None:
    run = tap.run({"source": url_of(one_of_each)}, state=state)
    assert run.messages.counts()["tracks"] == 7
    text = "\n".join(warnings(run))
    for part in said:
        assert part in text
    assert run.messages.state == tap.good({"source": url_of(one_of_each)}).state
