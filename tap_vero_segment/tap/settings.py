"""The tap's settings: their JSON schema, and their meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from singer_sdk import typing as th

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.open import SourceSettings, check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_vero_segment.track import TrackCall

SCHEMA: Final[dict[str, Any]] = th.PropertiesList(
    th.Property(
        "source",
        th.StringType,
        required=True,
        title="Source",
        description=(
            "Where the events are: sqlite:///relative.db or sqlite:////absolute.db (the "
            "collector's file, on the same machine), or http(s)://host (a collector's read API)."
        ),
    ),
    th.Property(
        "token",
        th.StringType,
        secret=True,
        title="Read token",
        description="The collector's read token, for an http(s) source.",
    ),
    th.Property(
        "start_date",
        th.DateTimeType,
        title="Start date",
        description=(
            "Only events received at this time or later. A time without an offset is UTC."
        ),
    ),
    th.Property(
        "end_date",
        th.DateTimeType,
        title="End date",
        description="Only events received before this time. A time without an offset is UTC.",
    ),
).to_dict()


class Settings(NamedTuple):
    """The settings, read and checked.

    Attributes:
        source: Where the events are.
        received_from: Only events received then or later, as fixed-width UTC text.
        received_before: Only events received before then, as fixed-width UTC text.
    """

    source: SourceSettings
    received_from: str | None
    received_before: str | None

    def covers(self, call: TrackCall) -> bool:
        """Whether an event was received between the start and the end."""
        received_at = call.received_at
        return (self.received_from is None or received_at >= self.received_from) and (
            self.received_before is None or received_at < self.received_before
        )

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Read the tap's configuration.

        Raises:
            SettingError: A setting cannot be used; the first one that is met.
        """
        source = SourceSettings(config["source"], config.get("token"))
        check(source)
        start, end = _time(config, "start_date"), _time(config, "end_date")
        if start is not None and end is not None and start >= end:
            raise SettingError("end_date", "it is not after start_date, so no event could match")
        return cls(source, start, end)


def check_texts(config: Mapping[str, Any]) -> None:
    """Say which setting is not text, without repeating it.

    Raises:
        SettingError: One that may hold a secret is not text.
    """
    for setting in ("source", "token"):
        if not isinstance(config.get(setting), (str, type(None))):
            raise SettingError(setting, "it is not text")


def _time(config: Mapping[str, Any], setting: str) -> str | None:
    value = config.get(setting)
    if not value:
        return None
    try:
        return times.canonical(value)
    except ValueError as error:
        raise SettingError(setting, str(error)) from error
