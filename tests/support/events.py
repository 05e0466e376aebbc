"""Reading events back through the read API, and what a store has counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tests.support.collector import run_collector

if TYPE_CHECKING:
    from tests.support.collector import Collector


def parse(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def read_events(
    collector: Collector, after: str | None = None, limit: int = 10_000
) -> list[dict[str, Any]]:
    """Read all events after a cursor, page by page."""
    events: list[dict[str, Any]] = []
    while True:
        parameters = {"limit": str(limit)} | ({"after": after} if after else {})
        response = collector.get("/v1/events", params=parameters)
        assert response.status_code == 200, response.text
        page = parse(response.content)
        if not page:
            return events
        events += page
        after = page[-1]["loadedAt"]


def quarantined(collector: Collector) -> int:
    with SqliteReader(collector.store_url, "store") as reader:
        return reader.summary().dead_letters


def status(collector: Collector) -> dict[str, Any]:
    """Return what ``vero-collector status --json`` prints."""
    done = run_collector("status", "--json", "--store", collector.store_url, cwd=collector.folder)
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
