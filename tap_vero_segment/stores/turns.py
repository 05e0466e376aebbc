"""Taking turns with a collector that writes to the same store."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def in_turn() -> Generator[None]:
    """Do something with a store, then leave the store to others for as long as it took.

    Who waits for a store's lock only looks from time to time whether it is free, and would find it
    taken again and again by one who takes it without a pause.
    """
    began = time.monotonic()
    yield
    time.sleep(time.monotonic() - began)
