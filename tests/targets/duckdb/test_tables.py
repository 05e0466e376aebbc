"""Tables: keys, load methods, versions, schemas that change, and tables that others have made."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from singer_sdk.exceptions import MissingKeyPropertiesError

from tap_vero_segment.errors import UserError
from tests.support.duckdb_loading import (
    KEYED,
    Warehouse,
    record_message,
    schema_message,
    state_message,
)

INTEGER = {"type": "integer"}
TEXT = {"type": ["null", "string"]}


def keyed(*rows: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"id": key, "value": value} for key, value in rows]


def test_a_record_replaces_the_row_of_its_key_and_the_last_one_counts(
    warehouse: Warehouse,
) -> None:
    warehouse.load_records(KEYED, keyed((1, "a"), (2, "b"), (1, "c"), (1, "d")), ["id"])
    assert warehouse.rows() == [(1, "d"), (2, "b")]
    warehouse.load_records(KEYED, keyed((2, None), (3, "e")), ["id"])
    assert warehouse.rows() == [(1, "d"), (2, None), (3, "e")]


def test_a_key_of_several_properties(warehouse: Warehouse) -> None:
    properties = {"a": INTEGER, "b": TEXT, "value": TEXT}
    rows = [(1, "x", "1"), (1, "y", "2"), (1, "x", "3")]
    records = [dict(zip(properties, row, strict=True)) for row in rows]
    warehouse.load_records(properties, records, ["a", "b"])
    warehouse.load_records(properties, [{"a": 1, "b": "y", "value": "4"}], ["b", "a"])
    assert warehouse.rows() == [(1, "x", "3"), (1, "y", "4")]


def test_without_a_key_and_with_append_only_all_records_are_rows(warehouse: Warehouse) -> None:
    warehouse.load_records(KEYED, keyed((1, "a"), (1, "a")))
    warehouse.load_records(KEYED, keyed((1, "a"), (1, "b")), ["id"], load_method="append-only")
    assert warehouse.rows() == [(1, "a"), (1, "a"), (1, "a"), (1, "b")]


def test_overwrite_replaces_all_rows_at_once(warehouse: Warehouse) -> None:
    warehouse.load_records(KEYED, keyed((1, "a"), (2, "b")), ["id"])
    lines = [
        schema_message(KEYED, ["id"]),
        record_message({"id": 3, "value": "c"}),
        state_message({"position": 1}),
        record_message({"id": 4, "value": "d"}),
        state_message({"position": 2}),
    ]
    config = {"load_method": "overwrite", "batch_size_rows": 1}
    with pytest.raises(UserError):
        warehouse.load([*lines, record_message({"id": "x"})], **config)
    assert warehouse.rows() == [(1, "a"), (2, "b")]
    assert warehouse.load(lines, **config) == [{"position": 2}]
    assert warehouse.rows() == [(3, "c"), (4, "d")]


@pytest.mark.parametrize("record", [{"value": "a"}, {"id": None, "value": "a"}])
def test_a_record_without_a_key_is_an_error(warehouse: Warehouse, record: dict[str, Any]) -> None:
    with pytest.raises(MissingKeyPropertiesError, match="stream things: 1 without a value of id"):
        warehouse.load_records(KEYED, [*keyed((1, "a")), record], ["id"])
    assert warehouse.rows() == []


def test_a_key_that_is_no_property_is_an_error(warehouse: Warehouse) -> None:
    with pytest.raises(UserError, match="its key ID is not among its properties"):
        warehouse.load_records(KEYED, [], ["ID"])


def test_a_state_follows_the_commit_of_all_before_it(warehouse: Warehouse) -> None:
    lines = [state_message({"position": 0}), schema_message(KEYED, ["id"])]
    for number in range(1, 6):
        lines.append(record_message({"id": number}))
        lines.append(state_message({"position": number}))
    states = warehouse.load([*lines, state_message({"position": 5})], batch_size_rows=2)
    # The record that is one too many has the two before it loaded.
    assert states == [{"position": 0}, {"position": 2}, {"position": 4}, {"position": 5}]


def test_what_fails_leaves_no_state_beyond_what_is_loaded(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        schema_message(KEYED, ["id"]),
        record_message({"id": 1}),
        state_message({"position": 1}),
        record_message({"id": "no number"}),
        state_message({"position": 2}),
    ]
    with pytest.raises(UserError):
        warehouse.load(lines)
    assert warehouse.rows() == []


@pytest.mark.parametrize("hard", [False, True])
def test_rows_of_an_older_version_are_marked_or_deleted(warehouse: Warehouse, hard: bool) -> None:  # noqa: FBT001
    def run(version: int, *keys: int) -> None:
        lines = [record_message({"id": key}, version=version) for key in keys]
        activate = {"type": "ACTIVATE_VERSION", "stream": "things", "version": version}
        last = json.dumps(activate).encode()
        warehouse.load([schema_message(KEYED, ["id"]), *lines, last], hard_delete=hard)

    run(1, 1, 2)
    run(2, 2, 3)
    run(3, 1, 2)
    alive = "SELECT id FROM things WHERE _sdc_deleted_at IS NULL ORDER BY id"
    assert warehouse.query(alive) == [(1,), (2,)]
    assert warehouse.query("SELECT count(*) FROM things") == [(2,) if hard else (3,)]


def test_rows_that_the_tap_marks_as_deleted_can_be_deleted(warehouse: Warehouse) -> None:
    deleted = {"id": 2, "_sdc_deleted_at": "2026-11-23T00:00:00Z"}
    warehouse.load_records(KEYED, [*keyed((1, "a"), (2, "b"))], ["id"], hard_delete=True)
    warehouse.load_records(KEYED, [deleted], ["id"], hard_delete=True)
    assert warehouse.query("SELECT id FROM things") == [(1,)]


def test_metadata_columns(warehouse: Warehouse) -> None:
    lines = [
        schema_message(KEYED, ["id"]),
        record_message({"id": 1}, time_extracted="2026-11-23T01:00:00+01:00", version=7),
        record_message({"id": 2, "_sdc_extracted_at": "x"}),
    ]
    warehouse.load(lines, add_record_metadata=True)
    columns = "id, _sdc_extracted_at::VARCHAR, _sdc_table_version, _sdc_received_at > '2026-01-01'"
    assert warehouse.query(f"SELECT {columns} FROM things ORDER BY id") == [
        (1, "2026-11-23 00:00:00", 7, True),
        (2, None, None, True),
    ]


def test_a_new_property_is_a_new_column_and_others_keep_their_values(
    warehouse: Warehouse,
) -> None:
    warehouse.load_records(KEYED, keyed((1, "a"), (2, "b")), ["id"])
    properties = {"id": INTEGER, "more": TEXT}
    lines = [
        schema_message(KEYED, ["id"]),
        record_message({"id": 3, "value": "c"}),
        schema_message(properties, ["id"]),  # within a run
        record_message({"id": 1, "more": "x"}),
        record_message({"id": 4}),
    ]
    warehouse.load(lines)
    assert warehouse.rows() == [
        (1, "a", "x"),
        (2, "b", None),
        (3, "c", None),
        (4, None, None),
    ]


@pytest.mark.parametrize(
    ("before", "after", "value", "kind", "expected"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 9}, INTEGER, 2**70, "HUGEINT", [5, 2**70]),
        (INTEGER, {"type": "number"}, 1.5, "DOUBLE", [5.0, 1.5]),
        (INTEGER, TEXT, "x", "VARCHAR", ["5", "x"]),
        (INTEGER, {"type": "object"}, {"a": 1}, "JSON", ["5", '{"a":1}']),
        ({"type": "number"}, INTEGER, 7, "DOUBLE", [5.0, 7.0]),
        (TEXT, INTEGER, 7, "VARCHAR", ["5", "7"]),
        ({}, TEXT, "x", "JSON", ["5", '"x"']),
    ],
)
def test_a_type_that_is_too_narrow_is_widened(
    warehouse: Warehouse, before: Any, after: Any, value: Any, kind: str, expected: list[Any]
) -> None:
    warehouse.load_records({"id": INTEGER, "value": before}, keyed((1, 5)), ["id"])
    warehouse.load_records({"id": INTEGER, "value": after}, keyed((2, value)), ["id"])
    assert warehouse.types()["value"] == kind
    assert [row[1] for row in warehouse.rows(order="id")] == expected


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ({"type": "boolean"}, True, INTEGER),
        (INTEGER, 2**53 + 1, {"type": "number"}),
        ({"type": "string", "format": "date-time"}, "2026-11-23T00:00:00Z", INTEGER),
    ],
)
def test_a_type_that_cannot_change_is_one_line(
    warehouse: Warehouse, before: Any, value: Any, after: Any
) -> None:
    warehouse.load_records({"id": INTEGER, "value": before}, keyed((1, value)), ["id"])
    rows = warehouse.rows()
    with pytest.raises(UserError) as raised:
        warehouse.load_records({"id": INTEGER, "value": after}, keyed((2, 5)), ["id"])
    assert str(raised.value).startswith("stream things: column value of table things is ")
    assert warehouse.rows() == rows


OLD_DDL = """CREATE TABLE things ("anonymous_id" varchar, "context" json, "id" varchar,
"loaded_at" timestamp, "number" hugeint, "small" smallint, "truth" boolean, "ratio" double,
"at" time, "day" varchar, PRIMARY KEY ("id"))"""
"""What ``target-duckdb`` 0.8.0 executes for the properties below, as its ``db_sync.py`` says."""


def test_it_loads_into_the_tables_of_target_duckdb(warehouse: Warehouse) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute(OLD_DDL)
        connection.execute("INSERT INTO things (id, anonymous_id) VALUES ('a', 'x'), ('b', 'y')")
    properties = {
        "Id": {"type": "string"},
        "anonymous_id": TEXT,
        "context": {"type": ["null", "object"]},
        "loaded_at": {"anyOf": [{"type": "string", "format": "date-time"}, TEXT]},
        "number": INTEGER,
        "small": {"type": "integer", "maximum": 100},
        "truth": {"type": "boolean"},
        "ratio": {"type": "number"},
        "at": {"type": "string", "format": "time"},
        "day": {"type": "string", "format": "date"},
        "new": TEXT,
    }
    record = {
        "Id": "b",
        "context": {"a": 1},
        "loaded_at": "2026-11-23T02:00:00+02:00",
        "number": 2**70,
        "small": 5,
        "truth": True,
        "ratio": 0.5,
        "at": "12:00:00",
        "day": "2026-11-23",
    }
    warehouse.load_records(properties, [record, {"Id": "c"}, {"Id": "c", "new": "n"}], ["Id"])
    chosen = "id, anonymous_id, context, loaded_at::VARCHAR, number, truth, day, new"
    assert warehouse.query(f"SELECT {chosen} FROM things ORDER BY id") == [
        ("a", "x", None, None, None, None, None, None),
        ("b", None, '{"a":1}', "2026-11-23 00:00:00", 2**70, True, "2026-11-23", None),
        ("c", None, None, None, None, None, None, "n"),
    ]


@pytest.mark.parametrize(
    ("stream", "default", "table"),
    [
        ("users", None, "main.users"),
        ("public-users", None, "public.users"),
        ("shop-public-users-old", None, "public.users_old"),
        ("public-users", "vero", "vero.users"),
        ("a.b", None, "main.a_b"),
        ("Test:Special!", None, 'main."Test:Special!"'),
    ],
)
def test_a_streams_name_is_its_schemas_and_its_tables(
    warehouse: Warehouse, stream: str, default: str | None, table: str
) -> None:
    lines = [schema_message(KEYED, ["id"], stream), record_message({"id": 1}, stream)]
    warehouse.load(lines, default_target_schema=default)
    assert warehouse.rows(table) == [(1, None)]


def test_two_streams_of_one_table_are_one_line(warehouse: Warehouse) -> None:
    lines = [schema_message(KEYED, ["id"], "a.b"), schema_message(KEYED, ["id"], "A_b")]
    with pytest.raises(UserError, match=r"streams a\.b and A_b both go to the table"):
        warehouse.load(lines)


def test_stream_maps_and_flattening_change_records_first(warehouse: Warehouse) -> None:
    properties = {
        "id": INTEGER,
        "value": TEXT,
        "inner": {"type": "object", "properties": {"a": INTEGER, "b": {"type": "object"}}},
    }
    warehouse.load_records(
        properties,
        [{"id": 1, "value": "x", "inner": {"a": 2**60 + 1, "b": {"c": 1}}}, {"id": 2}],
        ["id"],
        stream_maps={"things": {"value": None, "twice": "id * 2", "__filter__": "id == 1"}},
        flattening_enabled=True,
        flattening_max_depth=1,
    )
    names = "id, inner__a, inner__b, twice"
    assert warehouse.query(f"SELECT {names} FROM things") == [(1, 2**60 + 1, '{"c":1}', "2")]


def test_a_file_and_a_schema_of_one_name(warehouse: Warehouse) -> None:
    path = warehouse.path.with_name("vero.duckdb")
    other = Warehouse(path, default_target_schema="vero")
    other.load_records(KEYED, keyed((1, "a")), ["id"])
    assert other.rows("vero.vero.things") == [(1, "a")]


def test_more_rows_than_a_guess_looks_at(warehouse: Warehouse) -> None:
    """DuckDB guesses a CSV file's dialect by its first 20,480 rows; here nothing is guessed."""

    def run(start: int, stop: int, value: str) -> None:
        records = [{"id": number, "value": value} for number in range(start, stop)]
        warehouse.load_records(KEYED, records, ["id"])

    run(0, 20_600, "plain")
    assert warehouse.query("SELECT count(*) FROM things") == [(20_600,)]
    run(20_600, 20_650, 'with, "comma"')
    counted = "SELECT value, count(*) FROM things GROUP BY value ORDER BY value"
    assert warehouse.query(counted) == [("plain", 20_600), ('with, "comma"', 50)]
