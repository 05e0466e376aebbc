"""Pages of a store end by their bytes, so that memory does not go with what is stored."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.limits import PAGE_BYTES
from tap_vero_segment.stores.base import DeadLetter, Event
from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tests.support.collector import Collector
from tests.support.events import parse, read_events
from tests.support.resident import peak

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

LARGE = 480_000
SIZES = [LARGE] * 20 + [PAGE_BYTES + 1_000_000] + [LARGE] * 18 + [100] * 10
"""Bytes of the events, in their order, and of the dead letters: 28 MB."""
ALL = [*range(len(SIZES))]


def large_event(number: int, size: int, body: bytes | None = None) -> Event:
    name = f"{number:06d}"
    moment = times.to_text(times.now())
    fields = {"messageId": name, "type": "track", "event": "Email Sent", "userId": "1"}
    fields |= {"timestamp": moment, "receivedAt": moment, "properties": {"a": "b" * size}}
    call = json.dumps(fields, separators=(",", ":")).encode()
    return Event(name, "email_sent", times.now(), call, "vero", body)


def in_little_memory(read: Callable[[], T]) -> T:
    """Read, and make sure that it takes a few pages."""
    tracemalloc.start()
    try:
        found = read()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * PAGE_BYTES
    return found


def check(pages: list[list[int]]) -> None:
    """Make sure that nothing is left out, that pages are full, and none is too large."""
    assert [*chain.from_iterable(pages)] == ALL
    for page, following in zip(pages, [*pages[1:], []], strict=True):
        size = sum(SIZES[number] for number in page)
        assert len(page) == 1 or size <= PAGE_BYTES
        if following:
            assert size + SIZES[following[0]] + 10_000 > PAGE_BYTES


def test_what_is_read_at_once_ends_by_its_bytes(writer, reader):
    for number, size in enumerate(SIZES):
        letter = DeadLetter(number, "vero", "a reason", b"%06d" % number + b"x" * size)
        writer.write([large_event(number, size)], [letter])

    pages = []
    after = 0
    while lines := in_little_memory(lambda: reader.lines(after, None, 10_000)):  # noqa: B023
        calls = [json.loads(line) for line in lines]
        pages.append([int(call["messageId"]) for call in calls])
        after = times.from_text(calls[-1]["loadedAt"])
    check(pages)

    pages = []
    number = 0
    while letters := in_little_memory(lambda: reader.dead_letters(number, 10_000)):  # noqa: B023
        pages.append([kept.letter.received_at for kept in letters])
        number = letters[-1].number
    check(pages)

    newest = in_little_memory(lambda: reader.newest(10_000))
    assert in_little_memory(lambda: reader.newest(10_000, "email_sent")) == newest
    assert in_little_memory(lambda: reader.newest(10_000, "email_opened")) == []
    letters = in_little_memory(lambda: reader.letter_heads(10_000))
    last = ALL[::-1][: 10 + PAGE_BYTES // LARGE]
    assert [int(json.loads(line)["messageId"]) for line in newest] == last
    assert [head.received_at for head in letters] == [*ALL][::-1]


def test_a_collector_on_large_events_starts_and_is_read_in_little_memory(tmp_path):
    collector = Collector(tmp_path, forked=False)
    events = [large_event(number, LARGE, b"b" * LARGE) for number in range(120)]
    with closing(SqliteWriter(collector.store_url, "store")) as writer:
        writer.write(events, [])  # 115 MB
    with collector:
        assert peak(collector.process.pid) < 90 * 1024 * 1024
        assert len(parse(collector.get("/v1/events?limit=10000").content)) > 10
        assert len(read_events(collector)) == 120
        assert peak(collector.process.pid) < 120 * 1024 * 1024
    collector.store.with_name(f"{collector.store.name}-mark").unlink()
    with collector:  # which has looked at all of it
        assert peak(collector.process.pid) < 90 * 1024 * 1024
