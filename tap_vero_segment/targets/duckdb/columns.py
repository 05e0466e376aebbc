"""From a property's JSON schema to a column's type, and from JSON to the column's values.

DuckDB's own conversion from JSON is lenient: it rounds 5.7 to 6, takes true for 1, and (from 1.4
on) ignores the offset of a time. So every property arrives as text, and the expressions here
convert it or refuse it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

JSON: Final = "JSON"
TEXT: Final = "VARCHAR"
MISFIT: Final = "does not fit"
"""What the error about a value says, so that it can be told from DuckDB's own errors."""

_INTEGERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
"""Types of whole numbers, from the narrowest to the widest."""

_BITS: Final = {"SMALLINT": 15, "INTEGER": 31, "BIGINT": 63}

_TIMES: Final = {"date-time": "TIMESTAMP", "date": "DATE", "time": "TIME"}
"""The formats of text that have a type of their own."""

_PLAIN: Final = frozenset({*_INTEGERS, "DOUBLE", "BOOLEAN"})
"""Types whose values are the same as text."""

_WIDER: Final = {("DATE", "TIMESTAMP"), *((kind, "DOUBLE") for kind in _INTEGERS)}
"""Pairs of types of which the second holds what the first does."""

_MOMENT: Final = "make_timestamp(epoch_us(TRY_CAST({before}upper({{column}}) AS TIMESTAMPTZ)))"
_DATE: Final = r"^(\d{{4}}-\d\d-\d\d)([T ]00:00(:00(\.0+)?)?(Z|[+-]00(:?00)?)?)?$"

_INTEGER: Final = (
    "CASE WHEN regexp_full_match({column}, '-?[0-9]+') THEN TRY_CAST({column} AS {kind}) "
    "WHEN trunc({number}) = {number} THEN TRY_CAST({number} AS {kind}) END"
)
_NUMBER: Final = (
    "CASE WHEN CAST(TRY_CAST({column} AS {kind}) AS DOUBLE) = {number} "
    "THEN TRY_CAST({column} AS {kind}) END"
)
_ANY: Final = "TRY_CAST({column} AS {kind})"
_CONVERSIONS: Final = {
    "BOOLEAN": "CASE {column} WHEN 'true' THEN true WHEN 'false' THEN false END",
    "DOUBLE": "CASE WHEN NOT isinf({number}) OR {column} ILIKE '%inf%' THEN {number} END",
    # The first form is what most taps write, and ten times as fast.
    "TIMESTAMP": (
        "CASE WHEN {column}[-1] = 'Z' THEN TRY_CAST({column} AS TIMESTAMP) "
        f"WHEN {{column}}[5] = '-' THEN {_MOMENT.format(before='')} END"
    ),
    "TIME": f"""CAST({_MOMENT.format(before="'1970-01-02T' || ")} AS TIME)""",
    "DATE": f"TRY_CAST(regexp_extract({{column}}, '{_DATE}', 1) AS DATE)",
}
"""The SQL that converts a text to a type, to NULL if it does not fit."""

_KINDS: Final = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def column_type(schema: Mapping[str, Any]) -> str:
    """Return the type of the column for a property.

    What ``target-duckdb`` 0.8.0 chose, wherever that can hold every value of the property.
    """
    leaves = list(_leaves(schema))
    kinds = {kind for leaf in leaves for kind in _kinds(leaf)} - {"null"}
    if kinds == {"string"}:
        formats = {leaf.get("format") for leaf in leaves if "string" in _kinds(leaf)}
        return _TIMES.get(formats.pop() or "", TEXT) if len(formats) == 1 else TEXT
    if kinds == {"boolean"}:
        return "BOOLEAN"
    if kinds == {"integer"}:
        return _integer_type(leaves)
    if kinds and kinds <= {"integer", "number"}:
        return "DOUBLE"
    if "string" in kinds and kinds.isdisjoint({"object", "array"}):
        return TEXT
    return JSON


def _leaves(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the alternatives of a schema."""
    if not isinstance(schema, dict):
        yield {}  # true: anything
        return
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(name), list):
            for part in schema[name]:
                rest = {key: value for key, value in schema.items() if key != name}
                yield from _leaves({**rest, **part} if isinstance(part, dict) else part)
            return
    yield schema


def _kinds(leaf: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a schema without alternatives allows."""
    anything = {"object"}
    kinds = leaf.get("type")
    if isinstance(kinds, str):
        return {kinds}
    if isinstance(kinds, list) and kinds:
        return {kind if isinstance(kind, str) else "object" for kind in kinds}
    if "const" in leaf:
        return {_KINDS[type(leaf["const"])]}
    if leaf.get("enum"):
        return {_KINDS[type(value)] for value in leaf["enum"]}
    return anything


def _integer_type(leaves: list[Mapping[str, Any]]) -> str:
    """Return the narrowest type for whole numbers within the given limits."""
    leaves = [leaf for leaf in leaves if "integer" in _kinds(leaf)]
    low = [leaf.get("minimum", leaf.get("exclusiveMinimum")) for leaf in leaves]
    high = [leaf.get("maximum", leaf.get("exclusiveMaximum")) for leaf in leaves]
    for name, bits in _BITS.items():
        if all(_is_number(limit) and limit < 2**bits for limit in high) and all(
            _is_number(limit) and limit >= -(2**bits) for limit in low
        ):
            return name
    return "HUGEINT"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def widened(table: str, wanted: str) -> str | None:
    """Return the type that a table's column must have, to hold a property's values as well.

    Args:
        table: The type that it has.
        wanted: The property's own type.

    Returns:
        The type, which is often the one that it has: then a value that does not fit is an error of
        its own, once there is one. None: no type holds both.
    """
    if table == wanted or table in {TEXT, JSON}:
        return table
    if table in _INTEGERS and wanted in _INTEGERS:
        return max(table, wanted, key=_INTEGERS.index)
    if (table in _PLAIN and wanted in {TEXT, JSON}) or (table, wanted) in _WIDER:
        return wanted
    if table in _PLAIN and wanted in _PLAIN:
        return table if table == "DOUBLE" and wanted in _INTEGERS else None
    if table in _TIMES.values() and wanted not in {TEXT, "DATE", "TIMESTAMP"}:
        return None
    return table  # such as a DECIMAL that a person made


def conversion(column: str, kind: str, problem: str) -> str:
    """Return the SQL that converts a property's text; a value that does not fit is an error.

    Args:
        column: The property's text, as an SQL expression.
        kind: The column's type.
        problem: What the error says.
    """
    if kind in {TEXT, JSON}:
        return column
    form = _CONVERSIONS.get(kind, _ANY)
    if kind in _INTEGERS:
        form = _INTEGER
    elif kind.startswith(("DECIMAL", "FLOAT", "U")) and kind != "UUID":
        form = _NUMBER
    converted = form.format(column=column, kind=kind, number=f"TRY_CAST({column} AS DOUBLE)")
    # DuckDB evaluates each of these for those rows only that need it.
    failed = f"CAST(error({literal(problem)}) AS {kind})"
    return f"CASE WHEN {column} IS NOT NULL THEN coalesce({converted}, {failed}) END"


def inexact(column: str, kind: str) -> str | None:
    """Return the SQL condition that a column's type rounds a value; None: it never does."""
    if kind == "DOUBLE":
        whole = f"TRY_CAST({column} AS HUGEINT)"
        return (
            f"(length({column}) > 15 AND regexp_full_match({column}, '-?[0-9]+') AND "
            f"TRY_CAST(TRY_CAST({column} AS DOUBLE) AS HUGEINT) IS DISTINCT FROM {whole})"
        )
    if kind in {"TIMESTAMP", "TIME"}:
        # Most have six digits before a Z, which is a tenth of the work to see.
        usual = f"(length({column}) = 27 AND {column}[20] = '.' AND {column}[27] = 'Z')"
        digits = rf"regexp_matches({column}, '\.\d{{6}}\d*[1-9]')"
        return f"(length({column}) > 14 AND NOT {usual} AND {digits})"
    return None
