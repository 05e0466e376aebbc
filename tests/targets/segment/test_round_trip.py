"""Webhook, collector, tap, target, a second collector, tap: the same records at both ends."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.collector import SECRETS, Collector
from tests.support.payloads import OTHER_TYPES, documented, many
from tests.support.pipeline import records_of_tap, run_pipeline, same
from tests.support.tracking_server import WRITE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


ODD: list[dict[str, Any]] = [
    {"type": "opened", "opened_at": 1.5, "user": {"id": "a b", "email": 7}, "user_agent": ["x"]},
    {"type": "bounced", "user": {"id": 8}, "bounce_code": 521.0, "bounce_type": {"hard": True}},
    {"type": "clicked", "user": {"email": "é👟@example.com"}, "link_url": "https://e.x/?a=\u2028"},
    {"type": "sent", "user": {"id": 9}, "campaign": {"id": 2**63, "tags": ["a"]}, "campaign_id": 1},
    {"type": "user_updated", "id": 10, "email": "p@example.com", "changes": {"_tags": {}}},
]


@pytest.fixture
def second_collector(tmp_path: Path) -> Iterator[Collector]:
    folder = tmp_path / "second"
    folder.mkdir()
    with Collector(folder, SECRETS | {"VERO_COLLECTOR_WRITE_KEY": WRITE_KEY}) as running:
        yield running


def test_records_are_the_same_at_both_ends_but_for_when_they_were_received(
    tmp_path: Path, collector: Collector, second_collector: Collector
) -> None:
    payloads = many(300) + [documented(vero_type) for vero_type in OTHER_TYPES] + ODD
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(collector.post, [json.dumps(p).encode() for p in payloads]):
            assert response.status_code == 200
    target_config = {"write_key": WRITE_KEY, "endpoint": second_collector.url}
    for _ in range(2):  # what is sent twice is one event
        run_pipeline(tmp_path, {"source": collector.store_url}, target_config)
    sent = records_of_tap(tmp_path, {"source": collector.store_url})
    received = records_of_tap(tmp_path, {"source": second_collector.store_url})
    assert len(sent) == len(payloads)
    assert received.keys() == sent.keys()
    for message_id, record in sent.items():
        assert same(received[message_id]) == same(record)
        assert received[message_id]["loaded_at"] > record["loaded_at"]
        assert received[message_id]["sent_at"] is None
