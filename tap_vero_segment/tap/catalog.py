"""A catalog as a user hands it over: whether it is one, and whether what it names exists."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from singer_sdk.typing import DEFAULT_JSONSCHEMA_VALIDATOR

from tap_vero_segment.errors import UserError
from tap_vero_segment.singer.stream_maps import hint_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from singer_sdk.singerlib import Catalog

logger = logging.getLogger("tap-vero-segment")

_TEXT: Final = {"type": "string"}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_BOOLEAN_OR_NULL: Final = {"type": ["boolean", "null"]}
_TEXTS_OR_NULL: Final = {"type": ["array", "null"], "items": _TEXT}

_METADATA: Final = {
    "type": "object",
    "properties": {
        "inclusion": {"enum": ["available", "automatic", "unsupported", None]},
        "selected": _BOOLEAN_OR_NULL,
        "selected-by-default": _BOOLEAN_OR_NULL,
        "table-key-properties": _TEXTS_OR_NULL,
        "valid-replication-keys": _TEXTS_OR_NULL,
        "replication-key": _TEXT_OR_NULL,
        "forced-replication-method": _TEXT_OR_NULL,
        "schema-name": _TEXT_OR_NULL,
    },
}

_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["streams"],
    "properties": {"streams": {"type": "array", "items": {"$ref": "#/$defs/stream"}}},
    "$defs": {
        "stream": {
            "type": "object",
            "required": ["tap_stream_id", "schema"],
            "properties": {
                "tap_stream_id": _TEXT,
                "stream": _TEXT_OR_NULL,
                "schema": {"allOf": [{"$ref": "#/$defs/schema"}, {"required": ["properties"]}]},
                "metadata": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["breadcrumb", "metadata"],
                        "properties": {
                            "breadcrumb": {"type": "array", "items": _TEXT},
                            "metadata": _METADATA,
                        },
                    },
                },
                "key_properties": _TEXTS_OR_NULL,
                "replication_key": _TEXT_OR_NULL,
                "replication_method": {"enum": ["INCREMENTAL", "FULL_TABLE", "LOG_BASED", None]},
            },
        },
        "schema": {
            "type": "object",
            "properties": {
                "type": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
                "properties": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/$defs/schema"},
                },
                "required": {"type": "array", "items": _TEXT},
            },
        },
    },
}
"""The JSON schema of a Singer catalog, as far as the SDK relies on it."""

_KINDS: Final = {"object": "an object", "array": "a list", "string": "text", "null": "null"}

_COLUMN: Final = 2
"""The length of a column's breadcrumb."""


def check_form(catalog: Any) -> None:
    """See that a value is a catalog.

    Raises:
        UserError: It is not; the message says where.
    """
    error = next(DEFAULT_JSONSCHEMA_VALIDATOR(_SCHEMA).iter_errors(catalog), None)
    if error is None:
        return
    where = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
    ).removeprefix(".")
    match error.validator:
        case "required":
            names = [name for name in error.validator_value if name not in error.instance]
            problem = f"{', '.join(names)} is missing"
        case "type":
            expected = error.validator_value
            types = [expected] if isinstance(expected, str) else expected
            problem = f"it must be {' or '.join(_KINDS.get(each, each) for each in types)}"
        case _:
            problem = "it has an unexpected value"
    msg = f"--catalog: {where or 'the file'}: {problem}; --discover prints a whole catalog"
    raise UserError(msg)


def check_names(catalog: Catalog, columns: Mapping[str, Collection[str]]) -> None:
    """See that the streams and columns exist that a catalog selects or leaves out.

    Args:
        catalog: The catalog.
        columns: The columns of each stream that exists.

    Raises:
        UserError: A column that is to be left out does not exist: another one would go out.
    """
    for name, entry in catalog.items():
        if name not in columns:
            logger.warning(
                "--catalog: there is no stream %s, so its entry is ignored%s",
                name,
                hint_of(name, columns),
            )
            continue
        # What a catalog describes was discovered, perhaps by another version: not misspelt.
        described = entry.schema.to_dict().get("properties", {}).keys()
        for breadcrumb, metadata in entry.metadata.items():
            if len(breadcrumb) < _COLUMN or breadcrumb[1] in columns[name]:
                continue
            column = breadcrumb[1]
            problem = f"--catalog: {name}: there is no column {column}"
            hint = hint_of(column, columns[name])
            if metadata.selected is False and column not in described:
                msg = f"{problem}, so it cannot be left out{hint}"
                raise UserError(msg)
            logger.warning("%s, so what the catalog says of it is ignored%s", problem, hint)
        for column in sorted({"id", "loaded_at"} - described):
            msg = f"--catalog: {name}: its schema lacks the column {column}, which every record has"
            raise UserError(msg)
