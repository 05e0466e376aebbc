"""The cases, and what each of them is measured against."""

from __future__ import annotations

import json
import shutil
import sys
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from tests.benchmarks.data import ten_parts, write_archive
from tests.benchmarks.harness import Case, Sample, python, run_process
from tests.benchmarks.pipelines import pipeline_cases
from tests.benchmarks.stores import postgres_store, scan_sqlite, search_store, sqlite_store
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, Collector
from tests.support.postgres import Postgres
from tests.support.tap import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

YARDSTICKS = "tests.benchmarks.yardsticks"
CONNECTIONS = 64
LOAD_SECONDS = 5.0
P99_SECONDS = 0.025
SEARCH_SECONDS = 0.3


class Bench:
    """What the cases share: a folder for data, servers that run while they do.

    Args:
        folder: Where data is kept, for later runs too.
        scale: What the numbers of events are multiplied with; 1 is what the documentation shows.
        stack: Stops what was started.
    """

    def __init__(self, folder: Path, scale: float, stack: ExitStack) -> None:
        self.folder = folder
        self._scale = scale
        self._stack = stack
        self._numbers = count()

    def number(self, full: int) -> int:
        """Return so many events at this scale."""
        return max(int(full * self._scale), 1_000)

    @cached_property
    def postgres(self) -> Postgres:
        """A PostgreSQL server, with more memory than the tests give it."""
        server = Postgres()
        self._stack.callback(server.remove)
        return server.start()

    def scratch(self) -> Path:
        """Return an empty folder."""
        folder = self.folder / "scratch" / str(next(self._numbers))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    # The tap

    def tap(
        self,
        work: float,
        config: dict[str, Any],
        *,
        change: Callable[[dict[str, Any]], None] | None = None,
        state: dict[str, Any] | None = None,
    ) -> Sample:
        """Run the tap to its end.

        Args:
            work: How much that is.
            config: Its settings.
            change: Changes the catalog that it discovers.
            state: Its state.
        """
        folder = self.scratch()
        (folder / "config.json").write_text(json.dumps(config))
        arguments = ["--config", "config.json"]
        if change is not None:
            catalog = discover(folder, config)
            change(catalog)
            (folder / "catalog.json").write_text(json.dumps(catalog))
            arguments += ["--catalog", "catalog.json"]
        if state is not None:
            (folder / "state.json").write_text(json.dumps(state))
            arguments += ["--state", "state.json"]
        code = "from tap_vero_segment.tap import TapVeroSegment; TapVeroSegment.cli()"
        return run_process(python("-c", code, *arguments), work, folder=folder)

    def module(self, name: str, work: float, *arguments: object) -> Sample:
        """Run a yardstick to its end."""
        command = python("-m", f"{YARDSTICKS}.{name}", *map(str, arguments))
        return run_process(command, work, folder=self.folder, env={"PYTHONPATH": _root()})

    # The collector

    def collector(self, store_url: str | None = None, *, prefix: list[str] | None = None) -> Sample:
        """Post webhooks to a collector for some seconds; tell how many it answered.

        Args:
            store_url: Its store; None: a fresh SQLite file.
            prefix: What is run instead of ``vero-collector``.
        """
        folder = self.scratch()
        with _Running(folder, store_url, prefix) as collector:
            port = collector.url.rpartition(":")[2]
            arguments = (port, WEBHOOK_TOKEN, CONNECTIONS, LOAD_SECONDS, next(self._numbers))
            figures = json.loads(_output(["-m", "tests.benchmarks.load", *map(str, arguments)]))
        shutil.rmtree(folder)
        if figures["refused"]:
            msg = f"{figures['refused']} requests were refused"
            raise RuntimeError(msg)
        return Sample(figures["seconds"], figures["answered"], extra={"p99 in s": figures["p99"]})


class _Running(Collector):
    def __init__(self, folder: Path, store_url: str | None, prefix: list[str] | None) -> None:
        super().__init__(folder, store_url=store_url or "")
        self._prefix = prefix

    def command(self, *arguments: str) -> list[str]:
        return super().command(*arguments) if self._prefix is None else [*self._prefix, *arguments]


def _root() -> str:
    from pathlib import Path

    return str(Path(__file__).parents[2])


def _output(arguments: list[str]) -> str:
    import subprocess

    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=_root()
    ).stdout


def cases(bench: Bench) -> Iterator[Case]:
    """Yield every case."""
    yield from _tap_cases(bench)
    yield from _store_cases(bench)
    yield from _collector_cases(bench)
    yield from pipeline_cases(bench)


def _only(*streams: str) -> Callable[[dict[str, Any]], None]:
    def change(catalog: dict[str, Any]) -> None:
        for stream in catalog["streams"]:
            _root_of(stream)["selected"] = stream["stream"] in streams

    return change


def _without(*columns: str) -> Callable[[dict[str, Any]], None]:
    def change(catalog: dict[str, Any]) -> None:
        for stream in catalog["streams"]:
            for entry in stream["metadata"]:
                if entry["breadcrumb"] in [["properties", column] for column in columns]:
                    entry["metadata"]["selected"] = False

    return change


def _root_of(stream: dict[str, Any]) -> dict[str, Any]:
    return next(entry["metadata"] for entry in stream["metadata"] if not entry["breadcrumb"])


def _tap_cases(bench: Bench) -> Iterator[Case]:
    large, small = bench.number(1_000_000), bench.number(50_000)

    def archive(number: int) -> dict[str, Any]:
        return {"source": f"file://{write_archive(bench.folder, number)}"}

    def all_streams(number: int = large) -> Sample:
        return bench.tap(number, archive(number))

    yield Case(
        "limit",
        "tap, archive to RECORD messages",
        "bare loop of isal, msgspec and orjson",
        0.7,
        all_streams,
        lambda: bench.module("bare_loop", large, write_archive(bench.folder, large)),
    )
    yield Case(
        "naive",
        "tap, archive to RECORD messages",
        "the SDK's own streams",
        12,
        lambda: all_streams(small),
        lambda: bench.module("naive_tap", small, write_archive(bench.folder, small)),
    )
    some = bench.number(200_000)
    yield Case(
        "one-stream",
        "tap, one stream selected",
        "all selected",
        0.8,
        lambda: bench.tap(some, archive(some), change=_only("email_sent")),
        lambda: all_streams(some),
    )
    yield Case(
        "deselected",
        "tap, two columns deselected",
        "all selected",
        0.8,
        lambda: bench.tap(
            some, archive(some), change=_without("context_traits_email", "context_ip")
        ),
        lambda: all_streams(some),
    )
    maps = {"stream_maps": {"email_sent": {"domain": "context_traits_email.split('@')[1]"}}}
    yield Case(
        "stream-map",
        "tap, one stream map",
        "all selected",
        0.15,
        lambda: bench.tap(some, archive(some) | maps),
        lambda: all_streams(some),
    )

    def without_addresses(what: str) -> Callable[[], Sample]:
        setting = {"email_addresses": what, "hash_key": "a secret"}
        return lambda: bench.tap(some, archive(some) | setting)

    for what in ("hash", "omit"):
        yield Case(
            f"addresses-{what}",
            f"tap, email_addresses: {what}",
            "keep",
            0.8,
            without_addresses(what),
            lambda: all_streams(some),
        )
    part = bench.number(500_000)
    yield Case(
        "memory",
        "tap, peak memory, archive of ten parts",
        "one part",
        1.2,
        lambda: bench.tap(10 * part, {"source": f"file://{ten_parts(bench.folder, part)}"}),
        lambda: all_streams(part),
        figure=lambda sample: sample.peak_bytes,
        at_most=True,
    )


def _store_cases(bench: Bench) -> Iterator[Case]:
    number = bench.number(300_000)

    def sqlite() -> Path:
        return sqlite_store(bench.folder, number)

    def from_sqlite() -> Sample:
        return bench.tap(number, {"source": f"sqlite:///{sqlite()}"})

    yield Case(
        "sqlite",
        "tap from SQLite",
        "SELECT of the same rows by apsw",
        0.25,
        from_sqlite,
        lambda: bench.module("select_sqlite", number, sqlite()),
    )
    yield Case(
        "postgres",
        "tap from PostgreSQL",
        "SELECT of the same rows by psycopg",
        0.25,
        lambda: bench.tap(number, {"source": postgres_store(bench.postgres, number)}),
        lambda: bench.module("select_postgres", number, postgres_store(bench.postgres, number)),
    )

    def from_http() -> Sample:
        with Collector(bench.scratch(), store_url=f"sqlite:///{sqlite()}") as collector:
            return bench.tap(number, {"source": collector.url, "token": READ_TOKEN})

    yield Case(
        "search",
        "searches for a recipient, SQLite",
        "a SELECT that looks at every event",
        20,
        lambda: search_store(f"sqlite:///{sqlite()}", number),
        lambda: scan_sqlite(sqlite()),
        limits={"p99 in s": SEARCH_SECONDS},
    )

    yield Case("http", "tap from the read API", "tap from SQLite", 0.5, from_http, from_sqlite)

    def nothing_new() -> Sample:
        bookmark = {"replication_key": "loaded_at", "replication_key_value": "2100-01-01"}
        state = {"bookmarks": dict.fromkeys(("tracks",), bookmark)}
        return bench.tap(
            1, {"source": f"sqlite:///{sqlite()}"}, change=_only("tracks"), state=state
        )

    yield Case(
        "nothing-new",
        "tap, a run with nothing new, its time",
        "import singer_sdk and exit",
        1.6,
        nothing_new,
        lambda: run_process(python("-c", "import singer_sdk"), 1, folder=bench.folder),
        figure=lambda sample: sample.seconds,
        at_most=True,
    )


def _collector_cases(bench: Bench) -> Iterator[Case]:
    names = count()

    def fresh_database() -> Sample:
        return bench.collector(bench.postgres.create(f"fresh-{next(names)}"))

    yield Case(
        "collector",
        "collector, durable, 64 connections, SQLite",
        "the same server without storing",
        0.7,
        bench.collector,
        lambda: bench.collector(prefix=python("-m", f"{YARDSTICKS}.no_store")),
        limits={"p99 in s": P99_SECONDS},
    )
    yield Case(
        "collector-postgres",
        "collector, PostgreSQL",
        "collector, SQLite",
        0.6,
        fresh_database,
        bench.collector,
    )
    many = bench.number(10_000_000)
    yield Case(
        "collector-full",
        f"collector, SQLite, {many:,} events stored already",
        "an empty store",
        0.8,
        lambda: bench.collector(f"sqlite:///{sqlite_store(bench.folder, many)}"),
        bench.collector,
    )
