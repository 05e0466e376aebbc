"""A store that another one writes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Hold a store's write lock; hand out what lets go of it."""
    store = apsw.Connection(str(path))
    store.execute("BEGIN IMMEDIATE")
    yield store.close
    store.close()
