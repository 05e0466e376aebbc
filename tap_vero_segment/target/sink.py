"""Where a stream's records go: to the server, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from singer_sdk.sinks import BatchSink, RecordSink

from tap_vero_segment.errors import UserError
from tap_vero_segment.target.calls import DeadCall
from tap_vero_segment.target.mapping import StreamMapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_vero_segment.record import Record
    from tap_vero_segment.target.calls import OutgoingCall
    from tap_vero_segment.target.reader import MessageReader
    from tap_vero_segment.target.target import TargetSegment

MAX_WAITING: Final = 5_000
"""Events of a stream that wait to be sent."""


class EventSink(BatchSink):
    """Sends a stream's records as track calls.

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
        self._api = target.api
        self._dead_letters = target.dead_letters
        self._input = cast("MessageReader", target.message_reader)

    def _validate_and_parse(self, record: Record) -> Record:
        # The SDK would repeat what it does not like in the log, and read times only to have them
        # written again.
        return record

    def _after_process_record(self, context: dict[str, Any]) -> None:
        """Do nothing: the SDK writes the whole batch to the log here, if that is to tell all."""

    def process_record(self, record: Record, context: dict[str, Any]) -> None:
        """Keep a record, and where it came in, until its batch is delivered."""
        super().process_record(record, context)
        context.setdefault("lines", []).append(self._input.number)

    def process_batch(self, context: dict[str, Any]) -> None:
        """Deliver records; return when each was accepted, or is a dead letter.

        Raises:
            UserError: One could not be delivered.
        """
        read = [self._mapping.read(record) for record in context.get("records", ())]
        places = context.get("lines", ())  # those of a batch file have none
        self._bury((each for each in read if isinstance(each, DeadCall)), read, places)
        calls = [each for each in read if not isinstance(each, DeadCall)]
        self._bury(self._api.deliver(calls), read, places)

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


class IgnoringSink(RecordSink):
    """Drops the records of ``tracks``: its events come with their collections."""

    def __init__(
        self,
        target: TargetSegment,
        stream_name: str,
        schema: dict[str, Any],
        key_properties: Sequence[str] | None,
    ) -> None:
        super().__init__(target, stream_name, schema, key_properties)
        self.logger.warning(
            "stream %s is not sent, as its events come with their collections' streams", stream_name
        )

    def _validate_and_parse(self, record: Record) -> Record:
        return record

    def process_record(self, record: Record, context: dict[str, Any]) -> None:
        """Drop a record."""
