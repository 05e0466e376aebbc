"""Calls of Segment's kind, on their way into the store."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from tap_vero_segment import times, track
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.collector.http import HTTPError
from tap_vero_segment.collector.refusals import Refusal
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import UnmappableError, check_depth, is_shallow, read_json
from tap_vero_segment.inputs.ids import canonical_json, ids_alike
from tap_vero_segment.stores.base import DeadLetter, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.track import TrackCall

    Mapping = Callable[[dict[str, Any]], TrackCall | None]

T = TypeVar("T")

MAX_IN_LOOP: Final = 16 * 1024
"""Bytes of calls that are read in the event loop itself, which takes some milliseconds at most."""

# One thread: as Python runs one at a time, more would only take turns more often.
_thread: Final = ThreadPoolExecutor(1, "reading")

logger = logging.getLogger("vero-collector")

_MAX_READ: Final = 400
"""Levels of nesting of a whole body; Python itself gives up at some more. With fewer, a call that
has more than it may is a dead letter by itself, and costs the others nothing."""


NO_OBJECTS: Final = "calls that are no objects"
"""The reason of a dead letter."""


class Calls(NamedTuple):
    """What a request's calls come to.

    Attributes:
        events: Calls of the collections.
        dead_letters: Calls that are such, but cannot be mapped.
        passed_over: How many are none of the collections.
    """

    events: list[Event]
    dead_letters: list[DeadLetter]
    passed_over: int


async def read_calls(size: int, work: Callable[[], T], committer: Committer) -> T:
    """Return what ``work`` makes of a body; large ones are read beside the event loop.

    Half a megabyte of calls can take half a second, and the event loop must go on meanwhile.

    Args:
        size: Bytes of the calls, with what is said for all of them counted for each.
        work: Reads them.
        committer: In whose budget they count while they wait.

    Raises:
        RefusedError: Too much waits already.
    """
    if size <= MAX_IN_LOOP:
        return work()
    with committer.holding(size):
        return await asyncio.get_running_loop().run_in_executor(_thread, work)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a body that is a JSON object.

    Raises:
        HTTPError: 400, it is none.
    """
    content = _read(body)
    if not isinstance(content, dict):
        raise HTTPError(400, "the body is not a JSON object", reason=Refusal.NOT_JSON)
    return content


def read_array(body: bytes) -> list[Any]:
    """Read a body that is a JSON object, or an array, of whatever.

    Raises:
        HTTPError: 400, it is neither.
    """
    content = _read(body)
    if not isinstance(content, (dict, list)):
        message = "the body is no JSON object, and no array of them"
        raise HTTPError(400, message, reason=Refusal.NOT_JSON)
    return content if isinstance(content, list) else [content]


def _read(body: bytes) -> Any:
    """Read a body's JSON.

    Raises:
        HTTPError: 400, it is none, or nested too deeply.
    """
    try:
        content = read_json(body)
        if not is_shallow(body):
            check_depth(content, _MAX_READ)
    except UnmappableError as error:
        raise HTTPError(400, f"the body is {error}", reason=Refusal.NOT_JSON) from error
    except RecursionError as error:
        message = "the body is nested too deeply"
        raise HTTPError(400, message, reason=Refusal.NOT_JSON) from error
    except ValueError as error:
        raise HTTPError(400, "the body is not JSON", reason=Refusal.NOT_JSON) from error
    return content


def event_of(call: TrackCall, input_name: str, body: bytes | None) -> Event:
    """Return a track call as the store keeps it.

    Args:
        call: The track call.
        input_name: Where it came in.
        body: The request's body, where it is more than the track call itself.
    """
    received_at = times.from_text(call.received_at)
    return Event(
        id=call.message_id,
        collection=BY_EVENT[call.event].stream,
        received_at=received_at,
        call=track.encode(call),
        input=input_name,
        body=body,
        alike=ids_alike(call.message_id, received_at),
    )


def map_calls(
    calls: Iterable[Any],
    mapping: Mapping,
    received_at: int,
    input_name: str,
    body_of: Callable[[list[Any]], Any],
) -> Calls:
    """Turn calls into what the store keeps, each by itself.

    Args:
        calls: JSON objects; all that are none make one dead letter, however many there are.
        mapping: From a call to a track call, or None.
        received_at: When they were received, in microseconds since 1970.
        input_name: Where they came in.
        body_of: From calls that cannot be mapped to the body that they would come in alone.
    """
    result = Calls([], [], 0)
    passed_over = 0
    no_objects = []
    faults: Counter[str] = Counter()
    for fields in calls:
        if not isinstance(fields, dict):
            no_objects.append(fields)
            continue
        try:
            call = mapping(fields)
        except UnmappableError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # a fault of the mapping must not cost the event
            faults[describe_fault(error)] += 1
            reason = f"a fault in the mapping: {type(error).__name__}"
        else:
            if call is None:
                passed_over += 1
            else:
                # The track call has every field but Segment's own, the write key among them.
                result.events.append(event_of(call, input_name, None))
            continue
        body = canonical_json(body_of([fields]))
        result.dead_letters.append(DeadLetter(received_at, input_name, reason, body))
    for fault, count in faults.items():
        logger.error("a fault in the mapping of %d calls: %s", count, fault)
    if no_objects:
        body = canonical_json(body_of(no_objects))
        result.dead_letters.append(DeadLetter(received_at, input_name, NO_OBJECTS, body))
    return result._replace(passed_over=passed_over)


async def keep(calls: Calls, committer: Committer) -> None:
    """Store calls, all or none; return when they are synced to disk."""
    size = sum(len(event.call) for event in calls.events)
    size += sum(len(letter.body) for letter in calls.dead_letters)
    await committer.commit(
        calls.events, calls.dead_letters, passed_over=calls.passed_over, size=size
    )
