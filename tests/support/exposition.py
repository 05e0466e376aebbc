"""What a collector's metrics say, read by Prometheus's own parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.support.collector import Collector


def figures(text: str) -> dict[str, float]:
    """Return every sample: ``name{label="value"}``, its labels in alphabetic order."""
    return {
        _key(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(collector: Collector) -> dict[str, float]:
    """Return what a running collector answers to Prometheus, which sends no token."""
    response = requests.get(f"{collector.url}/metrics", timeout=30)
    assert response.status_code == 200
    return figures(response.text)


def _key(name: str, labels: dict[str, str]) -> str:
    name = name.removeprefix("vero_collector_")
    if not labels:
        return name
    return f"{name}{{{','.join(f'{key}={labels[key]!r}' for key in sorted(labels))}}}".replace(
        "'", '"'
    )
