"""Calls are cut into batches by the bytes that are sent."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tap_vero_segment.limits import MAX_CALL, MAX_CALLS
from tap_vero_segment.targets.segment.calls import (
    MAX_BATCH,
    OutgoingCall,
    batch_body,
    batches,
    encode,
)
from tests.support.fuzz import fuzz


def of_size(size: int) -> OutgoingCall:
    """A call that is so many bytes of JSON."""
    return OutgoingCall("e", b'"%s"' % (b"x" * (size - 2)))


def test_no_calls_are_no_batch():
    assert list(batches([])) == []


def test_segments_limits_are_the_limits():
    assert (MAX_CALL, MAX_BATCH, MAX_CALLS) == (32 * 1024, 500_000, 2_500)


@pytest.mark.parametrize(
    ("count", "cut"),
    [(1, [1]), (2_500, [2_500]), (2_501, [2_500, 1]), (5_000, [2_500, 2_500])],
)
def test_a_batch_has_no_more_calls_than_it_may(count, cut):
    assert [len(batch) for batch in batches([of_size(10)] * count)] == cut


@fuzz
@given(st.lists(st.sampled_from([2, 100, 2_000, 31_000, MAX_CALL]) | st.integers(2, MAX_CALL)))
def test_batches_are_all_calls_in_order_and_as_full_as_they_may_be(sizes):
    calls = [of_size(size) for size in sizes]
    cut = list(batches(calls))
    assert [call for batch in cut for call in batch] == calls
    for batch in cut:
        assert 0 < len(batch) <= MAX_CALLS
        assert len(batch_body(batch)) <= MAX_BATCH
    for batch, following in itertools.pairwise(cut):
        assert len(batch_body([*batch, following[0]])) >= MAX_BATCH


@pytest.mark.parametrize("text", ["x", "é", "👟", '"', "\n"])
def test_bytes_count_and_not_characters(text):
    calls = [OutgoingCall("e", encode({"text": text * 1_000}))] * 1_000
    cut = list(batches(calls))
    bodies = [batch_body(batch) for batch in cut]
    assert all(len(body) <= MAX_BATCH for body in bodies)
    assert len(cut) >= sum(map(len, bodies)) / MAX_BATCH
    read = [call for body in bodies for call in json.loads(body)["batch"]]
    assert read == [{"text": text * 1_000}] * 1_000
