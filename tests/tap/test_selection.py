"""Selection, stream maps and flattening: honoured in every message, on both ways to write one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.tap import messages as messages_module
from tap_vero_segment.tap.messages import deselected_columns
from tests.support.calls import fill_full
from tests.support.contract import COLUMNS, TRACKS_COLUMNS
from tests.support.inline_tap import inline_tap, sync_inline
from tests.support.odd import odd
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.streams import ALL_STREAMS, DEFAULT_STREAMS, EMAIL_STREAMS, catalog_of
from tests.support.tap import select
from tests.support.validation import assert_records_fit_their_schemas

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap
    from tests.support.tap import Messages

EMAIL = "steve@getvero.com"


def good(
    tap: ForkedTap, path: Path, catalog: dict[str, Any] | None = None, **config: Any
) -> Messages:
    """Run on a store; each record must fit the schema that goes before it."""
    messages = tap.good({"source": url_of(path)} | config, catalog=catalog)
    assert_records_fit_their_schemas(messages)
    return messages


def without_column(column: str, *streams: str) -> dict[str, Any]:
    """A catalog with these streams selected, and the column deselected in each."""
    catalog = catalog_of(*streams)
    for stream in streams:
        select(catalog, stream, column=column, selected=False)
    return catalog


def cut_column(catalog: dict[str, Any], stream: str, column: str) -> None:
    """Remove a column from a catalog, as a person would with an editor."""
    (entry,) = (entry for entry in catalog["streams"] if entry["tap_stream_id"] == stream)
    del entry["schema"]["properties"][column]
    entry["metadata"] = [
        metadata
        for metadata in entry["metadata"]
        if metadata["breadcrumb"] != ["properties", column]
    ]


def deselect_inside_context(catalog: dict[str, Any], stream: str, *keys: str) -> None:
    (entry,) = (entry for entry in catalog["streams"] if entry["tap_stream_id"] == stream)
    breadcrumb = ["properties", "context"]
    for key in keys:
        breadcrumb += ["properties", key]
    entry["metadata"].append({"breadcrumb": breadcrumb, "metadata": {"selected": False}})


def test_a_deselected_address_is_in_no_message(tap: ForkedTap, one_of_each: Path) -> None:
    config = {"source": url_of(one_of_each)}
    whole = tap.run(config, catalog=catalog_of(*ALL_STREAMS))
    cut = tap.run(config, catalog=without_column("context_traits_email", *ALL_STREAMS))
    for text in (b"context_traits_email", EMAIL.encode()):
        assert text in whole.stdout
        assert text not in cut.stdout
    assert cut.messages.counts() == whole.messages.counts()
    assert_records_fit_their_schemas(cut.messages)


def test_a_column_deselected_in_one_stream_stays_in_the_others(
    tap: ForkedTap, one_of_each: Path
) -> None:
    catalog = catalog_of("tracks", "email_sent")
    select(catalog, "tracks", column="context_traits_email", selected=False)
    messages = good(tap, one_of_each, catalog)
    (sent,) = messages.records["email_sent"]
    assert sent["context_traits_email"] == EMAIL
    assert not any("context_traits_email" in record for record in messages.records["tracks"])


def test_key_columns_cannot_be_deselected(tap: ForkedTap, one_of_each: Path) -> None:
    catalog = catalog_of("tracks")
    for column in ("id", "loaded_at", "received_at"):
        select(catalog, "tracks", column=column, selected=False)
    messages = good(tap, one_of_each, catalog)
    for record in messages.records["tracks"]:
        assert {"id", "loaded_at"} <= record.keys()
        assert "received_at" not in record


def test_a_column_cut_from_the_catalog_is_in_no_message(tap: ForkedTap, one_of_each: Path) -> None:
    catalog = catalog_of("email_sent")
    cut_column(catalog, "email_sent", "context_traits_email")
    config = {"source": url_of(one_of_each)}
    run = tap.run(config, catalog=catalog)
    assert run.messages.counts() == {"email_sent": 1}
    assert b"context_traits_email" not in run.stdout
    assert EMAIL.encode() not in run.stdout
    assert_records_fit_their_schemas(run.messages)


def test_what_lies_inside_a_column_is_deselected_in_its_own_stream_only(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    fill_full(path)
    catalog = catalog_of("email_sent", "tracks")
    deselect_inside_context(catalog, "email_sent", "library", "version")
    messages = good(tap, path, catalog)
    (sent,) = messages.records["email_sent"]
    assert sent["context"] == {"library": {"name": "vero"}}
    for record in messages.records["tracks"]:
        assert record["context"] == {"library": {"name": "vero", "version": "1"}}


def test_a_stream_map_renames_a_column(tap: ForkedTap, one_of_each: Path) -> None:
    maps = {"email_sent": {"recipient": "context_traits_email", "context_traits_email": "__NULL__"}}
    messages = good(tap, one_of_each, stream_maps=maps)
    (sent,) = messages.records["email_sent"]
    assert sent["recipient"] == EMAIL
    assert "context_traits_email" not in sent
    assert "recipient" in messages.schemas["email_sent"]["properties"]
    assert "context_traits_email" not in messages.schemas["email_sent"]["properties"]
    assert all(record["context_traits_email"] == EMAIL for record in messages.records["tracks"])


def test_a_stream_map_filters_and_the_bookmark_passes_what_it_left_out(
    tap: ForkedTap, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    fill(path, many(60))
    config = {"stream_maps": {"tracks": {"__filter__": "event == 'email_opened'"}}}
    catalog = catalog_of("tracks", "email_opened")
    messages = good(tap, path, catalog, **config)
    assert messages.ids("tracks") == messages.ids("email_opened") != []
    again = tap.good({"source": url_of(path)} | config, catalog=catalog, state=messages.state)
    assert again.counts() == {}


def test_a_stream_map_hashes(tap: ForkedTap, one_of_each: Path) -> None:
    maps = {"*": {"context_traits_email": "sha256(context_traits_email)"}}
    messages = good(tap, one_of_each, stream_maps=maps)
    expected = hashlib.sha256(EMAIL.encode()).hexdigest()
    for stream in DEFAULT_STREAMS:
        assert {row["context_traits_email"] for row in messages.records[stream]} == {expected}


def test_a_stream_map_drops_a_stream(tap: ForkedTap, one_of_each: Path) -> None:
    messages = good(tap, one_of_each, stream_maps={"email_opened": "__NULL__"})
    assert messages.schemas.keys() == DEFAULT_STREAMS - {"email_opened"}
    assert messages.counts() == dict.fromkeys(EMAIL_STREAMS - {"email_opened"}, 1) | {"tracks": 7}


def test_a_stream_map_drops_all_that_it_does_not_name(tap: ForkedTap, one_of_each: Path) -> None:
    maps = {"email_sent": {}, "__else__": "__NULL__"}
    messages = good(tap, one_of_each, stream_maps=maps)
    assert messages.schemas.keys() == {"email_sent"}
    assert messages.counts() == {"email_sent": 1}


def test_a_stream_map_names_a_stream_anew_and_adds_another(
    tap: ForkedTap, one_of_each: Path
) -> None:
    maps = {
        "email_sent": {"__alias__": "sent"},
        "bounces": {
            "__source__": "email_bounced",
            "__else__": None,
            "id": "id",
            "code": "bounce_code",
        },
    }
    messages = good(tap, one_of_each, stream_maps=maps)
    assert messages.schemas.keys() == DEFAULT_STREAMS - {"email_sent"} | {"sent", "bounces"}
    assert len(messages.records["sent"]) == len(messages.records["email_bounced"]) == 1
    (bounce,) = messages.records["bounces"]
    assert bounce == {"id": messages.ids("email_bounced")[0], "code": "550"}


def test_flattening_leaves_no_object_and_loses_nothing(tap: ForkedTap, one_of_each: Path) -> None:
    import json

    plain = good(tap, one_of_each)
    flat = good(tap, one_of_each, flattening_enabled=True, flattening_max_depth=3)
    for stream in DEFAULT_STREAMS:
        for before, after in zip(plain.records[stream], flat.records[stream], strict=True):
            for column, value in before.items():
                if isinstance(value, dict):
                    assert json.loads(after[column]) == value
                else:
                    assert after[column] == value


@pytest.mark.parametrize(
    ("deselected", "change"),
    [
        pytest.param(set(), {}, id="plain"),
        pytest.param({"context_ip"}, {"deselect": "context_ip"}, id="column-deselected"),
        pytest.param({"link_url"}, {"deselect": "link_url"}, id="own-column-deselected"),
        pytest.param(set(), {"deselect": "id"}, id="key-deselected"),
        pytest.param(None, {"inside": "locale"}, id="deselected-inside-a-column"),
        pytest.param(None, {"cut": "campaign_tags"}, id="column-cut-from-the-catalog"),
        pytest.param(None, {"stream_maps": {"email_sent": {}}}, id="empty-map"),
        pytest.param(None, {"stream_maps": {"email_*": {"a": "id"}}}, id="wildcard-map"),
        pytest.param(None, {"stream_maps": {"email_sent": {"__alias__": "s"}}}, id="alias"),
        pytest.param(None, {"stream_maps": {"s": {"__source__": "email_sent"}}}, id="copy"),
        pytest.param(None, {"stream_maps": {"email_sent": "__NULL__"}}, id="dropped"),
        pytest.param(None, {"stream_maps": {"__else__": "__NULL__"}}, id="not-named"),
        pytest.param(set(), {"stream_maps": {"tracks": {"a": "id"}}}, id="map-of-another-stream"),
        pytest.param(
            None, {"flattening_enabled": True, "flattening_max_depth": 1}, id="flattening"
        ),
        pytest.param(
            set(), {"flattening_enabled": False, "flattening_max_depth": 1}, id="flattening-off"
        ),
    ],
)
def test_only_what_is_deselected_as_a_column_is_left_out_directly(
    deselected: set[str] | None, change: dict[str, Any]
) -> None:
    stream = "email_link_clicked" if change.get("deselect") == "link_url" else "email_sent"
    catalog = catalog_of(stream, "tracks")
    config = {"source": "sqlite:///not-opened.db"} | change
    if column := config.pop("deselect", None):
        select(catalog, stream, column=column, selected=False)
    if column := config.pop("cut", None):
        cut_column(catalog, "email_sent", column)
    if key := config.pop("inside", None):
        deselect_inside_context(catalog, "email_sent", key)
    with inline_tap(config, catalog=catalog) as tap:
        assert deselected_columns(tap.streams[stream]) == deselected


DESELECTED: list[dict[str, Sequence[str]]] = [
    {},
    dict.fromkeys(ALL_STREAMS, ("context_ip", "context_traits_email")),
    {"tracks": ["user_id", "context"]},
    {"email_sent": ["properties", "campaign_id", "received_at"], "tracks": ["event"]},
    {
        "email_bounced": [
            name for name in COLUMNS["email_bounced"] if name not in {"id", "loaded_at"}
        ]
    },
    {"email_opened": sorted(set(COLUMNS["email_opened"]) - set(TRACKS_COLUMNS))},
]


@pytest.mark.parametrize("deselected", DESELECTED, ids=map(str, range(len(DESELECTED))))
def test_both_ways_to_write_a_record_give_the_same_messages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deselected: dict[str, Sequence[str]]
) -> None:
    path = tmp_path / "store.db"
    ids = fill(path, [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES] + odd())
    runs = []
    for directly in (True, False):
        if not directly:
            monkeypatch.setattr(messages_module, "deselected_columns", lambda _: None)
        catalog = catalog_of(*ALL_STREAMS)
        for stream, columns in deselected.items():
            for column in columns:
                select(catalog, stream, column=column, selected=False)
        messages = sync_inline({"source": url_of(path)}, catalog=catalog)
        for message in messages.all:
            if message["type"] == "RECORD":
                assert message.pop("time_extracted")
        runs.append(messages.all)
    directly_written, by_the_sdk = runs
    assert directly_written == by_the_sdk
    assert len(directly_written) > len(ids)
    for stream, columns in deselected.items():
        for record in messages.records[stream]:
            assert not record.keys() & set(columns)
