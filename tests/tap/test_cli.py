"""The command line; some of it in the process that a user starts, without a fork."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.tap import TapVeroSegment
from tests.support.collector import READ_TOKEN
from tests.support.payloads import many
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.streams import ALL_STREAMS, DEFAULT_STREAMS
from tests.support.tap import discover, run_tap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import Collector
    from tests.support.forked_tap import ForkedTap

SETTINGS = {"source", "token", "start_date", "end_date"}
OF_THE_SDK = {"stream_maps", "stream_map_config", "flattening_enabled", "batch_config"}


def test_the_console_script_is_the_tap() -> None:
    (script,) = entry_points(group="console_scripts", name="tap-vero-segment")
    assert script.value == "tap_vero_segment.console_scripts:tap"
    assert TapVeroSegment.name == "tap-vero-segment"


def test_version_prints_the_version(tmp_path: Path) -> None:
    run = run_tap(tmp_path, {}, "--version", forked=False)
    assert run.status == 0
    assert f"tap-vero-segment v{version('tap-vero-segment')}".encode() in run.stdout


def test_help_names_every_option(tap: ForkedTap) -> None:
    text = tap.said("--help")
    for option in ("--config", "--catalog", "--state", "--discover", "--test", "--about"):
        assert option in text


def test_about_as_json_describes_the_settings(tap: ForkedTap) -> None:
    about: dict[str, Any] = json.loads(tap.said("--about", "--format", "json"))
    settings = about["settings"]["properties"]
    assert about["name"] == "tap-vero-segment"
    assert settings.keys() >= SETTINGS | OF_THE_SDK
    assert about["settings"]["required"] == ["source"]
    assert settings["token"]["secret"] is True
    for setting in SETTINGS:
        assert settings[setting]["title"]
        assert settings[setting]["description"]
    assert {"catalog", "state", "discover", "about", "stream-maps", "batch"} <= set(
        about["capabilities"]
    )


@pytest.mark.parametrize("form", [(), ("--format", "markdown")], ids=["text", "markdown"])
def test_about_is_there_for_people_too(tap: ForkedTap, form: tuple[str, ...]) -> None:
    text = tap.said("--about", *form)
    for setting in SETTINGS:
        assert re.search(rf"\b{setting}\b", text)


def test_discover_needs_no_settings_and_lists_fourteen_streams(tmp_path: Path) -> None:
    catalog = discover(tmp_path, {})
    entries = {entry["tap_stream_id"]: entry for entry in catalog["streams"]}
    assert entries.keys() == ALL_STREAMS | {"erasures"}
    assert len(entries) == 14
    for stream, entry in entries.items():
        assert entry["stream"] == stream
        assert entry["key_properties"] == ["id"]
        assert entry["replication_key"] == "loaded_at"
        assert entry["replication_method"] == "INCREMENTAL"
        assert entry["schema"]["title"]
        assert entry["schema"]["description"]
        metadata = {tuple(each["breadcrumb"]): each["metadata"] for each in entry["metadata"]}
        assert metadata[()]["selected-by-default"] is (stream in DEFAULT_STREAMS)
        for column, schema in entry["schema"]["properties"].items():
            assert schema["title"]
            assert schema["description"]
            automatic = column in {"id", "loaded_at"}
            inclusion = metadata["properties", column]["inclusion"]
            assert inclusion == ("automatic" if automatic else "available")


def test_a_discovered_catalog_gives_what_no_catalog_gives(
    tap: ForkedTap, one_of_each: Path
) -> None:
    config = {"source": url_of(one_of_each)}
    without = tap.good(config)
    with tap.start(config, "--discover") as running:
        catalog = json.load(running.stdout)
        assert running.wait() == 0
    with_it = tap.good(config, catalog=catalog)
    assert with_it.records == without.records
    assert with_it.schemas == without.schemas
    assert with_it.state == without.state


def test_a_trial_run_writes_one_record_of_each_stream_and_no_error(
    tap: ForkedTap, one_of_each: Path
) -> None:
    run = tap.run({"source": url_of(one_of_each)}, "--test")
    assert run.status == 0, run.stderr
    assert run.messages.counts() == dict.fromkeys(ALL_STREAMS, 1)
    assert "ERROR" not in run.stderr


def test_a_trial_run_on_a_store_without_events_is_a_good_one(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    fill(path, [])
    run = tap.run({"source": url_of(path)}, "--test")
    assert run.status == 0, run.stderr
    assert run.messages.counts() == {}


def test_a_trial_run_asks_a_collector(tap: ForkedTap, collector: Collector) -> None:
    fill(collector.store, many(40))
    run = tap.run({"source": collector.url, "token": READ_TOKEN}, "--test")
    assert run.status == 0, run.stderr
    assert run.messages.counts() == dict.fromkeys(DEFAULT_STREAMS, 1)


def test_a_trial_of_the_schemas_needs_no_source(tap: ForkedTap, tmp_path: Path) -> None:
    run = tap.run({"source": url_of(tmp_path / "none.db")}, "--test=schema")
    assert run.status == 0, run.stderr
    assert run.messages.schemas.keys() == ALL_STREAMS | {"erasures"}
    for stream in ALL_STREAMS:
        assert "context_traits_email" in run.messages.schemas[stream]["properties"]


def test_a_sync_ends_with_status_0(tmp_path: Path, one_of_each: Path) -> None:
    run = run_tap(tmp_path, {"source": url_of(one_of_each)}, forked=False)
    assert run.status == 0
    assert run.messages.counts()["tracks"] == 7
    assert "ERROR" not in run.stderr


def test_an_unknown_option_is_refused(tap: ForkedTap) -> None:
    run = tap.run({}, "--no-such-option")
    assert run.status == 2
    assert run.stdout == b""
    assert "Traceback" not in run.stderr
