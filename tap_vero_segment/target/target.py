"""The target: settings, sinks, and the run as a whole.

A state is written when every event before it was accepted: the SDK writes the last one that it has
read, each time that it has drained all sinks.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from singer_sdk import Target
from singer_sdk.helpers.capabilities import PluginCapabilities

from tap_vero_segment.collection import TRACKS
from tap_vero_segment.dead_letters import DeadLetters
from tap_vero_segment.singer import SingerProgram, end_at_the_next_signal
from tap_vero_segment.target.client import TrackingApi
from tap_vero_segment.target.reader import MessageReader
from tap_vero_segment.target.settings import SCHEMA, Settings
from tap_vero_segment.target.sink import EventSink, IgnoringSink

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from singer_sdk.helpers.capabilities import CapabilitiesEnum
    from singer_sdk.sinks import Sink

DRAIN_AT: Final = 5_000
"""Events since the last state that was written, of all streams together, those included that a full
sink has sent, when a STATE message is worth sending all that wait."""


class TargetSegment(SingerProgram, Target):
    """Singer target that sends events to Segment, or to any server that speaks its Tracking API."""

    name = "target-segment"
    package_name = "tap-vero-segment"
    config_jsonschema: ClassVar[dict[str, Any]] = SCHEMA
    message_reader_class = MessageReader
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
        # One sink after the other: requests that run at once are the client's business.
        self.max_parallelism = 1
        cast("MessageReader", self.message_reader).waiting = self._interruptible

    @cached_property
    def settings(self) -> Settings:
        """The settings, read and checked.

        Raises:
            SettingError: A setting cannot be used.
        """
        return Settings.read(self.config)

    def check_settings(self) -> None:
        """See :class:`tap_vero_segment.singer.SingerProgram`."""
        _ = self.settings

    @cached_property
    def api(self) -> TrackingApi:
        """The server that events go to."""
        return TrackingApi(self.settings.url, self.settings.write_key)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Where events go that can never be delivered.

        Raises:
            SettingError: The file cannot be written.
        """
        return DeadLetters(self.settings.dead_letter)

    @classmethod
    def append_builtin_config(cls, config_jsonschema: dict[str, Any]) -> None:
        """Add the SDK's settings, but not those that only a target with tables has."""
        super(Target, cls).append_builtin_config(config_jsonschema)

    def get_sink_class(self, stream_name: str) -> type[Sink]:
        """Return what takes a stream's records."""
        return IgnoringSink if stream_name == TRACKS else EventSink

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

    def process_endofpipe(self) -> None:
        """Deliver what waits, write the state, and tell the figures."""
        super().process_endofpipe()
        self.api.close()
        self.logger.info(
            "%d events sent in %d requests, %d dead letters",
            self.api.accepted,
            self.api.requests,
            self.dead_letters.count,
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
