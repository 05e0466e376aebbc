"""What the tap and its workers tell each other."""

from __future__ import annotations

import json
import zlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from uuid import uuid4

from tap_vero_segment.tap.batch.storage import folder_of
from tap_vero_segment.tap.settings import DASK_SCHEDULER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tap_vero_segment.archive.objects import StoredObject
    from tap_vero_segment.tap.batch.batch_files import BatchFile
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.tap.streams import VeroStream

_PACKAGE: Final = "tap-vero-segment"


def installed_version() -> str:
    """Return the version of this package in this process."""
    return version(_PACKAGE)


class WorkersTap(Protocol):
    """A tap as far as a worker needs it."""

    @property
    def settings(self) -> Settings:
        """The settings, read and checked."""

    @property
    def vero_streams(self) -> Sequence[VeroStream]:
        """The streams."""


class Job:
    """A run, as every task bears it: a few kilobytes.

    Its text tells nothing of the settings, as Dask writes the arguments of a task to logs.

    Args:
        tap_class: Makes a tap of ``config`` and ``catalog``.
        config: The tap's settings, with those of batch files.
        catalog: Its catalog.

    Attributes:
        run: The run's name.
        version: The version of the package that the tap has.
    """

    def __init__(
        self,
        tap_class: Callable[..., WorkersTap],
        config: Mapping[str, Any],
        catalog: Mapping[str, Any],
    ) -> None:
        self.run = uuid4().hex
        self.version = installed_version()
        self._tap_class = tap_class
        own = dict(config)
        del own[DASK_SCHEDULER]
        storage = own["batch_config"]["storage"]
        folder = folder_of(storage["root"])
        if folder is not None:
            storage = {**storage, "root": folder.as_uri()}
            own["batch_config"] = {**own["batch_config"], "storage": storage}
        content = json.dumps({"config": own, "catalog": catalog})
        self._packed = zlib.compress(content.encode())

    def __repr__(self) -> str:
        return f"Job({self.run})"

    def tap(self) -> WorkersTap:
        """Return a tap like that of the run.

        Raises:
            ConfigValidationError: Its settings cannot be used here.
        """
        return self._tap_class(**json.loads(zlib.decompress(self._packed)))


class Task(NamedTuple):
    """An object that is to be read.

    Attributes:
        number: Its place in the run.
        stored: The object.
        streams: The streams that want it.
    """

    number: int
    stored: StoredObject
    streams: tuple[str, ...]


class Problem(NamedTuple):
    """Why an object could not be read to its end; an exception would be told in Dask's logs.

    Attributes:
        setting: The setting that can mend it.
        text: What is wrong.
    """

    setting: str
    text: str


class Written(NamedTuple):
    """What has become of an object.

    Attributes:
        files: The batch files, complete.
        records: How many records each stream has got.
        events: How many calls of ours the object holds.
        letters: Its lines that cannot be read, as dead letters.
        beyond: Whether it holds an event that ``end_date`` leaves out.
        problem: Why it could not be read; then nothing else counts.
    """

    files: list[BatchFile]
    records: dict[str, int]
    events: int
    letters: list[dict[str, Any]]
    beyond: bool
    problem: Problem | None = None
