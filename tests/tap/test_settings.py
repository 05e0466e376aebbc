"""Settings: what they mean, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import socket
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from singer_sdk.exceptions import ConfigValidationError

from tap_vero_segment.tap import sync as sync_module
from tests.support.collector import READ_TOKEN
from tests.support.event_server import EventServer
from tests.support.inline_tap import inline_tap, sync_inline
from tests.support.payloads import documented, many
from tests.support.store import fill
from tests.support.stored import fill_at, lines_of, url_of
from tests.support.streams import catalog_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap
    from tests.support.tap import Run

DAY = [
    "2026-11-22T23:59:59.999999Z",
    "2026-11-23T00:00:00.000000Z",
    "2026-11-23T11:59:59.999999Z",
    "2026-11-23T12:00:00.000000Z",
    "2026-11-23T12:00:00.000001Z",
    "2026-11-24T00:00:00.000000Z",
]


def is_refused(run: Run, setting: str) -> str:
    """One line of error that names the setting, status 1, and nothing for a target."""
    errors = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert run.status == 1, run.stderr
    assert len(errors) == 1, run.stderr
    assert setting in errors[0]
    assert "Traceback" not in run.stderr
    assert run.stdout == b""
    return errors[0]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a store and with files that are none."""
    fill(tmp_path / "store.db", [documented("sent")])
    (tmp_path / "notes.txt").write_text("no database at all, but long enough to hold a header" * 9)
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE events (loaded_at INTEGER, call BLOB)")
    (tmp_path / "folder.db").mkdir()
    return tmp_path


STORE = "sqlite:///{files}/store.db"


@pytest.mark.parametrize("mode", [(), ("--test",)], ids=["sync", "test"])
@pytest.mark.parametrize(
    ("setting", "config"),
    [
        pytest.param("source", {}, id="no-source"),
        pytest.param("source", {"source": ""}, id="empty-source"),
        pytest.param("source", {"source": 7}, id="source-not-text"),
        pytest.param("source", {"source": "ftp://host/events"}, id="unknown-scheme"),
        pytest.param("source", {"source": "vero-events.db"}, id="no-scheme"),
        pytest.param("source", {"source": "http://[::1", "token": "t"}, id="no-url"),
        pytest.param("source", {"source": "http://", "token": "t"}, id="no-host"),
        pytest.param("source", {"source": "sqlite://"}, id="no-path"),
        pytest.param("source", {"source": "sqlite:///{files}/none.db"}, id="missing-file"),
        pytest.param("source", {"source": "sqlite:///{files}/folder.db"}, id="folder"),
        pytest.param("source", {"source": "sqlite:///{files}/notes.txt"}, id="no-database"),
        pytest.param("source", {"source": "sqlite:///{files}/other.db"}, id="no-store"),
        pytest.param("token", {"source": "http://127.0.0.1:9"}, id="no-token"),
        pytest.param("token", {"source": "http://127.0.0.1:9", "token": ""}, id="empty-token"),
        pytest.param(
            "stream_maps", {"source": STORE, "stream_maps": {"tracks": {"id": None}}}, id="no-key"
        ),
        pytest.param(
            "stream_maps", {"source": STORE, "stream_maps": {"tracks": {"a": "1 +"}}}, id="no-map"
        ),
        pytest.param("start_date", {"source": STORE, "start_date": "soon"}, id="start-no-date"),
        pytest.param("start_date", {"source": STORE, "start_date": "2026-13-01"}, id="month-13"),
        pytest.param("start_date", {"source": STORE, "start_date": "P1D"}, id="a-duration"),
        pytest.param("start_date", {"source": STORE, "start_date": 20261123}, id="start-number"),
        pytest.param("end_date", {"source": STORE, "end_date": "25:00"}, id="end-no-date"),
        pytest.param(
            "end_date",
            {"source": STORE, "start_date": "2026-11-24", "end_date": "2026-11-23"},
            id="end-before-start",
        ),
        pytest.param(
            "end_date",
            {
                "source": STORE,
                "start_date": "2026-11-23T00:00:00Z",
                "end_date": "2026-11-23T01:00+01:00",
            },
            id="end-at-start",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_in_one_line(
    tap: ForkedTap,
    files: Path,
    mode: tuple[str, ...],
    setting: str,
    config: dict[str, Any],
) -> None:
    if isinstance(config.get("source"), str):
        config = config | {"source": config["source"].format(files=files)}
    is_refused(tap.run(config, *mode), setting)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("pasted-secret\n", id="line-end"),
        pytest.param("Schlüssel-secret", id="not-ascii"),
        pytest.param(4711_0815, id="number"),
        pytest.param(["hidden-secret"], id="list"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_and_not_repeated(
    tap: ForkedTap, token: Any
) -> None:
    error = is_refused(tap.run({"source": "http://127.0.0.1:9", "token": token}), "token")
    assert "secret" not in error
    assert "4711" not in error


SECRET = "hidden-secret"
JSONL = {"format": "jsonl"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        pytest.param("source", f"{SECRET}:x", id="source-scheme"),
        pytest.param("start_date", SECRET, id="no-date"),
        pytest.param("lookback_seconds", SECRET, id="no-number"),
        pytest.param("lookback_seconds", -4711, id="negative"),
        pytest.param("dead_letter", {"path": SECRET}, id="no-path"),
        pytest.param("storage_options", [SECRET], id="options-list"),
        pytest.param("storage_options", SECRET, id="options-text"),
        pytest.param("batch_config", SECRET, id="batch-text"),
        pytest.param("batch_config.encoding", {"encoding": SECRET}, id="encoding-text"),
        pytest.param(
            "batch_config.encoding.format",
            {"encoding": {"format": SECRET}, "storage": {"root": "here"}},
            id="format",
        ),
        pytest.param(
            "batch_config.storage.params",
            {"encoding": JSONL, "storage": {"root": "here", "params": SECRET}},
            id="params-text",
        ),
        pytest.param("flattening_enabled", SECRET, id="no-boolean"),
        pytest.param("stream_map_config", SECRET, id="map-config-text"),
        pytest.param("faker_config.seed", {"seed": [SECRET]}, id="faker-list"),
        pytest.param("stream_maps", SECRET, id="maps-text"),
        pytest.param("stream_maps.__else__", {"__else__": SECRET}, id="else"),
        pytest.param("stream_maps.__other__", {"__other__": {"a": SECRET}}, id="option"),
        pytest.param("stream_maps.tracks", {"tracks": SECRET}, id="map-text"),
        pytest.param("stream_maps.tracks.__else__", {"tracks": {"__else__": SECRET}}, id="rest"),
        pytest.param(
            "stream_maps.tracks.__alias__", {"tracks": {"__alias__": f"{SECRET} +"}}, id="alias"
        ),
        pytest.param(
            "stream_maps.tracks.__alias__", {"tracks": {"__alias__": None}}, id="alias-null"
        ),
        pytest.param("stream_maps.a.__source__", {"a": {"__source__": [SECRET]}}, id="source-list"),
        pytest.param(
            "stream_maps.tracks.__filter__", {"tracks": {"__filter__": f"'{SECRET}' =="}}, id="cut"
        ),
        pytest.param("stream_maps.tracks.a", {"tracks": {"a": f"{SECRET} ="}}, id="half"),
        pytest.param("stream_maps.tracks.a", {"tracks": {"a": f"x = '{SECRET}'"}}, id="no-value"),
        pytest.param("stream_maps.tracks.a", {"tracks": {"a": ""}}, id="empty"),
        pytest.param("stream_maps.tracks.a", {"tracks": {"a": 4711}}, id="map-number"),
    ],
)
def test_a_value_that_cannot_be_used_is_not_repeated(
    files: Path, caplog: pytest.LogCaptureFixture, setting: str, value: Any
) -> None:
    config = {"source": STORE.format(files=files), setting.partition(".")[0]: value}
    with pytest.raises(ConfigValidationError) as refusal, inline_tap(config):
        pass
    (error,) = refusal.value.errors
    assert error.startswith(f"{setting}: ")
    for text in (error, str(refusal.value), caplog.text):
        assert SECRET not in text
        assert "4711" not in text


@pytest.mark.parametrize(
    ("setting", "text", "mode"),
    [
        ("storage_options", f"secret_access_key={SECRET}", ()),
        ("storage_options", f'{{"secret_access_key": "{SECRET}",}}', ("--test",)),
        ("batch_config", SECRET, ("--discover",)),
        ("stream_maps", "", ()),
        ("lookback_seconds", SECRET, ()),
    ],
)
def test_a_variable_that_cannot_be_read_is_told_by_its_name(
    tap: ForkedTap, setting: str, text: str, mode: tuple[str, ...]
) -> None:
    variable = f"TAP_VERO_SEGMENT_{setting.upper()}"
    env = {"TAP_VERO_SEGMENT_SOURCE": "s3://bucket", variable: text}
    run = tap.run({}, "--config=ENV", *mode, env=env)
    assert f"{setting}: {variable} holds no " in is_refused(run, setting)
    assert SECRET not in run.stderr


@pytest.mark.parametrize(
    ("column", "expression", "said"),
    [
        ("domain", "'hidden-secret' + anonymous_id", "TypeError"),
        ("number", "int(anonymous_id)", "TypeError"),
        ("key", "context['hidden-secret']", "TypeError"),
        ("ratio", "1 / 0", "ZeroDivisionError"),
        ("absent", "md5(f'hidden-secret{nobody}')", "nobody"),
        ("function", "reverse('hidden-secret')", "reverse"),
        ("__filter__", "anonymous_id > 'hidden-secret'", "TypeError"),
    ],
)
def test_an_expression_that_fails_is_told_by_stream_and_column(
    tap: ForkedTap, one_of_each: Path, column: str, expression: str, said: str
) -> None:
    maps = {"email_sent": {"id": "id", column: expression, "__alias__": "sent"}}
    run = tap.run({"source": url_of(one_of_each), "stream_maps": maps})
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert run.status == 1
    assert f"stream_maps: sent.{column}: " in error
    assert said in error
    assert "Traceback" not in run.stderr
    assert SECRET not in run.stderr


def test_stream_maps_leave_the_settings_as_they_were(one_of_each: Path) -> None:
    """Workers get them from the tap that runs."""
    maps = {"__else__": None, "tracks": {"a": "id"}}
    with inline_tap({"source": url_of(one_of_each), "stream_maps": maps}) as tap:
        assert tap.config["stream_maps"] == maps


def test_settings_that_are_null_are_unset(tap: ForkedTap, one_of_each: Path) -> None:
    unset = ("stream_maps", "stream_map_config", "faker_config", "flattening_enabled", "token")
    messages = tap.good({"source": url_of(one_of_each)} | dict.fromkeys(unset))
    assert messages.counts()["tracks"] == 7


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"source": ', "line 1, column 12"),
        ('{\n  "token": "hidden-secret"\n  "source": 7}', "line 3, column 3"),
        ('{"source": "x", "a": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "too many digits"),
    ],
    ids=["cut-off", "comma", "nan", "deep", "digits"],
)
@pytest.mark.parametrize("option", ["--config", "--state", "--catalog"])
def test_a_file_that_cannot_be_used_is_told_by_name_line_and_column(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path, option: str, content: str, said: str
) -> None:
    path = tmp_path / "odd.json"
    path.write_text(content)
    error = is_refused(tap.run({"source": url_of(one_of_each)}, option, str(path)), option)
    assert str(path) in error
    assert said in error
    assert SECRET not in error


def test_a_file_may_begin_with_a_byte_order_mark(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path
) -> None:
    config = {"source": url_of(one_of_each)}
    for option, content in (
        ("--config", config),
        ("--state", {}),
        ("--catalog", catalog_of("tracks")),
    ):
        path = tmp_path / "marked.json"
        path.write_text(json.dumps(content), encoding="utf-8-sig")
        assert tap.good(config, option, str(path)).counts()["tracks"] == 7


@pytest.mark.parametrize("content", ["[1]", '"text"', "7"])
def test_a_config_file_without_an_object_is_told_as_such(
    tap: ForkedTap, tmp_path: Path, content: str
) -> None:
    (tmp_path / "odd.json").write_text(content)
    is_refused(tap.run({}, "--config", str(tmp_path / "odd.json")), "--config: ")


@pytest.mark.parametrize("mode", [(), ("--test",)], ids=["sync", "test"])
def test_a_wrong_token_is_told_as_such(tap: ForkedTap, mode: tuple[str, ...]) -> None:
    with EventServer([]) as server:
        run = tap.run({"source": server.url, "token": "not-the-token"}, *mode)
    assert "not-the-token" not in is_refused(run, "token")


def test_a_trial_run_tells_of_a_line_that_cannot_be_read(tap: ForkedTap, one_of_each: Path) -> None:
    lines = lines_of(one_of_each)
    with EventServer([*lines, lines[-1].replace(b'"track"', b'"page"')]) as server:
        run = tap.run({"source": server.url, "token": READ_TOKEN}, "--test")
    assert "line 13" in is_refused(run, "source")


def test_a_url_where_nobody_listens_is_told_as_such(tap: ForkedTap) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        config = {
            "source": f"http://reader:word-of-pass@127.0.0.1:{unused.getsockname()[1]}",
            "token": "the-token",
        }
        with tap.start(config) as sync, tap.start(config, "--test") as test:
            for running in (sync, test):
                run = running.finish()
                is_refused(run, "source")
                assert "word-of-pass" not in run.stderr
                assert "the-token" not in run.stderr


@pytest.mark.parametrize(
    "bookmarks",
    [
        pytest.param({"tracks": {"replication_key_value": "yesterday"}}, id="no-date"),
        pytest.param({"tracks": {"replication_key_value": 1763890000}}, id="number"),
        pytest.param({"tracks": {"replication_key_value": "2026-02-30"}}, id="no-such-day"),
        pytest.param({"tracks": "2026-11-23"}, id="no-object"),
        pytest.param(["tracks"], id="list"),
    ],
)
def test_a_bookmark_that_is_no_date_is_told_as_such(
    tap: ForkedTap, one_of_each: Path, bookmarks: Any
) -> None:
    run = tap.run({"source": url_of(one_of_each)}, state={"bookmarks": bookmarks})
    is_refused(run, "state")


@pytest.mark.parametrize("option", ["--config", "--state", "--catalog"])
@pytest.mark.parametrize("content", ["", '{"source": '], ids=["empty", "cut-off"])
def test_a_file_that_is_no_json_is_told_as_such(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path, option: str, content: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    is_refused(tap.run({"source": url_of(one_of_each)}, option, str(path)), option)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param("", ["is empty", "first run"], id="empty"),
        pytest.param("\n", ["is empty", "first run"], id="a line end"),
        pytest.param('{"bookmarks": {}}\n' * 3, ["has 3 lines", "only the last"], id="lines"),
        pytest.param('{\n"bookmarks"\n', ["is not JSON"], id="cut off"),
    ],
)
def test_a_state_file_that_holds_too_much_or_nothing_is_told_with_the_remedy(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path, content: str, told: list[str]
) -> None:
    path = tmp_path / "kept.json"
    path.write_text(content)
    error = is_refused(tap.run({"source": url_of(one_of_each)}, "--state", str(path)), "--state")
    for part in [str(path), *told]:
        assert part in error


def test_a_state_file_of_one_line_or_laid_out_on_several_is_taken(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path
) -> None:
    config = {"source": url_of(one_of_each)}
    state = tap.good(config).state
    for indent in (None, 2):
        path = tmp_path / "kept.json"
        path.write_text(json.dumps(state, indent=indent) + "\n")
        assert tap.good(config, "--state", str(path)).counts() == {}


def test_a_missing_source_is_told_with_where_it_belongs(tap: ForkedTap) -> None:
    error = is_refused(tap.run({}), "source: ")
    assert "--config FILE" in error
    assert "TAP_VERO_SEGMENT_SOURCE with --config=ENV" in error


def test_a_missing_file_is_told_by_its_whole_path(tap: ForkedTap, tmp_path: Path) -> None:
    error = is_refused(tap.run({"source": "sqlite:///../none.db"}), "source")
    assert f"there is no file {tmp_path / 'none.db'}" in error


def warnings_of(run: Run) -> list[str]:
    assert run.status == 0, run.stderr
    return [line for line in run.stderr.splitlines() if "WARNING" in line]


def test_a_setting_that_there_is_not_is_told_with_the_one_that_was_meant(
    tap: ForkedTap, one_of_each: Path
) -> None:
    config = {"source": url_of(one_of_each), "tokn": "a-secret", "qqqq": "another-secret"}
    run = tap.run(config)
    near, far = warnings_of(run)
    assert "there is no setting 'tokn'" in near
    assert "'token' was meant" in near
    assert "there is no setting 'qqqq'" in far
    assert "meant" not in far
    assert "secret" not in run.stderr.replace("tap-vero-segment", "")


def test_a_part_of_a_setting_that_there_is_not_is_told_too(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path
) -> None:
    encoding = {"format": "jsonl", "compresion": "none"}
    batch = {"encoding": encoding, "storage": {"root": str(tmp_path / "b")}, "size": 7}
    run = tap.run({"source": url_of(one_of_each), "batch_config": batch})
    encoding_warning, size_warning = warnings_of(run)
    assert "'batch_config.encoding.compression' was meant" in encoding_warning
    assert "no setting 'batch_config.size'" in size_warning


def test_settings_of_the_sdk_are_known(tap: ForkedTap, one_of_each: Path) -> None:
    config = {
        "source": url_of(one_of_each),
        "lookback_seconds": 3600,
        "flattening_enabled": False,
        "stream_map_config": {},
        "faker_config": {},
        "emit_activate_version_messages": False,
        "validate_records": True,
    }
    assert warnings_of(tap.run(config)) == []


def test_dead_letter_without_an_archive_is_told_to_be_ignored(
    tap: ForkedTap, one_of_each: Path, tmp_path: Path
) -> None:
    letters = tmp_path / "letters.ndjson"
    run = tap.run({"source": url_of(one_of_each), "dead_letter": str(letters)})
    (warning,) = warnings_of(run)
    assert "dead_letter: only an archive's lines" in warning
    assert not letters.exists()


def test_a_config_file_that_is_missing_is_told_as_such(tap: ForkedTap) -> None:
    error = is_refused(tap.run({}, "--config", "absent.json"), "--config")
    assert "absent.json" in error


def test_a_relative_path_is_relative_to_the_working_folder(tap: ForkedTap, tmp_path: Path) -> None:
    fill(tmp_path / "here.db", [documented("sent")])
    messages = tap.good({"source": "sqlite:///../here.db"})
    assert messages.counts() == {"email_sent": 1, "tracks": 1}


def test_settings_come_from_the_environment(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill_at(path, many(len(DAY)), received_at=DAY)
    messages = tap.good(
        {"start_date": "1999-01-01"},
        "--config=ENV",
        env={
            "TAP_VERO_SEGMENT_SOURCE": url_of(path),
            "TAP_VERO_SEGMENT_START_DATE": "2026-11-23",
            "TAP_VERO_SEGMENT_END_DATE": "2026-11-24",
        },
    )
    received = [record["received_at"] for record in messages.records["tracks"]]
    assert received == DAY[1:5]


def test_without_env_the_environment_is_not_read(tap: ForkedTap, one_of_each: Path) -> None:
    run = tap.run({}, env={"TAP_VERO_SEGMENT_SOURCE": url_of(one_of_each)})
    is_refused(run, "source")


def test_the_token_comes_from_the_environment(tap: ForkedTap) -> None:
    with EventServer([]) as server:
        env = {"TAP_VERO_SEGMENT_SOURCE": server.url, "TAP_VERO_SEGMENT_TOKEN": "from-outside"}
        run = tap.run({}, "--config=ENV", env=env)
    assert server.asked[0].authorization == "Bearer from-outside"
    assert "from-outside" not in run.stderr


def test_an_empty_date_of_the_environment_is_none(tap: ForkedTap, one_of_each: Path) -> None:
    env = {"TAP_VERO_SEGMENT_START_DATE": "", "TAP_VERO_SEGMENT_END_DATE": ""}
    messages = tap.good({"source": url_of(one_of_each)}, "--config=ENV", env=env)
    assert messages.counts()["tracks"] == 7


@pytest.mark.parametrize(
    ("start_date", "end_date", "expected"),
    [
        pytest.param(None, None, DAY, id="no-bounds"),
        pytest.param("2026-11-23", "2026-11-24", DAY[1:5], id="a-day"),
        pytest.param("2026-11-23T12:00:00Z", None, DAY[3:], id="start-included"),
        pytest.param(None, "2026-11-23T12:00:00Z", DAY[:3], id="end-left-out"),
        pytest.param("2026-11-23T12:00:00", None, DAY[3:], id="no-offset-is-utc"),
        pytest.param("2026-11-23T12:00:00.000001", None, DAY[4:], id="microseconds"),
        pytest.param("2026-11-23T13:30:00+01:30", None, DAY[3:], id="east"),
        pytest.param("2026-11-23T07:00-05:00", None, DAY[3:], id="west"),
        pytest.param(None, "2026-11-23T01:00:00+01:00", DAY[:1], id="end-with-offset"),
        pytest.param("2026-11-25", None, [], id="nothing-left"),
    ],
)
def test_only_events_received_between_start_and_end_come_out(
    tap: ForkedTap,
    tmp_path: Path,
    start_date: str | None,
    end_date: str | None,
    expected: list[str],
) -> None:
    path = tmp_path / "store.db"
    fill_at(path, many(len(DAY)), received_at=DAY)
    dates = {"start_date": start_date, "end_date": end_date}
    config = {"source": url_of(path)} | {key: date for key, date in dates.items() if date}
    messages = tap.good(config)
    assert [record["received_at"] for record in messages.records["tracks"]] == expected


def test_a_later_end_date_finds_exactly_what_the_earlier_one_left_out(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    ids = fill_at(path, many(len(DAY)), received_at=DAY)
    config = {"source": url_of(path)}
    first = tap.good(config | {"end_date": "2026-11-23T12:00:00Z"})
    second = tap.good(config | {"end_date": "2026-11-24"}, state=first.state)
    third = tap.good(config, state=second.state)
    fourth = tap.good(config, state=third.state)
    runs = [messages.ids("tracks") for messages in (first, second, third, fourth)]
    assert runs == [ids[:3], ids[3:5], ids[5:], []]


@pytest.mark.parametrize("page_size", [1, 2, 1_000])
def test_an_event_beyond_end_date_is_found_later_though_others_came_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page_size: int
) -> None:
    monkeypatch.setattr(sync_module, "PAGE_SIZE", page_size)
    path = tmp_path / "store.db"
    late, early = "2026-11-24T08:00:00Z", "2026-11-23T08:00:00Z"
    ids = fill_at(path, many(4), received_at=[early, late, early, late])
    config = {"source": url_of(path)}
    first = sync_inline(config | {"end_date": "2026-11-24"})
    second = sync_inline(config, state=first.state)
    assert first.ids("tracks") == [ids[0], ids[2]]
    # The third comes again, rather than that the second never comes.
    assert second.ids("tracks") == ids[1:]


def test_what_start_date_leaves_out_is_passed_for_good(tap: ForkedTap, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fill_at(path, many(len(DAY)), received_at=DAY)
    first = tap.good({"source": url_of(path), "start_date": "2027-01-01"})
    second = tap.good({"source": url_of(path)}, state=first.state)
    assert first.counts() == second.counts() == {}
