from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented, many
from tests.support.store import fill

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the documented payload of every type; nobody writes to it."""
    path = tmp_path_factory.mktemp("one-of-each") / "vero-events.db"
    fill(path, [documented(vero_type) for vero_type in EMAIL_TYPES + OTHER_TYPES])
    return path


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with eight pages of events; nobody writes to it."""
    path = tmp_path_factory.mktemp("large") / "vero-events.db"
    fill(path, many(8_000), group=1_000)
    return path
