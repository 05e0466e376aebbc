"""The target, and the sinks that its streams' records go to.

A state is written when every event before it was accepted: the SDK writes the last one that it has
read, each time that it has drained all sinks.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import msgspec
from singer_sdk.helpers.capabilities import PluginCapabilities
from singer_sdk.sinks import BatchSink

from tap_vero_segment.collection import BY_EVENT, COLLECTIONS
from tap_vero_segment.dead_letter_file import DeadLetterFile
from tap_vero_segment.errors import UserError
from tap_vero_segment.singer.plugin import SingerTarget, end_at_the_next_signal
from tap_vero_segment.singer.stream_maps import NamesInInput
from tap_vero_segment.singer.target_reader import MessageReader
from tap_vero_segment.targets.segment.calls import DeadCall
from tap_vero_segment.targets.segment.client import TrackingApi
from tap_vero_segment.targets.segment.mapping import OF_COLLECTIONS, StreamMapping, is_tracks
from tap_vero_segment.targets.segment.settings import SCHEMA, Settings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from types import FrameType

    from singer_sdk.helpers.capabilities import CapabilitiesEnum

    from tap_vero_segment.record import Record
    from tap_vero_segment.targets.segment.calls import OutgoingCall

MAX_WAITING: Final = 5_000
"""Events of a stream that wait to be sent."""

DRAIN_AT: Final = 5_000
"""Events since the last state that was written, of all streams together, those included that a full
sink has sent, when a STATE message is worth sending all that wait."""


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


class TargetSegment(SingerTarget[Settings]):
    """Singer target that sends events to Segment, or to any server that speaks its Tracking API."""

    name = "target-segment"
    package_name = "tap-vero-segment"
    settings_class = Settings
    config_jsonschema: ClassVar[dict[str, Any]] = SCHEMA
    message_reader_class = MessageReader
    default_sink_class = EventSink
    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
    ]

    _waiting = False
    _signalled = False
    _done_at_last_state = 0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        # Not in the class's docstring, which --about prints: what the sinks tell of tracks.
        self.tracks: set[str] = set()
        """The names of the streams that are ``tracks``."""
        self.others: set[str] = set()
        """The names of other streams; a stream map can give them all one name."""
        self.dropped: Counter[str | None] = Counter()
        """How many records of ``tracks`` were not sent, by the event's name."""
        self.sent_events: set[str | None] = set()
        """The names of the events that other streams have had."""
        # One sink after the other: requests that run at once are the client's business.
        self.max_parallelism = 1
        self._names = NamesInInput(self.config, self.logger)
        self._input = cast("MessageReader", self.message_reader)
        self._input.waiting = self._interruptible

    @cached_property
    def api(self) -> TrackingApi:
        """The server that events go to."""
        return TrackingApi(self.settings.url, self.settings.write_key)

    @cached_property
    def dead_letters(self) -> DeadLetterFile:
        """Where events go that can never be delivered.

        Raises:
            SettingError: The file cannot be written.
        """
        return DeadLetterFile(self.settings.dead_letter)

    def _process_schema_message(self, message_dict: dict[str, Any]) -> None:
        with self._input.refusing("a SCHEMA message that cannot be used"):
            super()._process_schema_message(message_dict)
        self._names.add(message_dict["stream"], message_dict["schema"])

    def _process_batch_message(self, message_dict: dict[str, Any]) -> None:
        with self._input.refusing("a BATCH message whose files cannot be read"):
            super()._process_batch_message(message_dict)

    def _process_activate_version_message(self, message_dict: dict[str, Any]) -> None:
        """Do nothing: Segment has no versions of a table, and events are never replaced."""

    def _process_state_message(self, message_dict: dict[str, Any]) -> None:
        super()._process_state_message(message_dict)
        # A sink that is full is sent without a state: of a single stream, so many never wait.
        waiting = sum(sink.current_size for sink in self._sinks_active.values())
        if self._done() + waiting - self._done_at_last_state >= DRAIN_AT:
            self.drain_all()
            self._done_at_last_state = self._done()

    def _done(self) -> int:
        """Return how many events were accepted or are dead letters."""
        return self.api.accepted + self.dead_letters.count

    def _write_state_message(self, state: dict[str, Any]) -> None:
        if self._has_only_tracks():
            return  # the collections' streams may come yet
        try:
            super()._write_state_message(state)
        except BrokenPipeError:
            raise
        except OSError as error:
            # Python tries once more when it ends, and would say it in its own words.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            msg = f"standard output: the state cannot be written: {error.strerror}"
            raise UserError(msg) from error

    def _has_only_tracks(self) -> bool:
        # The events of some streams never come with tracks.
        not_in_tracks = {each.stream for each in COLLECTIONS if not each.email}
        return bool(self.dropped) and self.others <= not_in_tracks

    def process_endofpipe(self) -> None:
        """Deliver what waits, write the state, and tell the figures.

        Raises:
            UserError: Only ``tracks`` came in, so nothing was sent.
        """
        super().process_endofpipe()
        self.api.close()
        if self._has_only_tracks():
            msg = (
                f"only tracks came in ({self.dropped.total()} records), which is not sent: select "
                "the collections' streams (email_sent and so on), whose events have all columns"
            )
            raise UserError(msg)
        self._report()
        self._names.end()

    def _report(self) -> None:
        self.logger.info(
            "%d events sent in %d requests, %d dead letters",
            self.api.accepted,
            self.api.requests,
            self.dead_letters.count,
        )
        if self.dropped:
            self.logger.info("%d records of tracks not sent", self.dropped.total())
        missing = {name: self.dropped[name] for name in self.dropped.keys() - self.sent_events}
        if missing:
            streams = sorted(BY_EVENT[name].stream if name else "others" for name in missing)
            self.logger.warning(
                "%d events came with tracks only and were not sent: select their streams (%s)",
                sum(missing.values()),
                ", ".join(streams),
            )

    @contextmanager
    def _interruptible(self) -> Generator[None]:
        """Let a signal end the run, in here and nowhere else.

        In the middle of a batch the SDK's way, to drain all sinks at once and write the state,
        would pass over the events that are being sent.
        """
        self._waiting = True
        try:
            if self._signalled:
                self._end()
            yield
        finally:
            self._waiting = False

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        del frame
        end_at_the_next_signal()  # the server may never answer
        self.logger.info("signal %d: sending what has been read, then ending", signum)
        self._signalled = True
        if self._waiting:
            self._end()

    def _end(self) -> None:
        self._waiting = False
        self.process_endofpipe()
        sys.exit(0)


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
