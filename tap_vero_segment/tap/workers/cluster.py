"""A Dask cluster as the tap sees it: tasks in, results out, in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from distributed import Client, KilledWorker
from distributed.comm.core import CommClosedError

from tap_vero_segment.closing import Closing
from tap_vero_segment.errors import SettingError
from tap_vero_segment.tap.settings import DASK_SCHEDULER
from tap_vero_segment.tap.workers.task import write_object

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from tap_vero_segment.tap.workers.job import Job, Task, Written

_CONNECT: Final = "10s"
_POLL: Final = 5.0
"""Seconds between two looks at the cluster, while a result is waited for."""

_NO_WORKERS: Final = 600.0
"""Seconds without any worker after which a run ends; a cluster that grows by need takes minutes."""

_AHEAD: Final = 4
"""Objects under way for each thread of the cluster: results are taken in order, and a large object
must not let the others wait."""

_AT_LEAST: Final = 8
"""Objects under way where there is no worker yet."""

_LOST: Final = (CancelledError, CommClosedError, OSError)


class Cluster(Closing):
    """The workers of a Dask cluster.

    Args:
        address: The scheduler's address.

    Raises:
        SettingError: There is no scheduler.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        # They tell of a lost connection at length, with tracebacks; the run's error says it.
        for logger in ("distributed", "distributed.client", "tornado.application"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        try:
            self._client = Client(
                address, timeout=_CONNECT, set_as_default=False, name="tap-vero-segment"
            )
        except (OSError, ValueError, RuntimeError) as error:
            kind = type(error).__name__
            raise SettingError(
                DASK_SCHEDULER, f"no scheduler answers at {address} ({kind})"
            ) from error
        self._looked_at = float("-inf")
        self._seen_at = time.monotonic()
        self._threads = 0

    def results(self, job: Job, tasks: Iterable[Task]) -> Generator[tuple[Task, Written]]:
        """Yield what becomes of each task, in order; a bounded number of them is under way.

        Raises:
            SettingError: The scheduler is gone, no worker comes, or one object kills them all.
        """
        under_way: deque[tuple[Task, Any]] = deque()
        rest = iter(tasks)
        try:
            while True:
                self._hand_out(job, rest, under_way)
                if not under_way:
                    return
                task, future = under_way[0]
                written = self._result(task, future)
                under_way.popleft()
                yield task, written
        finally:
            if under_way and self._client.status == "running":
                with suppress(Exception):  # the run ends for another reason
                    self._client.cancel([future for _, future in under_way], force=True)

    def _hand_out(self, job: Job, rest: Iterator[Task], under_way: deque[tuple[Task, Any]]) -> None:
        try:
            self._look()
            while len(under_way) < max(_AHEAD * self._threads, _AT_LEAST):
                task = next(rest, None)
                if task is None:
                    return
                key = f"tap-vero-segment-{job.run}-{task.number:06}"
                future = self._client.submit(write_object, job, task, key=key, pure=False)
                under_way.append((task, future))
        except _LOST as error:
            raise self._gone() from error

    def _result(self, task: Task, future: Any) -> Written:
        while True:
            try:
                written: Written = future.result(timeout=_POLL)
            except TimeoutError:
                self._wait_for_workers()
            except KilledWorker as error:
                problem = f"{task.stored.path}: each worker that took it has died"
                raise SettingError(
                    DASK_SCHEDULER, f"{problem}; of too little memory, maybe"
                ) from error
            except _LOST as error:
                raise self._gone() from error
            except Exception as error:
                problem = f"a worker could not run it ({type(error).__name__})"
                hint = "workers need the tap's own version of tap-vero-segment, and of Python"
                raise SettingError(
                    DASK_SCHEDULER, f"{task.stored.path}: {problem}; {hint}"
                ) from error
            else:
                return written

    def _wait_for_workers(self) -> None:
        try:
            self._look()
        except _LOST as error:
            raise self._gone() from error
        if time.monotonic() - self._seen_at > _NO_WORKERS:
            problem = f"{self._address} has had no worker for {_NO_WORKERS / 60:.0f} minutes"
            raise SettingError(DASK_SCHEDULER, problem)

    def _look(self) -> None:
        """See how many threads the workers have, now and then."""
        now = time.monotonic()
        if now - self._looked_at < _POLL:
            return
        if self._client.status != "running":
            raise self._gone()
        self._threads = sum(self._client.nthreads().values())
        self._looked_at = now
        if self._threads:
            self._seen_at = now

    def _gone(self) -> SettingError:
        return SettingError(DASK_SCHEDULER, f"the scheduler at {self._address} is gone")

    def close(self) -> None:
        """Let go of the cluster; it goes on without this run."""
        with suppress(Exception):  # what it had to give has been taken
            self._client.close(timeout=2)
