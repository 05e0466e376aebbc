"""Where a stream's records go: to the server, except those of ``tracks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from singer_sdk.sinks import BatchSink

from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.errors import UserError
from tap_vero_segment.targets.segment.calls import DeadCall
from tap_vero_segment.targets.segment.mapping import OF_COLLECTIONS, StreamMapping, is_tracks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_vero_segment.record import Record
    from tap_vero_segment.singer.target_reader import MessageReader
    from tap_vero_segment.targets.segment.calls import OutgoingCall
    from tap_vero_segment.targets.segment.target import TargetSegment

MAX_WAITING: Final = 5_000
"""Events of a stream that wait to be sent."""


class EventSink(BatchSink):
    """Sends a stream's records as track calls.

    Records of ``tracks`` are dropped, as their events come with their collections' streams. A
    stream map can give all streams one name, so each record of such a stream is looked at.

    Args:
        target: The target.
        stream_name: The stream's name.
        schema: Its JSON schema.
        key_properties: Its primary key.

    Raises:
        UserError: Its records are no events.
    """

    MAX_SIZE_DEFAULT = MAX_WAITING
    include_sdc_metadata_properties = False  # they tell of the run, not of the event

    def __init__(
        self,
        target: TargetSegment,
        stream_name: str,
        schema: dict[str, Any],
        key_properties: Sequence[str] | None,
    ) -> None:
        super().__init__(target, stream_name, schema, key_properties)
        self._mapping = StreamMapping(stream_name, self.schema, self.key_properties)
        self._waiting = 0
        self._target = target
        self._api = target.api
        self._dead_letters = target.dead_letters
        self._input = cast("MessageReader", target.message_reader)
        if is_tracks(stream_name, self.schema["properties"]):
            target.tracks.add(stream_name)
            self.logger.warning(
                "stream %s is not sent: its events come with their collections' streams",
                stream_name,
            )
        else:
            target.others.add(stream_name)

    @property
    def current_size(self) -> int:
        """How many events wait to be sent."""
        return self._waiting

    def _validate_and_parse(self, record: Record) -> Record:
        # The SDK would repeat what it does not like in the log, and read times only to have them
        # written again.
        return record

    def _after_process_record(self, context: dict[str, Any]) -> None:
        """Do nothing: the SDK writes the whole batch to the log here, if that is to tell all."""

    def process_record(self, record: Record, context: dict[str, Any]) -> None:
        """Keep a record, and where it came in, until its batch is delivered."""
        if self._is_dropped(record):
            return
        super().process_record(record, context)
        context.setdefault("lines", []).append(self._input.number)
        self._waiting += 1

    def process_batch(self, context: dict[str, Any]) -> None:
        """Deliver records; return when each was accepted, or is a dead letter.

        Raises:
            UserError: One could not be delivered.
        """
        records = context.get("records", ())
        places = context.get("lines")
        if places is None:  # of a batch file
            records = [record for record in records if not self._is_dropped(record)]
        self._target.sent_events |= {_event_of(record) for record in records}
        read = [self._mapping.read(record) for record in records]
        self._bury((each for each in read if isinstance(each, DeadCall)), read, places or ())
        calls = [each for each in read if not isinstance(each, DeadCall)]
        self._bury(self._api.deliver(calls), read, places or ())
        self._waiting = 0

    def _is_dropped(self, record: Record) -> bool:
        """Whether a record is one of ``tracks``, which is counted."""
        if self.stream_name not in self._target.tracks:
            return False
        if self.stream_name in self._target.others and record.keys() & OF_COLLECTIONS:
            return False
        self._target.dropped[_event_of(record)] += 1
        return True

    def _bury(
        self,
        dead_calls: Iterable[DeadCall],
        read: Sequence[OutgoingCall | DeadCall],
        places: Sequence[int],
    ) -> None:
        for call, reason in dead_calls:
            letter = {
                "stream": self.stream_name,
                "id": call.id,
                "reason": reason,
                "call": msgspec.Raw(call.body),
            }
            # The id may be a hash, and what it is made of a recipient's address.
            where = "" if self._dead_letters.path else _place(call, read, places)
            problem = (
                f"stream {self.stream_name}: {where}event {call.id} can never be delivered: "
                f"{reason} (set dead_letter to keep such events and go on)"
            )
            self._dead_letters.add(letter, UserError(problem))


def _place(
    call: OutgoingCall, read: Sequence[OutgoingCall | DeadCall], places: Sequence[int]
) -> str:
    """Say where in the input a call's record is; nothing where that is not known."""
    for each, line in zip(read, places, strict=False):
        if call is (each.call if isinstance(each, DeadCall) else each):
            return f"line {line} of the input, "
    return ""


def _event_of(record: Record) -> str | None:
    """Return the name of a record's event where it is one of this project's collections."""
    name = record.get("event_text")
    return name if isinstance(name, str) and name in BY_EVENT else None
