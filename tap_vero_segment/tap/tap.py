"""The tap: settings, streams, and the run as a whole."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, ClassVar, cast

from singer_sdk import Tap
from singer_sdk.helpers.capabilities import PluginCapabilities, TapCapabilities
from singer_sdk.singerlib import Catalog, MetadataMapping

from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.errors import UserError
from tap_vero_segment.singer import stream_maps
from tap_vero_segment.singer.plugin import (
    SingerProgram,
    end_at_the_next_signal,
    parse_json,
)
from tap_vero_segment.sources.open import is_archive, kind_of, open_source
from tap_vero_segment.tap.catalog import check_form, check_names
from tap_vero_segment.tap.messages import SingerOutput
from tap_vero_segment.tap.settings import SCHEMA, Settings
from tap_vero_segment.tap.state import BOOKMARKS, check_is_state, read_state
from tap_vero_segment.tap.streams import ErasuresStream, VeroStream
from tap_vero_segment.tap.sync import begin_again_if_behind, sync, sync_erasures
from tap_vero_segment.tap.trial import try_out

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from singer_sdk.helpers.capabilities import CapabilitiesEnum

    from tap_vero_segment.sources.archive import ArchiveSource


class TapVeroSegment(SingerProgram[Settings], Tap):
    """Singer tap for Vero's email events, in the shape of Segment's Vero Source."""

    name = "tap-vero-segment"
    package_name = "tap-vero-segment"
    settings_class = Settings
    config_jsonschema: ClassVar[dict[str, Any]] = SCHEMA
    message_writer_class = SingerOutput
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

    @property
    def output(self) -> SingerOutput:
        """Where messages go."""
        return cast("SingerOutput", self.message_writer)

    @property
    def vero_streams(self) -> Sequence[VeroStream]:
        """The streams."""
        return cast("Sequence[VeroStream]", list(self.streams.values()))

    def setup_mapper(self) -> None:
        """Prepare the stream maps, those of deselected streams as if they were selected.

        The SDK takes every column from a deselected stream, and a map for ``*`` would then fail
        for want of its key.
        """
        columns = {
            stream.name: {
                *stream.schema["properties"],
                *stream.effective_schema.get("properties", {}),
            }
            for stream in self.vero_streams
        }
        if self.input_catalog is not None:
            check_names(self.input_catalog, columns)
        for warning in stream_maps.check_names(self.config, columns):
            self.logger.warning("%s", warning)
        super().setup_mapper()
        self.mapper.register_raw_streams_from_catalog(
            Catalog(
                (stream_id, replace(entry, metadata=_selected(entry.metadata)))
                for stream_id, entry in self.catalog.items()
            )
        )

    def discover_streams(self) -> list[VeroStream]:
        """Return all streams; discovery needs no source."""
        return [
            *(
                VeroStream(self, collection, lambda: self.settings)
                for collection in (*COLLECTIONS, None)
            ),
            ErasuresStream(self, lambda: self.settings),
        ]

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over an earlier run's state.

        Raises:
            UserError: It cannot be used: see :func:`tap_vero_segment.tap.state.read_state`.
        """
        bookmarks = read_state(state, self.streams.keys(), lambda: kind_of(self.config["source"]))
        super().load_state({BOOKMARKS: bookmarks})
        self.state.setdefault(BOOKMARKS, {})

    def sync_all(self) -> None:  # type: ignore[misc]  # final in the SDK
        """Sync all selected streams, in one pass over the source.

        The SDK would read the source once for each stream; it offers no other place to say
        otherwise.

        Raises:
            UserError: The source cannot be read, or a bookmark of the state cannot.
        """
        if self.settings.source.dead_letter is not None and not is_archive(self.config["source"]):
            self.logger.warning("dead_letter: only an archive's lines go there, so it is ignored")
        selected = [stream for stream in self.vero_streams if stream.selected]
        self.logger.info("Selected streams: %s", ", ".join(stream.name for stream in selected))
        if not selected:
            self.logger.warning("no stream is selected, so nothing is read: check the catalog")
        self._reset_state_progress_markers()
        with open_source(self.settings.source) as source:
            events = [each for each in selected if not isinstance(each, ErasuresStream)]
            for stream in events:
                begin_again_if_behind(stream, source)
            with self.output.uninterrupted():
                # Before any record, also in a first run: there are loaders that take the first
                # STATE they see for what is loaded already.
                self.state_writer.write_state(self.state)
                for stream in selected:
                    stream._write_schema_message()  # noqa: SLF001  # the SDK's own path
            if events and self.settings.scheduler is None:
                sync(self.output, self.settings, source, events)
            elif events:
                # An extra, and half a second to import.
                from tap_vero_segment.tap.workers.dispatch import sync_by_workers  # noqa: PLC0415
                from tap_vero_segment.tap.workers.job import Job  # noqa: PLC0415

                archive = cast("ArchiveSource", source)
                job = Job(type(self), self.config, self.catalog_dict)
                sync_by_workers(self.output, self.settings, archive, events, job)
            # After the events: what was erased meanwhile is deleted by the next run at the latest.
            for stream in selected:
                if isinstance(stream, ErasuresStream):
                    sync_erasures(self.output, source, stream)
        with self.output.uninterrupted():
            self.state_writer.write_state(self.state)

    def run_connection_test(self) -> bool:  # type: ignore[misc]  # final in the SDK
        """Try the source out, in one look for all streams: what ``--test`` does.

        The SDK would read the source once for each stream, and to its end for one without events.

        Raises:
            UserError: The source cannot be read, or is none.
        """
        for stream in self.vero_streams:
            stream.selected = True
        found = try_out(self.output, self.settings, self.vero_streams)
        self.logger.info("The test has passed: %s", found)
        return True

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:
        end = partial(super()._handle_termination, signum, frame)
        if self.output.holds(end):
            end_at_the_next_signal()  # the target may never read on
        else:
            end()

    @classmethod
    def invoke(
        cls, *, state: IO[str] | None = None, catalog: IO[str] | None = None, **options: Any
    ) -> None:
        """Run the tap as its command line says."""
        super().invoke(
            state=_checked("--state", state, check_is_state),
            catalog=_checked("--catalog", catalog, check_form),
            **options,
        )


def _selected(metadata: MetadataMapping) -> MetadataMapping:
    """Return a stream's metadata with the stream selected, its columns as they were."""
    selected = MetadataMapping(metadata)
    selected[()] = replace(metadata.root, selected=True)
    return selected


def _checked(option: str, file: IO[str] | None, check: Callable[[Any], None]) -> IO[str] | None:
    """Return a file of the command line, read and checked.

    Args:
        option: The option that names it.
        file: The file; None: there is none.
        check: Raises what is wrong with its content.

    Raises:
        UserError: It cannot be used.
    """
    if file is None:
        return None
    try:
        text = file.read().removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{option}: {file.name} cannot be read: {error}"
        raise UserError(msg) from error
    if option == "--state" and (problem := _of_a_state(text)):
        msg = f"{option}: {file.name} {problem}"
        raise UserError(msg)
    check(parse_json(option, file.name, text))
    return io.StringIO(text)


def _of_a_state(text: str) -> str | None:
    """Say what is wrong with a state file that holds all that a target printed, or none of it."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return (
            "is empty: for a first run leave --state out; later it holds the last line that the "
            "target printed"
        )
    if len(lines) > 1 and all(map(_is_json, lines)):
        return (
            f"has {len(lines)} lines: a state is one, so keep only the last that the target "
            "printed (tail -n 1)"
        )
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
