"""The tap's settings: their JSON schema, and their meaning."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from singer_sdk import typing as th

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.record import to_row
from tap_vero_segment.sources.base import DEFAULT_LOOKBACK, SourceSettings
from tap_vero_segment.sources.open import check, is_archive
from tap_vero_segment.tap.addresses import Addresses
from tap_vero_segment.tap.batch.settings import PROPERTY as BATCH_CONFIG
from tap_vero_segment.tap.batch.settings import BatchSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tap_vero_segment.collection import Collection
    from tap_vero_segment.record import Row
    from tap_vero_segment.track import TrackCall

DASK_SCHEDULER: Final = "dask_scheduler"
"""The setting, for errors."""

_SCHEMES: Final = frozenset({"tcp", "tls", "ws", "wss", "ucx"})
"""Of a Dask scheduler's address."""

SCHEMA: Final[dict[str, Any]] = th.PropertiesList(
    th.Property(
        "source",
        th.StringType,
        required=True,
        title="Source",
        description=(
            "Where the events are: sqlite:///relative.db or sqlite:////absolute.db (the "
            "collector's file, on the same machine), postgresql://… (collectors' shared store), "
            "http(s)://host (a collector's read API), or s3://, gs://, az:// or file:/// (a folder "
            "that holds a Segment raw archive)."
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
    th.Property(
        "storage_options",
        th.ObjectType(additional_properties=True),
        secret=True,
        title="Storage options",
        description=(
            "For an archive: credentials, region, endpoint and the like, as obstore names them. "
            "Unset: the provider's usual environment variables, profiles and instance roles."
        ),
    ),
    th.Property(
        "lookback_seconds",
        th.IntegerType(minimum=0),
        default=DEFAULT_LOOKBACK,
        title="Lookback",
        description=(
            "For an archive: how far behind the bookmark it is read again, in seconds, as object "
            "stores can list late."
        ),
    ),
    th.Property(
        "dead_letter",
        th.StringType,
        title="Dead letter",
        description=(
            "For an archive: a file that lines are appended to which cannot be read. Unset: the "
            "first one ends the run."
        ),
    ),
    th.Property(
        "objects_as_text",
        th.BooleanType,
        default=False,
        title="Objects as text",
        description=(
            "Whether the columns context and properties are text that holds JSON, for targets that "
            "change or cannot take objects."
        ),
    ),
    th.Property(
        "segment_columns",
        th.BooleanType,
        default=False,
        title="Segment's columns",
        description=(
            "Whether streams have the further columns of Segment's warehouses: uuid_ts, "
            "context_library_name, context_library_version, context_integration_name and "
            "context_integration_version."
        ),
    ),
    th.Property(
        "email_addresses",
        th.StringType,
        default="keep",
        allowed_values=["keep", "hash", "omit"],
        title="Email addresses",
        description=(
            "What becomes of the recipient's email address or number, wherever it stands: keep, "
            "hash (its HMAC-SHA256 with hash_key) or omit."
        ),
    ),
    th.Property(
        "hash_key",
        th.StringType,
        secret=True,
        title="Hash key",
        description=(
            "For email_addresses: hash, the secret key. With the same key, the same address has "
            "the same hash."
        ),
    ),
    th.Property(
        DASK_SCHEDULER,
        th.StringType,
        title="Dask scheduler",
        description=(
            "For an archive and batch_config: the address of a Dask scheduler, such as "
            "tcp://host:8786, whose workers read the objects and write the files. Unset: this "
            "process does."
        ),
    ),
    BATCH_CONFIG,
).to_dict()


class Settings(NamedTuple):
    """The settings, read and checked.

    Attributes:
        source: Where the events are.
        received_from: Only events received then or later, as fixed-width UTC text.
        received_before: Only events received before then, as fixed-width UTC text.
        batch: How BATCH messages are written; None: RECORD messages instead.
        scheduler: The address of the Dask scheduler; None: no workers.
        objects_as_text: Whether ``context`` and ``properties`` are text that holds JSON.
        segment_columns: Whether records have the further columns of Segment's warehouses.
        addresses: Hides the recipient's address or number; None: it is kept.
    """

    source: SourceSettings
    received_from: str | None
    received_before: str | None
    batch: BatchSettings | None
    scheduler: str | None
    objects_as_text: bool
    segment_columns: bool
    addresses: Addresses | None

    def row(self, call: TrackCall, collection: Collection) -> Row:
        """Return an event's columns as they are wanted; the call is used up for it."""
        if self.addresses is not None:
            self.addresses.hide(call)
        return to_row(
            call,
            collection,
            objects_as_text=self.objects_as_text,
            segment_columns=self.segment_columns,
        )

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
        start, end = _time(config, "start_date"), _time(config, "end_date")
        dead_letter = config.get("dead_letter")
        lookback = config.get("lookback_seconds")
        source = SourceSettings(
            url=config["source"],
            token=config.get("token"),
            storage_options=config.get("storage_options") or {},
            lookback_seconds=DEFAULT_LOOKBACK if lookback is None else lookback,
            dead_letter=Path(dead_letter) if dead_letter else None,
            received_from=start,
            received_before=end,
        )
        check(source)
        if start is not None and end is not None and start >= end:
            raise SettingError("end_date", "it is not after start_date, so no event could match")
        batch = BatchSettings.read(config)
        scheduler = _scheduler(config, batch)
        return cls(
            source,
            start,
            end,
            batch,
            scheduler,
            objects_as_text=bool(config.get("objects_as_text")),
            segment_columns=bool(config.get("segment_columns")),
            addresses=_addresses(config),
        )


def _addresses(config: Mapping[str, Any]) -> Addresses | None:
    """Return what hides addresses; None: they are kept.

    Raises:
        SettingError: There is no key to hash them with.
    """
    what, key = config.get("email_addresses") or "keep", config.get("hash_key")
    if what == "hash" and not key:
        raise SettingError("hash_key", "email_addresses is hash, which needs a secret key")
    return None if what == "keep" else Addresses(key if what == "hash" else None)


def _time(config: Mapping[str, Any], setting: str) -> str | None:
    value = config.get(setting)
    if not value:
        return None
    try:
        return times.canonical(value)
    except ValueError as error:
        raise SettingError(setting, f"it {times.NOT_A_TIME}") from error


def _scheduler(config: Mapping[str, Any], batch: BatchSettings | None) -> str | None:
    """Return the scheduler's address; None: this process does all by itself.

    Raises:
        SettingError: It is no address, or another setting does not go with it.
    """
    address = config.get(DASK_SCHEDULER)
    if not address:
        return None
    form = "it is an address such as tcp://host:8786"
    try:
        parts = urlsplit(address)
        complete = parts.scheme in _SCHEMES and parts.hostname and parts.port
    except ValueError as error:
        raise SettingError(DASK_SCHEDULER, form) from error
    if not complete:
        raise SettingError(DASK_SCHEDULER, form)
    if not is_archive(config["source"]):
        raise SettingError(
            DASK_SCHEDULER, "only the objects of an archive can be handed to workers"
        )
    if batch is None:
        raise SettingError(DASK_SCHEDULER, "workers write batch files: set batch_config")
    if find_spec("distributed") is None:
        problem = "it needs Dask: pip install 'tap-vero-segment[dask]'"
        raise SettingError(DASK_SCHEDULER, problem)
    return str(address)
