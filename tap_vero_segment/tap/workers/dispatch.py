"""A pass over an archive by the workers of a Dask cluster."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.errors import SettingError
from tap_vero_segment.sources.progress import Progress
from tap_vero_segment.tap.batch.batch_files import batch_line
from tap_vero_segment.tap.batch.storage import folder_of, open_storage, told
from tap_vero_segment.tap.sync import start_of, write
from tap_vero_segment.tap.workers.cluster import Cluster
from tap_vero_segment.tap.workers.job import Task
from tap_vero_segment.tap.workers.task import marker_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from tap_vero_segment.sources.archive import ArchiveSource
    from tap_vero_segment.tap.batch.settings import BatchSettings
    from tap_vero_segment.tap.messages import SingerOutput
    from tap_vero_segment.tap.settings import Settings
    from tap_vero_segment.tap.streams import VeroStream
    from tap_vero_segment.tap.workers.job import Job


logger = logging.getLogger("tap-vero-segment")


def sync_by_workers(
    output: SingerOutput,
    settings: Settings,
    source: ArchiveSource,
    streams: Sequence[VeroStream],
    job: Job,
) -> None:
    """Write what is new in an archive to batch files, by workers, and the messages for them.

    An object's BATCH messages are followed by a STATE message, in the order of the bookmark:
    wherever a run ends, the last state holds for everything before it.

    Raises:
        UserError: As in :func:`tap_vero_segment.tap.sync.sync`; or the cluster is gone.
    """
    assert settings.scheduler is not None  # noqa: S101  # the tap has looked
    assert settings.batch is not None  # noqa: S101
    starts = {stream.name: start_of(stream, source) for stream in streams}
    plan = source.plan(min(starts.values()) or None)
    progress = Progress(len(plan), sum(each.stored.size for each in plan))
    tasks = (
        Task(number, each.stored, _wanting(each.stored.modified_at, starts))
        for number, each in enumerate(plan)
    )
    beyond = False
    records = 0
    with ExitStack() as stack:
        counters = {
            stream.name: stack.enter_context(stream.get_record_counter()) for stream in streams
        }
        for stream in streams:
            stack.enter_context(stream.get_sync_timer())
        if not plan:
            return
        stack.enter_context(_prepared(settings.batch, job.run))
        cluster = stack.enter_context(Cluster(settings.scheduler))
        for task, written in cluster.results(job, tasks):
            if written.problem is not None:
                raise SettingError(*written.problem)
            for letter in written.letters:
                source.dead_letters.add(letter, SettingError("dead_letter", "it is unset"))
            for name, number in written.records.items():
                counters[name].increment(number)
                records += number
            beyond = beyond or written.beyond
            lines = b"".join(batch_line(file, settings.batch) for file in written.files)
            write(output, streams, lines, None if beyond else plan[task.number].bookmark)
            progress.object_read(task.stored.size, written.events)
    progress.done()
    logger.info("%d records of %d events", records, progress.events)


def _wanting(modified_at: int, starts: dict[str, str]) -> tuple[str, ...]:
    """Return the streams that no earlier run has written an object for."""
    loaded_at = times.to_text(modified_at)
    return tuple(name for name, start in starts.items() if loaded_at > start)


@contextmanager
def _prepared(batch: BatchSettings, run: str) -> Generator[None]:
    """See that the place for the files is there, and let workers know it when they see it."""
    open_storage(batch.root, batch.params)
    folder = folder_of(batch.root)
    if folder is None:
        yield
        return
    marker = marker_of(folder, run)
    try:
        with told(folder):
            marker.touch()
        yield
    finally:
        with suppress(OSError):
            marker.unlink(missing_ok=True)
