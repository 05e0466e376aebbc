"""A worker's part: an object's batch files, written where the tap's settings say."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from singer_sdk.exceptions import ConfigValidationError

from tap_vero_segment.archive.lines import unzip
from tap_vero_segment.archive.prefetch import read_ahead
from tap_vero_segment.errors import SettingError, UserError, describe_fault
from tap_vero_segment.sources.archive import open_archive
from tap_vero_segment.sources.archive_objects import ArchiveReader
from tap_vero_segment.sources.base import Page
from tap_vero_segment.tap.batch.batch_files import BatchFiles, page_size
from tap_vero_segment.tap.batch.storage import ROOT, folder_of, open_storage
from tap_vero_segment.tap.outputs import BookmarkLimit, Output, Outputs
from tap_vero_segment.tap.settings import DASK_SCHEDULER
from tap_vero_segment.tap.workers.job import Problem, Written, installed_version

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tap_vero_segment.archive.objects import Objects
    from tap_vero_segment.tap.batch.settings import BatchSettings
    from tap_vero_segment.tap.batch.storage import Storage
    from tap_vero_segment.tap.workers.job import Job, Task, WorkersTap

logger = logging.getLogger("tap-vero-segment")

_MAX_LETTERS: Final = 32_000_000
"""Characters of an object's dead letters, which a worker holds."""


def marker_of(folder: Path, run: str) -> Path:
    """Return the file that is in a folder for as long as a run writes there.

    A worker on another machine has a folder of that name too, maybe, but not that file.
    """
    return folder / f".{run}.run"


def write_object(job: Job, task: Task) -> Written:
    """Read an object, and write the batch files of the streams that want it.

    What another try has written is left where it is: the manifests name the files of one try
    only, so that a worker that was lost, and is not, can do no harm.
    """
    try:
        return _write(job, task)
    except SettingError as error:
        problem = Problem(error.setting, error.problem)
    except UserError as error:
        problem = Problem(DASK_SCHEDULER, str(error))
    except ConfigValidationError as error:
        problem = Problem(DASK_SCHEDULER, f"on a worker: {'; '.join(error.errors)}")
    except Exception as error:  # noqa: BLE001  # whatever it is, the run says which object it was
        # Not the error's own text, which may hold a value of an event.
        logger.error("%s: %s", task.stored.path, describe_fault(error))  # noqa: TRY400
        kind = type(error).__name__
        problem = Problem(
            DASK_SCHEDULER, f"{task.stored.path}: {kind} on a worker, whose log says more"
        )
    return Written([], {}, 0, [], beyond=False, problem=problem)


def _write(job: Job, task: Task) -> Written:
    equipment = _equipment(job)
    settings, batch = equipment.tap.settings, equipment.batch
    if equipment.marker is not None and not equipment.marker.exists():
        folder = equipment.marker.parent
        raise SettingError(ROOT, f"{folder} on a worker is not the tap's folder: share it")
    letters = _Letters(keep=settings.source.dead_letter is not None)
    reader = ArchiveReader(equipment.objects, letters.add)
    records = dict.fromkeys(task.streams, 0)
    events = waiting = 0
    bookmark_limit = BookmarkLimit(settings.received_before)
    complete = []

    def count(stream: str, number: int) -> None:
        records[stream] += number

    name = f"{job.run}-{task.number:06}-{uuid4().hex[:8]}"
    with BatchFiles(batch, equipment.storage, name) as files:
        by_collection = {
            stream.collection: Output(files.writer(stream), partial(count, stream.name))
            for stream in equipment.tap.vero_streams
            if stream.name in records
        }
        outputs = Outputs(by_collection, settings)
        pieces = read_ahead(lambda stored: unzip(equipment.objects.read(stored)), [task.stored])
        for stored, content in pieces:
            for calls, _ in reader.pages(stored, content, page_size(batch)):
                if waiting and waiting + len(calls) > batch.size:
                    complete += files.complete()
                    waiting = 0
                bookmark_limit.bookmark(Page(calls, None))
                outputs.distribute(calls)
                outputs.take()
                events += len(calls)
                waiting += len(calls)
        complete += files.complete()
    return Written(complete, records, events, letters.kept, bookmark_limit.reached)


class _Letters:
    """Dead letters, for the tap to append to its file."""

    def __init__(self, *, keep: bool) -> None:
        self.kept: list[dict[str, Any]] = []
        self._keep = keep
        self._held = 0

    def add(self, letter: Mapping[str, Any], error: UserError) -> None:
        if not self._keep:
            raise error
        self.kept.append(dict(letter))
        self._held += len(letter["text"])
        if self._held > _MAX_LETTERS:
            raise SettingError(
                "dead_letter", f"{letter['object']}: too much of it cannot be read for a worker"
            )


class _Equipment(NamedTuple):
    """What a worker's thread keeps from one object of a run to the next."""

    run: str
    tap: WorkersTap
    batch: BatchSettings
    objects: Objects
    storage: Storage
    marker: Path | None


_kept = threading.local()


def _equipment(job: Job) -> _Equipment:
    kept: _Equipment | None = getattr(_kept, "equipment", None)
    if kept is None or kept.run != job.run:
        kept = _kept.equipment = _equip(job)
    return kept


def _equip(job: Job) -> _Equipment:
    if job.version != installed_version():
        here = installed_version()
        raise SettingError(
            DASK_SCHEDULER,
            f"a worker has version {here} of tap-vero-segment, the tap {job.version}",
        )
    tap = job.tap()
    batch = tap.settings.batch
    assert batch is not None  # noqa: S101  # the tap has looked
    folder = folder_of(batch.root)
    marker = None if folder is None else marker_of(folder, job.run)
    if marker is not None and not marker.exists():
        raise SettingError(ROOT, f"{folder} on a worker is not the tap's folder: share it")
    return _Equipment(
        job.run,
        tap,
        batch,
        open_archive(tap.settings.source),
        open_storage(batch.root, batch.params),
        marker,
    )
