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


def collection_schema(collection: Collection, *, objects_as_text: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a collection's stream.

    Args:
        collection: The collection.
        objects_as_text: Whether columns of objects are text that holds JSON.
    """
    return _schema(
        columns(collection), collection.event, collection.description, as_text=objects_as_text
    )


def tracks_schema(*, objects_as_text: bool = False) -> dict[str, Any]:
    """Return the JSON schema of the stream ``tracks``; the argument is as for a collection."""
    return _schema(COMMON_COLUMNS, "Tracks", _TRACKS_DESCRIPTION, as_text=objects_as_text)


def _schema(
    wanted: Iterable[Column], title: str, description: str, *, as_text: bool
) -> dict[str, Any]:
    kinds = _KINDS | {"object": th.StringType} if as_text else _KINDS
    properties = th.PropertiesList(
        *(
            th.Property(
                column.name,
                kinds[column.kind],
                required=not column.nullable,
                nullable=column.nullable,
                title=column.title,
                description=column.description,
            )
            for column in wanted
        )
    )
    return {"title": title, "description": description, **properties.to_dict()}
