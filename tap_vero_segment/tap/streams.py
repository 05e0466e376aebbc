"""The streams: one for each collection, and ``tracks``."""

from __future__ import annotations

from copy import deepcopy
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from singer_sdk import Stream
from singer_sdk import typing as th
from singer_sdk.helpers.conform import TypeConformanceLevel
from singer_sdk.singerlib import Schema
from singer_sdk.singerlib.catalog import REPLICATION_INCREMENTAL

from tap_vero_segment.collection import (
    BY_EVENT,
    ERASURE_COLUMNS,
    ERASURES,
    TRACKS,
    Collection,
    columns,
    common_columns,
)
from tap_vero_segment.record import Row
from tap_vero_segment.sources.open import kind_of, open_source
from tap_vero_segment.tap.state import BOOKMARKS, SOURCE, VALUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from singer_sdk import Tap
    from singer_sdk.helpers.types import Context
    from singer_sdk.singerlib import Catalog, RecordMessage

    from tap_vero_segment.collection import Column
    from tap_vero_segment.record import Record
    from tap_vero_segment.tap.settings import Settings


_KINDS: Final[dict[str, Any]] = {
    "string": th.StringType,
    "time": th.DateTimeType,
    # No "properties", not even none: any key is as good as another, and no target may drop one.
    "object": th.CustomType({"type": ["object"], "additionalProperties": True}),
}

_TRACKS_DESCRIPTION: Final = "Every event of the seven email collections, common columns only."

_ERASURES_DESCRIPTION: Final = "The ids of events of people who were erased from the collector."


def collection_schema(
    collection: Collection, *, objects_as_text: bool = False, segment_columns: bool = False
) -> dict[str, Any]:
    """Return the JSON schema of a collection's stream.

    Args:
        collection: The collection.
        objects_as_text: Whether columns of objects are text that holds JSON.
        segment_columns: Whether it has the further columns of Segment's warehouses.
    """
    wanted = columns(collection, segment_columns=segment_columns)
    return _schema(wanted, collection.event, collection.description, as_text=objects_as_text)


def tracks_schema(
    *, objects_as_text: bool = False, segment_columns: bool = False
) -> dict[str, Any]:
    """Return the JSON schema of the stream ``tracks``; the arguments are as for a collection."""
    wanted = common_columns(segment_columns=segment_columns)
    return _schema(wanted, "Tracks", _TRACKS_DESCRIPTION, as_text=objects_as_text)


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


def erasures_schema() -> dict[str, Any]:
    """Return the JSON schema of the stream ``erasures``."""
    return _schema(ERASURE_COLUMNS, "Erasures", _ERASURES_DESCRIPTION, as_text=False)


REPLICATION_KEY: Final = "loaded_at"

_OBJECTS: Final = frozenset({"context", "properties"})

PAGE_SIZE: Final = 1_000
"""Events in a page: what an interrupted run may send twice."""


class VeroStream(Stream):
    """Events of one collection, or of all seven email collections.

    Neither a sync nor a trial run goes through :meth:`get_records`, as the source is read once for
    all streams (see :mod:`tap_vero_segment.tap.sync`); the SDK's own dry runs do.

    Args:
        tap: The tap.
        collection: The collection; None: ``tracks``.
        settings: Returns the settings; discovery has none that were checked, and does not ask.
    """

    primary_keys = ("id",)
    replication_key = REPLICATION_KEY
    is_sorted = True
    # Records have the schema's types by construction; this level only drops what a catalog that
    # was edited by hand no longer has.
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.ROOT_ONLY

    def __init__(
        self, tap: Tap, collection: Collection | None, settings: Callable[[], Settings]
    ) -> None:
        self.collection = collection
        self._as_text = tap.config.get("objects_as_text") is True
        wanted = {
            "objects_as_text": self._as_text,
            "segment_columns": tap.config.get("segment_columns") is True,
        }
        self.selected_by_default = collection is None or collection.email
        super().__init__(
            tap,
            name=TRACKS if collection is None else collection.stream,
            schema=(
                tracks_schema(**wanted)
                if collection is None
                else collection_schema(collection, **wanted)
            ),
        )
        self._settings = settings

    @property
    def bookmark(self) -> str | None:
        """The ``loaded_at`` that an earlier run came to, as fixed-width UTC text."""
        if self.replication_method != REPLICATION_INCREMENTAL:
            return None
        # Not stream_state, which would make an entry in the state.
        own_state = self.tap_state.get(BOOKMARKS, {}).get(self.name, {})
        bookmark: str | None = own_state.get(VALUE)
        return bookmark

    def advance(self, loaded_at: str) -> None:
        """Move the bookmark to an event that has been written; it never goes back."""
        bookmark = self.bookmark
        if bookmark is None or loaded_at > bookmark:
            self._increment_stream_state({REPLICATION_KEY: loaded_at})
            if self.replication_method == REPLICATION_INCREMENTAL:
                self.stream_state[SOURCE] = kind_of(self._settings().source.url)

    def write_state(self) -> None:
        """Write the tap's state, of all streams."""
        self._tap.state_writer.write_state(self.tap_state)

    def forget(self) -> None:
        """Remove the bookmark: the stream is read from the beginning."""
        self.tap_state[BOOKMARKS].pop(self.name, None)

    def apply_catalog(self, catalog: Catalog) -> None:
        """Take over a catalog, except what the records do not follow.

        The replication key stays, as the source has no other order; and the catalog can have been
        discovered with another value of ``objects_as_text``.
        """
        entry = catalog.get_stream(self.name)
        described = (entry.schema.properties if entry else None) or {}
        for name in _OBJECTS & described.keys():
            if ("object" in (described[name].type or ())) == self._as_text:
                described[name] = Schema.from_dict(self.schema["properties"][name])
        super().apply_catalog(catalog)
        self.replication_key = REPLICATION_KEY

    def get_records(self, context: Context | None) -> Iterable[Record]:  # noqa: ARG002
        """Yield this stream's records from the beginning of the source: for dry runs."""
        # One record beyond the limit, and the SDK logs a good dry run as an error.
        return islice(self._records(), self.ABORT_AT_RECORD_COUNT)

    def _records(self) -> Iterable[Record]:
        settings = self._settings()
        with open_source(settings.source) as source:
            for page in source.pages(self.bookmark, PAGE_SIZE):
                for call in page.calls:
                    collection = BY_EVENT.get(call.event)
                    if collection is None or not settings.covers(call):
                        continue
                    if self.collection is collection or (
                        self.collection is None and collection.email
                    ):
                        yield from self.records_of([settings.row(call, collection)])

    def records_of(self, rows: Iterable[Row]) -> Iterable[Record]:
        """Return rows as this stream's records, before anything is left out or changed."""
        return map(Row.tracks if self.collection is None else Row.record, rows)

    def mapped(self, record: Record) -> Iterable[RecordMessage]:
        """Return a record's messages after selection, stream maps and flattening, by the SDK."""
        # What is nested is deselected in place, and ``tracks`` shares the context.
        own = {**record, "context": deepcopy(record["context"])}
        return self._generate_record_messages(own)

    def get_replication_key_signpost(self, context: Context | None = None) -> None:
        """Return nothing: the source's high-water mark bounds a run, not the tap's clock."""

    def get_batch_config(self, config: Mapping[str, Any]) -> None:
        """Return nothing: dry runs write records."""


class ErasuresStream(VeroStream):
    """The ids of events that were erased, to delete them where they were loaded.

    Args:
        tap: The tap.
        settings: As for :class:`VeroStream`.
    """

    selected_by_default = False

    def __init__(self, tap: Tap, settings: Callable[[], Settings]) -> None:
        self.collection = None
        self._as_text = False
        Stream.__init__(self, tap, name=ERASURES, schema=erasures_schema())
        self._settings = settings

    def _records(self) -> Iterable[Record]:
        with open_source(self._settings().source) as source:
            for page in source.erasures(self.bookmark, PAGE_SIZE):
                yield from page

    def mapped(self, record: Record) -> Iterable[RecordMessage]:
        """Return a record's messages after selection and stream maps, by the SDK."""
        return self._generate_record_messages(record)
