from __future__ import annotations

import pytest

from tap_vero_segment.collection import (
    BY_EVENT,
    BY_STREAM,
    BY_VERO_TYPE,
    COLLECTIONS,
    COMMON_COLUMNS,
    TRACKS,
    columns,
)
from tests.support.contract import (
    BY_DEFAULT,
    COLUMNS,
    NEVER_NULL,
    OBJECTS,
    TIMES,
    TRACKS_COLUMNS,
    VERO_TYPES,
)

each_collection = pytest.mark.parametrize(
    "collection", COLLECTIONS, ids=[collection.stream for collection in COLLECTIONS]
)


def test_each_type_of_vero_has_its_stream_and_its_event():
    assert {
        collection.vero_type: (collection.stream, collection.event) for collection in COLLECTIONS
    } == VERO_TYPES


def test_the_seven_email_collections_are_the_ones_by_default():
    assert {collection.vero_type for collection in COLLECTIONS if collection.email} == BY_DEFAULT


def test_a_collection_is_found_by_type_by_event_and_by_stream():
    for collection in COLLECTIONS:
        assert BY_VERO_TYPE[collection.vero_type] is collection
        assert BY_EVENT[collection.event] is collection
        assert BY_STREAM[collection.stream] is collection
    assert len(BY_VERO_TYPE) == len(BY_EVENT) == len(BY_STREAM) == len(COLLECTIONS) == 12
    assert TRACKS not in BY_STREAM


@each_collection
def test_a_stream_has_the_columns_that_segment_gives_it(collection):
    names = [column.name for column in columns(collection)]
    assert sorted(names) == sorted(COLUMNS[collection.stream])


def test_tracks_has_the_common_columns():
    assert [column.name for column in COMMON_COLUMNS] == TRACKS_COLUMNS


@each_collection
def test_a_column_is_of_the_kind_that_it_is_everywhere(collection):
    for column in columns(collection):
        kind = "time" if column.name in TIMES else "object" if column.name in OBJECTS else "string"
        assert (column.kind, column.nullable) == (kind, column.name not in NEVER_NULL), column.name


@each_collection
def test_collections_and_columns_are_described(collection):
    assert collection.description.endswith(".")
    for column in columns(collection):
        assert column.title
        assert column.description.endswith(".")
