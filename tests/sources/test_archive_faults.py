"""Object stores that fail: what can pass is tried again, the rest is told, and nothing is lost."""

from __future__ import annotations

import signal
import socket
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.archive import WRITE_KEY, Maker, events_of
from tests.support.faulty_s3 import (
    LISTING,
    FaultyS3,
    Held,
    cut,
    deleted,
    overwritten,
    refused,
    reset,
    slow,
)
from tests.support.s3 import ACCESS_KEY, SECRET_KEY
from tests.support.stored import ids_by_stream, ids_of
from tests.support.streams import ALL_STREAMS, bookmark_of, catalog_of, states_never_run_ahead
from tests.support.tap import Messages, read_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.faulty_s3 import Fault, Handler
    from tests.support.forked_tap import ForkedTap
    from tests.support.tap import Run

EVERYTHING = catalog_of(*ALL_STREAMS)
OBJECTS = Maker().small(8, 200)
THIRD = OBJECTS[2].path
ALL = ids_by_stream(events_of(OBJECTS))


@pytest.fixture
def store() -> Iterator[FaultyS3]:
    with FaultyS3(OBJECTS) as running:
        yield running


def config(store: FaultyS3, **settings: Any) -> dict[str, Any]:
    return {"source": "s3://bucket", "storage_options": store.options, **settings}


def error_of(run: Run) -> str:
    """The one line that tells why a run has failed."""
    assert run.status == 1
    for unwanted in ("Traceback", ACCESS_KEY, SECRET_KEY, WRITE_KEY, "Signature"):
        assert unwanted not in run.stderr
    [error] = [line for line in run.stderr.splitlines() if "ERROR" in line]
    return error


def written_by(run: Run) -> Messages:
    """What a run that failed has written all the same."""
    return read_messages(run.stdout.splitlines())


def assert_next_run_completes(
    tap: ForkedTap, store: FaultyS3, first: Messages, expected: dict[str, list[str]]
) -> Messages:
    """A run that goes on at the last state, without a lookback, finds what the first has not."""
    second = tap.good(config(store, lookback_seconds=0), state=first.state, catalog=EVERYTHING)
    ids = {stream: set(found) for stream, found in ids_of(first.records).items()}
    for stream, found in ids_of(second.records).items():
        ids.setdefault(stream, set()).update(found)
    assert ids == {stream: set(wanted) for stream, wanted in expected.items()}
    return second


# What passes


@pytest.mark.parametrize(
    "faults",
    [
        {LISTING: [refused(500, "InternalError")]},
        {LISTING: [refused(503, "SlowDown"), reset]},
        {THIRD: [refused(500, "InternalError"), refused(503, "SlowDown")]},
        {THIRD: [reset]},
        {THIRD: [cut(0.3), cut(0.7)]},
        {made.path: [refused(500, "InternalError"), cut(0.5)] for made in OBJECTS},
        {made.path: [slow(0.001)] for made in OBJECTS},
    ],
    ids=[
        *("500 of the listing", "503 and reset of the listing", "500 and 503", "reset", "cut"),
        *("500 and cut of all", "slow"),
    ],
)
def test_what_passes_costs_no_event(tap: ForkedTap, store: FaultyS3, faults):
    for path, met in faults.items():
        store.faults[path].extend(met)
    run = tap.run(config(store), catalog=EVERYTHING)
    assert run.status == 0, run.stderr
    assert ids_of(run.messages.records) == ALL
    assert not any(store.faults.values()), "a fault was not met"


# What stays


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refused(403, "AccessDenied"), "access denied (AccessDenied); see storage_options"),
        (refused(404, "NoSuchBucket"), "there is no such bucket"),
        (deleted, "it is not there (NoSuchKey)"),
        (refused(500, "InternalError"), "InternalError"),
    ],
    ids=["access denied", "no bucket", "deleted", "500"],
)
def test_an_object_that_cannot_be_read_ends_the_run_and_the_next_one_goes_on_there(
    tap: ForkedTap, store: FaultyS3, fault: Fault, said
):
    store.faults[THIRD].extend([fault] * 7)
    run = tap.run(config(store), catalog=EVERYTHING)
    error = error_of(run)
    assert f"source: s3://bucket/{THIRD}: " in error
    assert said in error

    first = written_by(run)
    assert ids_of(first.records) == ids_by_stream(events_of(OBJECTS[:2]))
    states_never_run_ahead(first, events_of(OBJECTS))
    bookmark = OBJECTS[1].modified_at.isoformat(timespec="microseconds")[:26] + "Z"
    assert bookmark_of(first.state, "tracks") == bookmark

    store.faults.clear()
    left = OBJECTS if THIRD in store.objects else [*OBJECTS[:2], *OBJECTS[3:]]
    second = assert_next_run_completes(tap, store, first, ids_by_stream(events_of(left)))
    done = {call.id for made in OBJECTS[:2] for call in made.calls}
    assert not done & set(second.ids("tracks"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refused(403, "AccessDenied"), "access denied (AccessDenied); see storage_options"),
        (refused(404, "NoSuchBucket"), "there is no such bucket"),
        (refused(400, "ExpiredToken"), "ExpiredToken"),
        (refused(301, "PermanentRedirect"), "region"),
    ],
    ids=["access denied", "no bucket", "expired", "wrong region"],
)
@pytest.mark.parametrize("arguments", [(), ("--test",)], ids=["sync", "test"])
def test_a_listing_that_is_refused_ends_the_run(
    tap: ForkedTap, store: FaultyS3, fault: Fault, said, arguments
):
    store.always = fault
    error = error_of(tap.run(config(store), *arguments))
    assert "source: s3://bucket: " in error
    assert said in error


def test_a_store_that_cannot_be_reached_is_told_within_a_few_tries(tap: ForkedTap, store: FaultyS3):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        options = store.options | {"endpoint": endpoint}
        run = tap.run({"source": "s3://bucket/prefix", "storage_options": options})
    error = error_of(run)
    assert "source: s3://bucket/prefix: " in error
    assert endpoint in error


def test_without_any_credentials_that_is_said(tap: ForkedTap, store: FaultyS3):
    # Where obstore asks last, for the role of a machine in the cloud, there is none.
    options = {"endpoint": store.endpoint, "allow_http": True, "region": "eu-west-1"}
    options["metadata_endpoint"] = f"{store.endpoint}/169.254.169.254"
    store.always = refused(404, "Nothing")
    error = error_of(tap.run({"source": "s3://bucket", "storage_options": options}))
    assert "source: s3://bucket: no credentials were found; see storage_options" in error


@pytest.mark.parametrize("path", [LISTING, THIRD], ids=["listing", "object"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_that_waits_for_its_store(
    tap: ForkedTap, store: FaultyS3, path, number
):
    asked, released, answered = threading.Event(), threading.Event(), threading.Event()

    def stuck(handler: Handler) -> bool:
        asked.set()
        if not released.wait(60):
            answered.set()
        return False

    store.faults[path].append(stuck)
    with tap.start(config(store)) as running:
        try:
            assert asked.wait(60)
            running.send_signal(number)
            # Its output is read: amid a page that nobody takes, a signal waits as it should.
            run = running.finish()
            assert run.status == 0, run.stderr
            assert not answered.is_set()
        finally:
            released.set()


# What changes meanwhile


@pytest.mark.parametrize("also_cut", [False, True], ids=["before it is read", "amid"])
def test_an_object_overwritten_meanwhile_is_left_for_the_next_run(
    tap: ForkedTap, store: FaultyS3, also_cut
):
    # Its successor is younger than all that this run sees, as it is in a real store.
    successor = Maker(seed=3, first=50_000).object(
        THIRD, 300, 0, OBJECTS[-1].modified_at + timedelta(hours=1)
    )
    if also_cut:
        store.faults[THIRD].append(cut(0.5))
    store.faults[THIRD].append(overwritten(successor.content, successor.modified_at))
    run = tap.run(config(store), catalog=EVERYTHING)
    assert run.status == 0, run.stderr
    assert (
        f"WARNING  | tap-vero-segment               | s3://bucket/{THIRD} was overwritten"
        in run.stderr
    )
    others = [made for made in OBJECTS if made.path != THIRD]
    assert ids_of(run.messages.records) == ids_by_stream(events_of(others))
    second = assert_next_run_completes(
        tap, store, run.messages, ids_by_stream(events_of([*others, successor]))
    )
    assert ids_of(second.records) == ids_by_stream(events_of([successor]))


def test_an_object_that_comes_after_the_listing_is_left_for_the_next_run(
    tap: ForkedTap, store: FaultyS3
):
    new = Maker(seed=3, first=50_000).object(
        THIRD.replace(".gz", "-new.gz"), 100, 0, OBJECTS[-1].modified_at + timedelta(seconds=1)
    )

    def arrives(handler: Handler) -> bool:
        handler.held.objects[new.path] = Held(new.content, new.modified_at)
        return False

    store.faults[THIRD].append(arrives)
    first = tap.good(config(store), catalog=EVERYTHING)
    assert ids_of(first.records) == ALL
    second = assert_next_run_completes(tap, store, first, ids_by_stream(events_of([*OBJECTS, new])))
    assert ids_of(second.records) == ids_by_stream(events_of([new]))
