"""Streams and columns that stream maps and catalogs name, and that there are not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tap_vero_segment.errors import UserError
from tests.support.inline_tap import inline_tap
from tests.support.stored import url_of
from tests.support.streams import DEFAULT_STREAMS, catalog_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.forked_tap import ForkedTap

SOURCE = {"source": "sqlite:///not-opened.db"}
EMAIL = "context_traits_email"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        pytest.param({"email_snt": None}, "email_sent was meant", id="stream"),
        pytest.param({"email_snt": "__NULL__"}, "email_sent was meant", id="stream-as-text"),
        pytest.param({"email_snt": {EMAIL: None}}, "email_sent was meant", id="column-of-none"),
        pytest.param({"Email_sent": {EMAIL: "'x'"}}, "email_sent was meant", id="capital"),
        pytest.param({"email_snt": {"__else__": None}}, "no stream email_snt", id="else-of-none"),
        pytest.param(
            {"email_snt": {"__filter__": "user_id"}}, "no stream email_snt", id="filter-of-none"
        ),
        pytest.param({"mail_*": {EMAIL: None}}, "no stream mail_*", id="glob-of-none"),
        pytest.param(
            {"masked": {"__source__": "email_snt", EMAIL: None}},
            "email_sent was meant",
            id="source",
        ),
        pytest.param({"tracks": {"context_trait_email": None}}, f"{EMAIL} was meant", id="null"),
        pytest.param({"tracks": {"nobody": None}}, "no column nobody", id="null-far-off"),
        pytest.param({"tracks": {"link_url": None}}, "no column link_url", id="of-another-stream"),
        pytest.param({"*": {"context_trait_email": "__NULL__"}}, f"{EMAIL} was", id="null-as-text"),
        pytest.param(
            {"email_*": {"context_trait_email": f"md5({EMAIL})"}}, f"{EMAIL} was meant", id="md5"
        ),
        pytest.param(
            {"tracks": {"context_trait_email": f"sha256(config['s'] + {EMAIL})[:9]"}},
            f"{EMAIL} was meant",
            id="sha256",
        ),
        pytest.param({"tracks": {"context_trait_email": "'hidden'"}}, "was meant", id="constant"),
        pytest.param({"tracks": {"context_trait_email": "fake.email()"}}, "was meant", id="faker"),
        pytest.param(
            {"tracks": {"__alias__": "t", "context_trait_email": None}}, "was meant", id="alias"
        ),
    ],
)
def test_what_is_to_be_removed_or_masked_and_does_not_exist_ends_the_run(
    maps: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as error, inline_tap(SOURCE | {"stream_maps": maps}):
        pass
    assert str(error.value).startswith("stream_maps.")
    assert said in str(error.value)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param(
            {"stream_maps": {"email_snt": {"x": "id"}}}, "no stream email_snt", id="stream"
        ),
        pytest.param(
            {"stream_maps": {"__else__": None, "email_snt": {EMAIL: None}}},
            "no stream email_snt",
            id="nothing-else-goes-out",
        ),
        pytest.param(
            {
                "stream_maps": {
                    "tracks": {"id": "id", "__else__": None, "context_trait_email": None}
                }
            },
            "no column context_trait_email",
            id="no-other-column-goes-out",
        ),
        pytest.param(
            {"stream_maps": {"email_sent": {"campaign_nam": "campaign_name"}}},
            "campaign_name was meant",
            id="near",
        ),
        pytest.param(
            {"stream_maps": {"tracks": {"email_hash": f"md5({EMAIL})"}}},
            f"set {EMAIL} to null",
            id="hashed-and-plain",
        ),
        pytest.param({"flattening_max_key_length": 9}, "flattening_enabled", id="flattening"),
        pytest.param({"faker_config": {"seed": 1}}, "faker_config", id="faker"),
    ],
)
def test_what_has_no_effect_is_said(
    log: pytest.LogCaptureFixture, more: dict[str, Any], said: str
) -> None:
    with inline_tap(SOURCE | more):
        pass
    (warning,) = [record.getMessage() for record in log.records]
    assert said in warning


@pytest.mark.parametrize(
    "maps",
    [
        {"*": {"link_url": None, EMAIL: f"md5({EMAIL})"}},
        {"email_*": {"__alias__": "'raw_' + __stream_name__", "sender_ip": None}},
        {"tracks": {"email_hash": f"md5({EMAIL})", EMAIL: None, "copied": "event"}},
        {
            "user_created": {EMAIL: None},
            "copy": {"__source__": "tracks", "__else__": None, "id": "id"},
        },
        {"__else__": "__NULL__", "tracks": {"loaded": "loaded_at", "channel": "'email'"}},
    ],
)
def test_maps_of_what_exists_and_new_columns_are_nothing_to_tell_of(
    log: pytest.LogCaptureFixture, maps: dict[str, Any]
) -> None:
    catalog = catalog_of("tracks")  # a deselected stream exists
    with inline_tap(SOURCE | {"stream_maps": maps}, catalog=catalog):
        assert log.records == []


def test_columns_that_get_one_name_by_flattening_are_told_by_the_setting(
    tap: ForkedTap, one_of_each: Path
) -> None:
    flattening = {"flattening_enabled": True, "flattening_max_depth": 2}
    run = tap.run({"source": url_of(one_of_each), "flattening_max_key_length": 8} | flattening)
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert run.status == 1
    assert "flattening_max_key_length: too short" in error
    assert "Traceback" not in run.stderr


def entry_of(catalog: dict[str, Any], stream: str) -> dict[str, Any]:
    return next(each for each in catalog["streams"] if each["tap_stream_id"] == stream)


def unknown_column(*, selected: bool, described: bool = False) -> dict[str, Any]:
    catalog = catalog_of(*DEFAULT_STREAMS)
    entry = entry_of(catalog, "tracks")
    breadcrumb = ["properties", "context_trait_email"]
    entry["metadata"].append({"breadcrumb": breadcrumb, "metadata": {"selected": selected}})
    if described:
        entry["schema"]["properties"]["context_trait_email"] = {"type": ["string", "null"]}
    return catalog


def test_a_column_that_a_catalog_leaves_out_must_exist(log: pytest.LogCaptureFixture) -> None:
    with (
        pytest.raises(UserError, match=f"{EMAIL} was meant"),
        inline_tap(SOURCE, catalog=unknown_column(selected=False)),
    ):
        pass
    with inline_tap(SOURCE, catalog=unknown_column(selected=True)):
        (warning,) = log.records
    assert f"{EMAIL} was meant" in warning.getMessage()


def test_a_stream_that_a_catalog_names_must_exist(log: pytest.LogCaptureFixture) -> None:
    catalog = catalog_of("tracks")
    catalog["streams"].append(entry_of(catalog, "tracks") | {"tap_stream_id": "track"})
    with inline_tap(SOURCE, catalog=catalog):
        (warning,) = log.records
    assert "no stream track" in warning.getMessage()


def spoilt(**fields: Any) -> dict[str, Any]:
    catalog = catalog_of("tracks")
    entry_of(catalog, "tracks").update(fields)
    return catalog


def without(name: str) -> dict[str, Any]:
    catalog = catalog_of("tracks")
    del entry_of(catalog, "tracks")[name]
    return catalog


@pytest.mark.parametrize(
    ("catalog", "where"),
    [
        pytest.param([], "the file", id="list"),
        pytest.param({}, "streams", id="no-streams"),
        pytest.param({"streams": {}}, "streams", id="streams-no-list"),
        pytest.param({"streams": [None]}, "streams[0]", id="stream-null"),
        pytest.param(without("tap_stream_id"), "tap_stream_id", id="no-id"),
        pytest.param(spoilt(tap_stream_id=7), "tap_stream_id", id="id-number"),
        pytest.param(spoilt(schema=None), "schema", id="schema-null"),
        pytest.param(spoilt(schema={}), "properties is missing", id="schema-empty"),
        pytest.param(spoilt(schema={"properties": {}}), "lacks the column id", id="no-columns"),
        pytest.param(spoilt(schema={"properties": {"id": None}}), "id", id="column-null"),
        pytest.param(spoilt(metadata={}), "metadata", id="metadata-no-list"),
        pytest.param(spoilt(metadata=[{"breadcrumb": []}]), "metadata", id="no-metadata"),
        pytest.param(
            spoilt(metadata=[{"breadcrumb": [], "metadata": {"selected": "no"}}]),
            "selected",
            id="selected-text",
        ),
        pytest.param(spoilt(key_properties="id"), "key_properties", id="key-text"),
    ],
)
def test_what_is_not_a_catalog_is_told_by_its_place(
    tap: ForkedTap, one_of_each: Path, catalog: Any, where: str
) -> None:
    run = tap.run({"source": url_of(one_of_each)}, catalog=catalog)
    (error,) = [line for line in run.stderr.splitlines() if "ERROR" in line]
    assert run.status == 1
    assert run.stdout == b""
    assert "--catalog: " in error
    assert where in error
    assert "Traceback" not in run.stderr
