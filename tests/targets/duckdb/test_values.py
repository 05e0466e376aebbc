"""Values come back exactly as they came, or there is one clear line."""

from __future__ import annotations

import datetime as dt
import json
import math
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tap_vero_segment.errors import UserError
from tests.support.duckdb_loading import Warehouse
from tests.support.odd import odd
from tests.support.rounds import by_rounds, rounds

if TYPE_CHECKING:
    from pathlib import Path

DATE_TIME = {"type": "string", "format": "date-time"}
DATE = {"type": "string", "format": "date"}
TIME = {"type": "string", "format": "time"}


def moment(*fields: int) -> dt.datetime:
    return dt.datetime(*fields)  # noqa: DTZ001  # a TIMESTAMP has no zone


FITTING = [
    ({"type": "integer"}, b"5", 5),
    ({"type": "integer"}, b"5.0", 5),
    ({"type": "integer"}, b"1e3", 1000),
    ({"type": "integer"}, b'"5"', 5),
    ({"type": "integer"}, b"18446744073709551617", 2**64 + 1),
    ({"type": "integer"}, b"-170141183460469231731687303715884105728", -(2**127)),
    ({"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, b"9007199254740993", 2**53 + 1),
    ({"type": "number"}, b"0.1", 0.1),
    ({"type": "number"}, b"5e-324", 5e-324),
    ({"type": ["integer", "number"]}, b"1.5e308", 1.5e308),
    ({"type": ["null", "boolean"]}, b"true", True),
    ({"type": ["null", "boolean"]}, b"null", None),
    (DATE_TIME, b'"2026-11-23T09:24:00.000001Z"', moment(2026, 11, 23, 9, 24, 0, 1)),
    (DATE_TIME, b'"2026-11-23T09:24:00+02:00"', moment(2026, 11, 23, 7, 24)),
    (DATE_TIME, b'"2026-11-23T09:24:00-0330"', moment(2026, 11, 23, 12, 54)),
    (DATE_TIME, b'"2026-11-23T09:24:00"', moment(2026, 11, 23, 9, 24)),
    (DATE_TIME, b'"2026-11-23 09:24:00"', moment(2026, 11, 23, 9, 24)),
    (DATE_TIME, b'"2026-11-23t09:24:00z"', moment(2026, 11, 23, 9, 24)),
    (DATE_TIME, b'"0001-01-01T00:00:00Z"', moment(1, 1, 1)),
    (DATE_TIME, b'"9999-12-31T23:59:59.999999Z"', moment(9999, 12, 31, 23, 59, 59, 999999)),
    (DATE, b'"2026-11-23"', dt.date(2026, 11, 23)),
    (DATE, b'"2026-11-23T00:00:00+00:00"', dt.date(2026, 11, 23)),
    (TIME, b'"12:00:00.5"', dt.time(12, 0, 0, 500000)),
    (TIME, b'"12:00:00+02:00"', dt.time(10)),
    ({"type": "string"}, b'""', ""),
    ({"type": "string"}, b'"null"', "null"),
    ({"type": "string"}, b'"\\u0000\\ud83d\\ude00"', "\0\N{GRINNING FACE}"),
    ({"type": "string"}, b'"cut \\ud83d"', "cut \N{REPLACEMENT CHARACTER}"),
    ({"type": "string", "contentEncoding": "base64"}, b'"AAE="', "AAE="),
    ({"type": ["string", "integer"]}, b"5", "5"),
    ({"enum": ["a", "b", None]}, b'"b"', "b"),
    ({"const": 5}, b"5", 5),
    ({"anyOf": [DATE_TIME, {"type": "null"}]}, b'"2026-11-23T00:00:00Z"', moment(2026, 11, 23)),
    ({"anyOf": [DATE_TIME, {"type": ["string", "null"]}]}, b'"soon"', "soon"),
    ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, b"7", 7),
    ({"type": ["null", "object"]}, b"null", None),
    ({"type": "object"}, b'{"b":1,"a":[1e400,null,12345678901234567890123]}',
     '{"b":1,"a":[1e400,null,12345678901234567890123]}'),
    ({"type": "array", "items": {}}, b"[]", "[]"),
    ({}, b'"text"', '"text"'),
    ({}, b"null", None),
    ({"type": ["array", "string"]}, b'"text"', '"text"'),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "sent", "expected"), FITTING)
def test_a_value_that_fits_comes_back(
    warehouse: Warehouse, schema: dict[str, Any], sent: bytes, expected: Any
) -> None:
    warehouse.load_records({"value": schema}, [b'{"value": %b}' % sent])
    [(value,)] = warehouse.rows()
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("schema", "sent", "kind"),
    [
        ({"type": "integer"}, b"5.7", "HUGEINT"),
        ({"type": "integer"}, b"true", "HUGEINT"),
        ({"type": "integer"}, b'""', "HUGEINT"),
        ({"type": "integer"}, b"1e40", "HUGEINT"),
        ({"type": "integer"}, b'"0x10"', "HUGEINT"),
        ({"type": "integer", "minimum": 0, "maximum": 100}, b"40000", "SMALLINT"),
        ({"type": "number"}, b"1e400", "DOUBLE"),
        ({"type": "number"}, b"true", "DOUBLE"),
        ({"type": "boolean"}, b"1", "BOOLEAN"),
        (DATE_TIME, b'"secret-value"', "TIMESTAMP"),
        (DATE_TIME, b'"infinity"', "TIMESTAMP"),
        (DATE_TIME, b"1700000000", "TIMESTAMP"),
        (DATE_TIME, b'""', "TIMESTAMP"),
        (DATE, b'"2026-11-23T05:00:00Z"', "DATE"),
        (TIME, b'"noon"', "TIME"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_that_names_it_and_nothing_is_loaded(
    warehouse: Warehouse, schema: dict[str, Any], sent: bytes, kind: str
) -> None:
    properties = {"id": {"type": "integer"}, "value": schema}
    with pytest.raises(UserError) as raised:
        warehouse.load_records(properties, [{"id": 1}, b'{"id": 2, "value": %b}' % sent], ["id"])
    problem = f"stream things: property value holds a value that does not fit {kind}"
    assert str(raised.value).startswith(problem)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert warehouse.rows() == []


def test_what_is_rounded_is_counted_and_reported(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    properties = {"number": {"type": "number"}, "time": DATE_TIME}
    records = [
        {"number": 2**53, "time": "2026-11-23T09:24:00.123456000Z"},
        {"number": 2**53 + 1},
        {"number": 1, "time": "2026-11-23T09:24:00.123456789Z"},
    ]
    warehouse.load_records(properties, records)
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("2 records hold numbers or times with more digits than ")


def test_odd_values_of_payloads_come_back(warehouse: Warehouse) -> None:
    sent = [json.dumps(payload) for payload in odd()]
    records = [
        {"id": number, "text": text, "json": json.loads(text)} for number, text in enumerate(sent)
    ]
    properties = {"id": {"type": "integer"}, "text": {"type": "string"}, "json": {}}
    warehouse.load_records(properties, records, ["id"])
    for (_, text, value), expected in zip(warehouse.rows(order="id"), sent, strict=True):
        assert text == expected
        assert json.loads(value) == json.loads(expected)


def test_a_property_that_is_absent_is_null_and_one_that_is_unknown_is_reported(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"value": 1, "Other": 2, "VALUE": 3}, {}]
    warehouse.load_records({"value": {"type": "integer"}}, records)
    assert warehouse.rows() == [(1,), (None,)]
    assert "properties that its schema lacks are ignored: Other, VALUE" in caplog.text


@pytest.mark.parametrize(
    "name", ['quo"ted', "sin'gle", "select", "a.b", "Größe", "With Space", "{brace}", "tab\tend"]
)
def test_any_name_is_a_column(warehouse: Warehouse, name: str) -> None:
    warehouse.load_records({name: {"type": "integer"}}, [{name: 5}, {name: 5}], [name])
    assert warehouse.rows() == [(5,)]
    assert list(warehouse.types()) == [name]


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"Id": {}, "id": {}}, "two properties are both id in DuckDB"),
        ({"": {}}, "a property has no name that a column could have"),
        ({}, "its schema has no properties"),
    ],
)
def test_names_that_cannot_be_columns_are_one_line(
    warehouse: Warehouse, properties: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        warehouse.load_records(properties, [])


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (b'{"id": 1, "id": 2}', "a record has the same property twice"),
        (b"null", "a record is not an object"),
        (b'{"value": "\xff"}', "a record is not valid JSON in UTF-8"),
    ],
)
def test_a_record_that_is_none_is_one_line(
    warehouse: Warehouse, record: bytes, problem: str
) -> None:
    properties = {"id": {"type": "integer"}, "value": {"type": "string"}}
    with pytest.raises(UserError, match=problem):
        warehouse.load_records(properties, [record])


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
INTEGERS = st.integers(-(2**127), 2**127 - 1)
TIMES = st.datetimes(
    dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda at: dt.timezone(dt.timedelta(minutes=at))),
)  # fmt: skip
PROPERTIES: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    "text": ({"type": ["null", "string"]}, TEXT),
    "whole": ({"type": ["null", "integer"]}, INTEGERS),
    "number": ({"type": ["null", "number"]}, NUMBERS),
    "truth": ({"type": ["null", "boolean"]}, st.booleans()),
    "time": ({**DATE_TIME, "type": ["null", "string"]}, TIMES.map(dt.datetime.isoformat)),
    "date": ({**DATE, "type": ["null", "string"]}, st.dates().map(dt.date.isoformat)),
    "object": ({"type": ["null", "object"]}, st.dictionaries(TEXT, JSON, max_size=4)),
    "list": ({"type": ["null", "array"]}, st.lists(JSON, max_size=4)),
    "any": ({}, JSON),
}
RECORDS = st.lists(
    st.fixed_dictionaries(
        {}, optional={name: st.none() | values for name, (_, values) in PROPERTIES.items()}
    ),
    min_size=1,
    max_size=30,
)
FILES = count()


@by_rounds
@given(RECORDS)
@settings(
    max_examples=rounds(90, least=20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_record_that_fits_its_schema_comes_back(tmp_path: Path, records: list[Any]) -> None:
    warehouse = Warehouse(tmp_path / f"{next(FILES)}.duckdb")
    properties = {"position": {"type": "integer"}} | {
        name: schema for name, (schema, _) in PROPERTIES.items()
    }
    numbered = [{"position": position, **record} for position, record in enumerate(records)]
    warehouse.load_records(properties, numbered, ["position"])
    loaded = warehouse.rows(order="position")
    for row, record in zip(loaded, numbered, strict=True):
        found = dict(zip(properties, row, strict=True))
        for name in properties:
            assert _same(found[name], record.get(name)), name


def _same(found: Any, sent: Any) -> bool:
    if isinstance(found, dt.datetime):
        return found.replace(tzinfo=dt.UTC) == dt.datetime.fromisoformat(sent)
    if isinstance(found, dt.date):
        return found.isoformat() == sent
    if isinstance(found, float):
        return found == sent and math.copysign(1, found) == math.copysign(1, sent)
    if isinstance(found, str) and found != sent:
        return bool(json.loads(found) == sent)
    return bool(found == sent)
