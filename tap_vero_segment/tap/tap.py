"""The tap: settings, streams, and the run as a whole."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, cast

from singer_sdk import Tap
from singer_sdk.exceptions import ConfigValidationError
from singer_sdk.helpers._batch import BatchConfig
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from singer_sdk.plugin_base import SingerCommand
from singer_sdk.tap_base import CliTestOptionValue

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.sources.open import open_source
from tap_vero_segment.tap.messages import PageWriter
from tap_vero_segment.tap.settings import SCHEMA, Settings
from tap_vero_segment.tap.streams import VeroStream
from tap_vero_segment.tap.sync import sync

if TYPE_CHECKING:
    import logging
    from collections.abc import Generator, Sequence
    from types import FrameType

    import click
    from singer_sdk.helpers.capabilities import CapabilitiesEnum


class TapVeroSegment(Tap):
    """Singer tap for Vero's email events, in the shape of Segment's Vero Source."""

    name = "tap-vero-segment"
    package_name = "tap-vero-segment"
    config_jsonschema: ClassVar[dict[str, Any]] = SCHEMA
    message_writer_class = PageWriter
    capabilities: ClassVar[list[CapabilitiesEnum]] = [
        TapCapabilities.CATALOG,
        TapCapabilities.STATE,
        TapCapabilities.DISCOVER,
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.BATCH,
        PluginCapabilities.STRUCTURED_LOGGING,
    ]

    _holding = False
    _held_signal: tuple[int, FrameType | None] | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings, read and checked.

        Raises:
            SettingError: A setting cannot be used.
        """
        return Settings.read(self.config)

    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        errors = super()._validate_config(raise_errors=raise_errors)
        if raise_errors:
            try:
                _ = self.settings
            except SettingError as error:
                raise ConfigValidationError(
                    str(error), errors=[str(error)], schema=self.config_jsonschema
                ) from error
        return errors

    def discover_streams(self) -> list[VeroStream]:
        """Return all streams; discovery needs no source."""
        return [
            *(VeroStream(self, collection) for collection in COLLECTIONS),
            VeroStream(self, None),
        ]

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over an earlier run's state, its bookmarks rewritten as fixed-width text.

        Singer compares bookmarks as text; a state that was written by hand must compare too.

        Raises:
            UserError: A bookmark is no date or time.
        """
        super().load_state(state)
        for name, stream_state in self.state.get("bookmarks", {}).items():
            value = stream_state.get("replication_key_value")
            if value is None:
                continue
            try:
                stream_state["replication_key_value"] = times.canonical(value)
            except (TypeError, ValueError) as error:
                msg = f"state: the bookmark of {name} is not a date or time"
                raise UserError(msg) from error

    def sync_all(self) -> None:  # type: ignore[misc]  # final in the SDK
        """Sync all selected streams, in one pass over the source.

        The SDK would read the source once for each stream; it offers no other place to say
        otherwise.

        Raises:
            UserError: The source cannot be read, or a bookmark of the state cannot.
        """
        streams = cast("Sequence[VeroStream]", self.streams.values())
        selected = [stream for stream in streams if stream.selected]
        self.logger.info("Selected streams: %s", ", ".join(stream.name for stream in selected))
        self._reset_state_progress_markers()
        with open_source(self.settings.source) as source:
            with self.uninterrupted():
                if self.state:
                    self.state_writer.write_state(self.state)
                for stream in selected:
                    stream._write_schema_message()  # noqa: SLF001  # the SDK's own path
            if selected:
                sync(self, source, selected)
        with self.uninterrupted():
            self.state_writer.write_state(self.state)

    @property
    def batch_config(self) -> BatchConfig | None:
        """How BATCH messages are written; None: RECORD messages instead."""
        raw = self.config.get("batch_config")
        return BatchConfig.from_dict(raw) if raw else None

    def write_page(self, lines: bytes) -> None:
        """Write messages that are serialized already."""
        cast("PageWriter", self.message_writer).write_page(lines)

    @contextmanager
    def uninterrupted(self) -> Generator[None]:
        """Hold a signal back until messages and the state that goes with them are written.

        A handler that ran in the middle of a page would write its own state into that page, or a
        state that the page is not yet part of.
        """
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._held_signal is not None:
            super()._handle_termination(*self._held_signal)

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        if self._holding:
            self._held_signal = (signum, frame)
            # The target may never read on: a second signal ends the run at once.
            signal.signal(signum, signal.SIG_DFL)
            return
        super()._handle_termination(signum, frame)

    @classmethod
    def cb_test(cls, ctx: click.Context, param: click.Option, value: str) -> None:
        """Run the tap in test mode, a source that cannot be read told before any stream."""
        if value == CliTestOptionValue.All.value:
            config = ctx.params["config"]
            tap = cls(config=config.config, parse_env_config=config.parse_env)
            open_source(tap.settings.source).close()
        super().cb_test(ctx, param, value)

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Return the command line, which tells the user's errors in one line."""
        command = super().get_singer_command()
        return _Command(
            name=command.name,
            callback=_told_in_a_line(cls.logger)(command.callback or cls.invoke),
            params=command.params,
            help=command.help,
            context_settings=command.context_settings,
            logger=cls.logger,
        )


class _Command(SingerCommand):
    """The tap's command line."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        # --test and --discover run while the arguments are read.
        with _told_in_a_line(self.logger):
            return super().make_context(*args, **kwargs)


@contextmanager
def _told_in_a_line(logger: logging.Logger) -> Generator[None]:
    """Tell what the user can mend in one line, without a traceback, and exit with status 1."""
    try:
        yield
    except ConfigValidationError as error:
        logger.error("%s", "; ".join(error.errors))  # noqa: TRY400
        sys.exit(1)
    except UserError as error:
        logger.error("%s", error)  # noqa: TRY400
        sys.exit(1)
    except BrokenPipeError:
        logger.error("the target has closed the pipe")  # noqa: TRY400
        # What is left in the buffer can go nowhere: not an error of its own at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
