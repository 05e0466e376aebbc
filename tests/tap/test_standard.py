"""The SDK's standard tests, on a store in which every stream has records."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from singer_sdk.testing import SuiteConfig, get_tap_test_class

from tap_vero_segment.collector.commands.erase import erase
from tap_vero_segment.recipients import user_id
from tap_vero_segment.tap import TapVeroSegment
from tests.support.calls import fill_full
from tests.support.inline_tap import signal_handlers_kept
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.store import fill
from tests.support.stored import url_of
from tests.support.streams import ALL_STREAMS, catalog_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# The classes are made when the module is imported, before any fixture: only the place is known.
FOLDER = tempfile.TemporaryDirectory(prefix="standard-tests-")
STORE = Path(FOLDER.name) / "vero-events.db"


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    """A store with every documented payload and some more, there while the tests run."""
    fill_full(STORE)
    fill(STORE, [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES] + many(50))
    fill(STORE, [{"type": "sent", "sent_at": 1_700_000_000, "user": {"id": "to be erased"}}])
    erase(url_of(STORE), [user_id("to be erased")])
    with signal_handlers_kept():
        yield
    FOLDER.cleanup()


with signal_handlers_kept():
    TestTapVeroSegment = get_tap_test_class(
        TapVeroSegment,
        config={"source": url_of(STORE), "start_date": "2000-01-01"},
        catalog=catalog_of(*ALL_STREAMS),
        parse_env_config=False,
        suite_config=SuiteConfig(max_records_limit=None, ignore_no_records=False),
    )
