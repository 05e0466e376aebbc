"""Bodies that cannot be read or mapped: kept, and named in the log by their reason only."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.stores.base import DeadLetter

logger = logging.getLogger("vero-collector")


def log_quarantined(letter: DeadLetter) -> None:
    """Say that a body is quarantined, and why; never what it holds."""
    size = len(letter.body)
    about = {"input": letter.input, "bytes": size, "reason": letter.reason}
    logger.warning("quarantined a body of %d bytes: %s", size, letter.reason, extra=about)


async def quarantine(letter: DeadLetter, committer: Committer) -> None:
    """Keep a body; return when it is synced to disk."""
    log_quarantined(letter)
    await committer.commit([], [letter], size=len(letter.body))
