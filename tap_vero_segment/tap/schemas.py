"""The streams' JSON schemas, made from the table of collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from singer_sdk import typing as th

from tap_vero_segment.collection import COMMON_COLUMNS, columns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tap_vero_segment.collection import Collection, Column

_KINDS: Final[dict[str, Any]] = {
    "string": th.StringType,
    "time": th.DateTimeType,
    # No "properties", not even none: any key is as good as another, and no target may drop one.
    "object": th.CustomType({"type": ["object"], "additionalProperties": True}),
}

_TRACKS_DESCRIPTION: Final = "Every event of the seven email collections, common columns only."


def collection_schema(collection: Collection) -> dict[str, Any]:
    """Return the JSON schema of a collection's stream."""
    return _schema(columns(collection), collection.event, collection.description)


def tracks_schema() -> dict[str, Any]:
    """Return the JSON schema of the stream ``tracks``."""
    return _schema(COMMON_COLUMNS, "Tracks", _TRACKS_DESCRIPTION)


def _schema(wanted: Iterable[Column], title: str, description: str) -> dict[str, Any]:
    properties = th.PropertiesList(
        *(
            th.Property(
                column.name,
                _KINDS[column.kind],
                required=not column.nullable,
                nullable=column.nullable,
                title=column.title,
                description=column.description,
            )
            for column in wanted
        )
    )
    return {"title": title, "description": description, **properties.to_dict()}
