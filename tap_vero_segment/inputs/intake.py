"""What a body comes to, whatever it came in by: events, dead letters, and calls that are ignored.

Nothing here knows HTTP: a body that is no use at all raises a :class:`BodyError`, which the
collector's endpoints turn into a response, and ``dead-letters replay`` into a reason.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import msgspec

from tap_vero_segment import times, track
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import (
    BOM,
    BodyError,
    NotAnObjectError,
    NotJSONError,
    TooLargeError,
    UnmappableError,
    check_depth,
    clean,
    is_shallow,
    read_json,
    read_object,
    unzip,
)
from tap_vero_segment.inputs.history import SEGMENT_TYPES, Wrapping, unwrap
from tap_vero_segment.inputs.ids import canonical_json, ids_alike
from tap_vero_segment.inputs.segment import from_client, from_webhook, is_dropped
from tap_vero_segment.inputs.vero import time_of, to_track
from tap_vero_segment.limits import MAX_BODY, MAX_CALL, MAX_CALLS, MAX_SHARED
from tap_vero_segment.record import as_text
from tap_vero_segment.stores.base import DeadLetter, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tap_vero_segment.track import TrackCall

    Mapping = Callable[[dict[str, Any]], TrackCall | None]


logger = logging.getLogger("vero-collector")
VERO: Final = "vero"
TRACKING: Final = "tracking"
SEGMENT: Final = "segment"
INPUTS: Final = (VERO, TRACKING, SEGMENT)
"""Where events come in, as the store and the metrics name it."""
IMPORT: Final = "import"
"""What the store names what ``vero-collector import`` brings; a payload that was put together
from a table has the kind of table behind it, as in ``import-stitch``."""
UNDATED: Final = 0
"""``received_at`` of an imported dead letter that does not tell when it was received. It has to be
the same each time, as the same letter is kept once."""
NO_OBJECTS: Final = "calls that are no objects"
"""The reason of a dead letter."""
_MAX_READ: Final = 400
"""Levels of nesting of a whole body; Python itself gives up at some more. With fewer, a call that
has more than it may is a dead letter by itself, and costs the others nothing."""


class Calls(NamedTuple):
    """What a body comes to.

    Attributes:
        events: Calls of the collections.
        dead_letters: Calls that are such, but cannot be mapped.
        ignored: How many calls belong to no collection.
        deleted: The user ids of Segment's ``delete`` notices, which are ignored calls as well.
    """

    events: list[Event]
    dead_letters: list[DeadLetter]
    ignored: int
    deleted: Sequence[str] = ()


def read_vero(body: bytes, received_at: int) -> Event:
    """Turn a webhook's body into what a store keeps.

    Raises:
        NotAnObjectError: The body is no JSON object.
        UnmappableError: No track call can be made of it.
    """
    return event_of(to_track(read_object(body), received_at), VERO, body)


def read_webhook(body: bytes, received_at: int) -> Calls:
    """Turn a body, unzipped or not, into what a store keeps.

    Raises:
        BodyError: The body is no JSON object and no array, or cannot be unzipped.
    """
    content = _read_json(unzip(body))
    if not isinstance(content, (dict, list)):
        msg = "the body is no JSON object, and no array of them"
        raise NotJSONError(msg)
    notices = content if isinstance(content, list) else [content]
    calls = _map_calls(
        notices,
        lambda fields: from_webhook(fields, received_at),
        received_at,
        SEGMENT,
        # Alone, what is no call is no body either, and an array would be many.
        lambda calls: calls[0] if isinstance(calls[0], dict) else calls,
    )
    deleted = [
        as_text(each.get("userId"))
        for each in notices
        if isinstance(each, dict) and each.get("type") == "delete"
    ]
    return calls._replace(deleted=[one for one in deleted if one])


def read_tracked(body: bytes) -> dict[str, Any]:
    """Read the body of a call or a batch: one JSON object.

    Raises:
        NotJSONError: It is not one.
    """
    content = _read_json(body)
    if not isinstance(content, dict):
        msg = "the body is not a JSON object"
        raise NotJSONError(msg)
    return content


def read_batch(content: dict[str, Any], body: bytes, received_at: int) -> Calls:
    """Turn a batch into what a store keeps.

    Args:
        content: The batch.
        body: Its JSON, for the calls' sizes as they came.
        received_at: When it was received, in microseconds since 1970.

    Raises:
        BodyError: It is not a batch.
        TooLargeError: It is larger than Segment would take.
    """
    _check_batch(content, body)
    return _map_batch(content, received_at)


def read_single(content: dict[str, Any], kind: str, body: bytes, received_at: int) -> Calls:
    """Turn a single call into what a store keeps.

    Args:
        content: The call.
        kind: Its type, by the path that it was posted to.
        body: Its JSON.
        received_at: When it was received, in microseconds since 1970.

    Raises:
        TooLargeError: It is larger than Segment would take.
    """
    if len(body) > MAX_CALL:
        msg = f"a call longer than {MAX_CALL} bytes"
        raise TooLargeError(msg)
    return _map_tracked([{**content, "type": kind}], received_at, {})


def shared_size(content: dict[str, Any]) -> int:
    """Return the bytes of what a batch says for all its calls, counted for each of them."""
    batch = content.get("batch")
    return len(_shared(content)) * len(batch) if isinstance(batch, list) else 0


def _check_batch(content: dict[str, Any], body: bytes) -> None:
    """Refuse a batch that Segment would refuse.

    Raises:
        BodyError: It is not a batch.
        TooLargeError: It is too large.
    """
    batch = _calls(content)
    if len(batch) > MAX_CALLS:
        _too_large(f"more than {MAX_CALLS} calls")
    if len(_shared(content)) > MAX_CALL:
        _too_large(f"what is said for all calls is longer than {MAX_CALL} bytes")
    if any(len(canonical_json(call)) > MAX_CALL for call in batch):
        for number, size in enumerate(_sizes_as_sent(body, batch), start=1):
            if size > MAX_CALL:
                _too_large(f"call {number} is longer than {MAX_CALL} bytes")


def _too_large(problem: str) -> NoReturn:
    msg = f"batch: {problem}"
    raise TooLargeError(msg)


class _Sent(msgspec.Struct):
    """A batch whose calls are left as they came."""

    batch: list[msgspec.Raw]


def _sizes_as_sent(body: bytes, batch: list[Any]) -> list[int]:
    """Return the bytes of each call as it came: written anew, ``1e9`` is four times as long."""
    try:
        sent = msgspec.json.decode(body.removeprefix(BOM), type=_Sent)
        return [len(bytes(call)) for call in sent.batch]
    except msgspec.MsgspecError:  # half of a surrogate pair, say, of which only the text is known
        texts = (json.dumps(call, ensure_ascii=False, separators=(",", ":")) for call in batch)
        return [len(text.encode(errors="surrogatepass")) for text in texts]


def _calls(content: dict[str, Any]) -> list[Any]:
    batch = content.get("batch")
    if not isinstance(batch, list):
        msg = "batch: an array of objects"
        raise BodyError(msg)
    return batch


def _map_batch(content: dict[str, Any], received_at: int) -> Calls:
    """Map a batch's calls, each with what the batch says for all of them.

    Raises:
        BodyError: It is not a batch.
        TooLargeError: The calls would become too much.
    """
    batch = _calls(content)
    if shared_size(content) > MAX_SHARED:
        _too_large(
            f"what is said for all calls, counted for each, is longer than {MAX_SHARED} bytes; "
            "send fewer calls in a batch"
        )
    shared = content.get("context")
    calls = [_with_context(call, shared) for call in batch] if isinstance(shared, dict) else batch
    return _map_tracked(calls, received_at, _beside(content))


def _map_tracked(calls: list[Any], received_at: int, batch: dict[str, Any]) -> Calls:
    def body_of(calls: list[Any]) -> Any:
        return {**batch, "batch": calls} if batch or not isinstance(calls[0], dict) else calls[0]

    cleaned = clean(batch)
    return _map_calls(
        calls,
        lambda fields: from_client(fields, received_at, cleaned),
        received_at,
        TRACKING,
        body_of,
    )


def _shared(content: dict[str, Any]) -> bytes:
    shared = content.get("context")
    return canonical_json({**_beside(content), "context": shared})


def _beside(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a batch says beside its calls, and beside the context that is merged into them.

    ``sentAt``, and whatever a client adds: the batch's number, an id of its own.
    """
    rest = {name: value for name, value in content.items() if not is_dropped(name)}
    rest.pop("batch", None)
    if rest.get("context") is None or isinstance(rest["context"], dict):
        rest.pop("context", None)
    return rest


def _with_context(call: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(call, dict):
        return call
    own = call.get("context")
    if own is None:
        own = {}
    elif not isinstance(own, dict):
        own = {"context": own}  # where it would be without a batch
    return {**call, "context": {**shared, **own}}


def _read_vero_again(body: bytes, received_at: int) -> Calls:
    return Calls([read_vero(unzip(body), received_at)], [], 0)


def read_tracked_again(body: bytes, received_at: int) -> Calls:
    """Turn a body that a store has kept as a dead letter into what it is today.

    It is a call, a batch, or what could not be read when it came, of which no one knows any more
    where it was posted to. Segment's limits do not count: calls grow by what their batch says.

    Raises:
        BodyError: The body is neither.
    """
    content = read_tracked(unzip(body))
    # A call can have a field of that name, and a batch whatever a call has, except for its type.
    is_call = "event" in content and (
        "type" in content or not isinstance(content.get("batch"), list)
    )
    if "batch" in content and not is_call:
        return _map_batch(content, received_at)
    # A call that was posted to /v1/track need not say what it is, and no other kind has an event.
    return _map_tracked([{"type": "track", **content}], received_at, {})


class Imported(NamedTuple):
    """What a record of history comes to: an event or a dead letter; with neither, it is ignored.

    Attributes:
        event: The event.
        letter: The dead letter.
    """

    event: Event | None = None
    letter: DeadLetter | None = None


def read_record(  # noqa: PLR0911  # a step for each way to fail
    record: Any, raw: bytes, where: str, wrapping: Wrapping, *, exact: bool
) -> Imported:
    """Turn a record of a file or table into what a store keeps.

    Args:
        record: The record, which should be an object.
        raw: The record's text; empty: it is a table's row.
        where: The file and the place in it, for a dead letter.
        wrapping: What the user says of records.
        exact: See :func:`tap_vero_segment.inputs.history.unwrap`.
    """
    body, received_at = raw, UNDATED
    try:
        body = raw or canonical_json(record)
        if not isinstance(record, dict):
            return _unread(where, "not a JSON object", body)
        kept = unwrap(record, wrapping, exact=exact)
        if kept is None:
            return Imported()
        received_at = kept.received_at or UNDATED
        unchanged = kept.fields is record and not kept.rebuilt
        body = kept.body or (raw if unchanged else canonical_json(kept.fields))
        if kept.fields.get("type") in SEGMENT_TYPES:
            return Imported(_imported_call(kept.fields, kept.received_at or wrapping.received_at))
        if len(body) > MAX_BODY:
            return _unread(where, f"longer than {MAX_BODY} bytes", body, received_at)
        check_depth(kept.fields)
        moment = kept.received_at
        if moment is None:
            moment = time_of(kept.fields)
        call = to_track(kept.fields, _dated(moment, wrapping))
        return Imported(event_of(call, f"{IMPORT}-{kept.rebuilt}".rstrip("-"), body))
    except (BodyError, NotAnObjectError, UnmappableError) as error:
        return _unread(where, str(error), body, received_at)
    except Exception as error:  # noqa: BLE001  # a fault of the mapping must not cost the others
        logger.error("a fault in the mapping: %s", describe_fault(error))  # noqa: TRY400
        return _unread(where, f"a fault in the mapping: {type(error).__name__}", body, received_at)


def _unread(where: str, reason: str, body: bytes, received_at: int = UNDATED) -> Imported:
    return Imported(None, DeadLetter(received_at, IMPORT, f"{where}: {reason}", body))


def _dated(moment: int | None, wrapping: Wrapping) -> int:
    moment = wrapping.received_at if moment is None else moment
    if moment is None:
        msg = (
            "it tells no time of its own and none of its receipt: name the field that does by "
            "--received-field, or import it again with --received-at"
        )
        raise UnmappableError(msg)
    return moment


def _imported_call(fields: dict[str, Any], received_at: int | None) -> Event | None:
    """Map a call as an archive or a collector's ``/v1/events`` has it."""
    call = {name: value for name, value in fields.items() if name != "loadedAt"}
    if call.get("receivedAt") is None and call["type"] == "track":
        received_at = _dated(received_at, Wrapping())
    mapped = from_webhook(call, received_at or UNDATED)
    return None if mapped is None else event_of(mapped, IMPORT, None)


def _read_imported_again(body: bytes, received_at: int) -> Calls:
    """Turn a dead letter of an import into what it is today.

    Raises:
        UnmappableError: It still is none.
    """
    wrapping = Wrapping(received_at=None if received_at == UNDATED else received_at)
    content = _read_json(body)
    read = read_record(content, body, "", wrapping, exact=True)
    if read.letter is not None:
        raise UnmappableError(read.letter.reason.removeprefix(": "))
    return Calls([read.event] if read.event else [], [], 0 if read.event else 1)


READ_AGAIN: Final[dict[str, Callable[[bytes, int], Calls]]] = {
    VERO: _read_vero_again,
    TRACKING: read_tracked_again,
    SEGMENT: read_webhook,
    IMPORT: _read_imported_again,
}
"""What reads a dead letter's body again, by where it came in. A new input is a row here.

Each raises :class:`BodyError`, :class:`NotAnObjectError` or :class:`UnmappableError`.
"""


def _read_json(body: bytes) -> Any:
    """Read a body's JSON.

    Raises:
        NotJSONError: It is not JSON, or nested too deeply.
    """
    try:
        content = read_json(body)
        if not is_shallow(body):
            check_depth(content, _MAX_READ)
    except UnmappableError as error:
        msg = f"the body is {error}"
        raise NotJSONError(msg) from error
    except RecursionError as error:
        msg = "the body is nested too deeply"
        raise NotJSONError(msg) from error
    except ValueError as error:
        msg = "the body is not JSON"
        raise NotJSONError(msg) from error
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


def _map_calls(
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
    ignored = 0
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
                ignored += 1
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
    return result._replace(ignored=ignored)
