"""The collector's metrics, by prometheus-client: what is counted, and what is read at a scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS
from tap_vero_segment.collector.committer import MAX_GROUP, RefusedError
from tap_vero_segment.collector.error_reasons import ErrorReason
from tap_vero_segment.inputs.intake import INPUTS
from tap_vero_segment.stores.base import BACKLOG_COUNTED, Refused, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from tap_vero_segment.collector.committer import Commit, Committer
    from tap_vero_segment.stores.base import Backlog, Forward, Summary

PREFIX: Final = "vero_collector"

COMMIT_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
COMMIT_SUBMISSIONS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, MAX_GROUP)


class StoreFigures(NamedTuple):
    """What the store says of itself.

    Attributes:
        summary: What it holds.
        size: How many bytes of disk it takes.
        forwards: How far each destination of ``forward`` has come, and what it lacks.
    """

    summary: Summary
    size: int
    forwards: Sequence[tuple[Forward, Backlog]] = ()


class Scrape(NamedTuple):
    """What holds for the moment of a scrape, and is counted nowhere.

    Attributes:
        pending: Submissions that wait for their commit.
        pending_bytes: How many bytes they hold.
        clock_behind: By how many microseconds the clock is behind the newest event.
        store: What the store says of itself; None: it cannot be read.
    """

    pending: int
    pending_bytes: int
    clock_behind: int
    store: StoreFigures | None


class Metrics:
    """Counts what the collector does, in a registry of its own.

    What comes in is counted once a commit, not once a request.

    Args:
        clock: Gives the present time in microseconds since 1970.
    """

    def __init__(self, clock: Callable[[], int] = times.now) -> None:
        self._clock = clock
        # They would be a series more for each counter, which Prometheus passes over.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._accepted = Counter(
            f"{PREFIX}_events_accepted_total",
            "Events stored that were not there before.",
            registry=registry,
        )
        self._duplicates = Counter(
            f"{PREFIX}_events_duplicate_total",
            "Events acknowledged that were stored already.",
            registry=registry,
        )
        dead_letters = Counter(
            f"{PREFIX}_dead_letters_kept_total",
            "Bodies kept as dead letters, by input; one that comes again counts again.",
            ["input"],
            registry=registry,
        )
        # Made beforehand, so that a rate has a zero to begin from.
        self._dead_letters = {name: dead_letters.labels(name) for name in INPUTS}
        self._ignored = Counter(
            f"{PREFIX}_calls_ignored_total",
            "Segment calls that were ignored: acknowledged, and kept nowhere.",
            registry=registry,
        )
        self._dropped = Counter(
            f"{PREFIX}_events_of_erased_people_total",
            "Events and dead letters dropped, as they are of people who were erased.",
            registry=registry,
        )
        refused = Counter(
            f"{PREFIX}_requests_refused_total",
            "Requests that got an error as response, by its reason.",
            ["reason"],
            registry=registry,
        )
        self._refused = {reason: refused.labels(reason.value) for reason in ErrorReason}
        self._unstored: dict[str, Refused] = {}
        self._commit_seconds = Histogram(
            f"{PREFIX}_commit_duration_seconds",
            "How long the store took for a commit, its sync to disk included.",
            buckets=COMMIT_SECONDS,
            registry=registry,
        )
        self._commit_submissions = Histogram(
            f"{PREFIX}_commit_submissions",
            "How many requests shared a commit.",
            buckets=COMMIT_SUBMISSIONS,
            registry=registry,
        )
        self._failed = Counter(
            f"{PREFIX}_commits_failed_total",
            "Commits that the store did not take; nothing of them was acknowledged.",
            registry=registry,
        )

    def committed(self, commit: Commit) -> None:
        """Count what a commit has stored, or that it failed."""
        if commit.error is not None:
            self._failed.inc()
            return
        if commit.seconds is None:
            return
        self._commit_seconds.observe(commit.seconds)
        self._commit_submissions.observe(len(commit.group))
        self._accepted.inc(commit.new)
        self._duplicates.inc(commit.events - commit.new)
        for letter in commit.dead_letters:
            self._dead_letters[letter.input].inc()
        self._ignored.inc(commit.ignored)
        self._dropped.inc(commit.dropped)

    def refused(self, reason: ErrorReason) -> None:
        """Count a request that gets an error as response."""
        self._refused[reason].inc()
        if reason is not ErrorReason.NOT_JSON:  # a dead letter, which is counted as one
            self._add_unstored(Refused(reason.value, 1, self._clock()))

    @property
    def has_unstored(self) -> bool:
        """Whether something was refused that the store has not counted."""
        return bool(self._unstored)

    def _add_unstored(self, refused: Refused) -> None:
        known = self._unstored.get(refused.reason)
        if known is not None:
            refused = Refused(
                refused.reason,
                known.requests + refused.requests,
                max(known.last_at, refused.last_at),
            )
        self._unstored[refused.reason] = refused

    async def store_refused(self, committer: Committer) -> None:
        """Count in the store what was refused since the last time, for `status` and the page.

        Args:
            committer: Does it, when it is its turn. What it does not take waits for the next time.
        """
        refused, self._unstored = self._unstored, {}
        if not refused:
            return
        try:
            await committer.run(lambda writer: writer.add_refused(list(refused.values())))
        except (RefusedError, StoreError):
            for each in refused.values():
                self._add_unstored(each)

    def expose(self, scrape: Scrape, accept: str) -> tuple[str, bytes]:
        """Write all figures in the format that is asked for.

        Args:
            scrape: What holds at this moment.
            accept: The request's ``Accept`` header.

        Returns:
            The content type, and the text: Prometheus's own, or OpenMetrics.
        """
        encode, content_type = choose_encoder(accept)
        return content_type, encode(_Everything(self._registry, scrape, self._clock()))


class _Everything(Collector):
    """What was counted, followed by what holds at the moment of the scrape."""

    def __init__(self, counted: CollectorRegistry, scrape: Scrape, now: int) -> None:
        self._counted = counted
        self._scrape = scrape
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield from self._counted.collect()
        yield _gauge(
            "queue_submissions", "Requests that wait for their commit.", self._scrape.pending
        )
        yield _gauge(
            "queue_bytes",
            "Bytes of bodies and calls that wait for their commit.",
            self._scrape.pending_bytes,
        )
        yield _gauge(
            "clock_behind_seconds",
            "How far the clock is behind the newest loaded_at; 0: it is not, or not by a second.",
            self._scrape.clock_behind / times.SECOND,
        )
        store = self._scrape.store
        yield _gauge(
            "store_readable",
            "1: the store was read for this scrape; 0: it cannot be, and its figures are missing.",
            0 if store is None else 1,
        )
        if store is not None:
            yield from self._store(store)

    def _store(self, store: StoreFigures) -> Iterator[Metric]:
        yield _gauge("store_size_bytes", "Bytes of disk that the store takes.", store.size)
        if store.summary.dead_letters is not None:
            yield _gauge(
                "store_dead_letters",
                "Dead letters that the store holds.",
                store.summary.dead_letters,
            )
        yield CounterMetricFamily(
            f"{PREFIX}_dead_letters_deleted_total",
            "Dead letters that were deleted by hand.",
            store.summary.letters_deleted,
        )
        totals = {total.collection: total for total in store.summary.totals}
        held = GaugeMetricFamily(
            f"{PREFIX}_store_events",
            "Events that the store holds, by collection.",
            labels=["collection"],
        )
        for collection in COLLECTIONS:
            total = totals.get(collection.stream)
            held.add_metric([collection.stream], total.events if total else 0)
        yield held
        age = GaugeMetricFamily(
            f"{PREFIX}_store_newest_event_age_seconds",
            "Seconds since the newest event was stored; no sample while there has been none.",
        )
        if totals:
            newest = max(total.last_loaded_at for total in totals.values())
            age.add_metric([], max(0, self._now - newest) / times.SECOND)
        yield age
        yield from self._forwards(store)

    def _forwards(self, store: StoreFigures) -> Iterator[Metric]:
        """Yield how far each destination of ``forward`` has come, and what it lacks."""
        of_all: tuple[CounterMetricFamily | GaugeMetricFamily, ...] = (
            CounterMetricFamily(
                f"{PREFIX}_forward_sent_total", "Bodies that a destination accepted.", labels=_WHERE
            ),
            CounterMetricFamily(
                f"{PREFIX}_forward_refused_total",
                "Bodies that a destination refused, and that were skipped.",
                labels=_WHERE,
            ),
            _gauge_of(
                "forward_events_behind",
                f"Events that a destination has not had yet; {BACKLOG_COUNTED}: so many or more.",
            ),
            _gauge_of(
                "forward_dead_letters_behind",
                "Dead letters that a destination has not had yet, likewise.",
            ),
            _gauge_of(
                "forward_seconds_behind",
                "Seconds since the oldest event was stored that a destination has not had yet.",
            ),
            _gauge_of("forward_failing", "1: the last request to a destination failed; 0: not."),
        )
        failed = GaugeMetricFamily(
            f"{PREFIX}_forward_last_failure_timestamp_seconds",
            "When a request to a destination failed last, and why; no sample: none has.",
            labels=[*_WHERE, "reason"],
        )
        for forward, backlog in store.forwards:
            where = [forward.destination, str(forward.number)]
            oldest = self._now if backlog.oldest is None else backlog.oldest
            figures = (
                forward.sent,
                forward.refused,
                backlog.events,
                backlog.dead_letters,
                max(0, self._now - oldest) / times.SECOND,
                int(forward.failing),
            )
            for family, figure in zip(of_all, figures, strict=True):
                if figure is not None:
                    family.add_metric(where, figure)
            if forward.failed_at is not None:
                labels = [*where, forward.failure or ""]
                failed.add_metric(labels, forward.failed_at / times.SECOND)
        yield from of_all
        yield failed


_WHERE: Final = ("destination", "number")
"""A destination's scheme and host, and its number in the store."""


def _gauge_of(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", documentation, labels=_WHERE)


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", documentation, value=value)
