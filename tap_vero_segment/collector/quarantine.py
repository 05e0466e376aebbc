"""Bodies that cannot be read or mapped: kept as dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tap_vero_segment.collector.committer import Committer
    from tap_vero_segment.stores.base import DeadLetter


async def quarantine(letter: DeadLetter, committer: Committer) -> None:
    """Keep a body; return when it is synced to disk. The committer logs it then."""
    await committer.commit([], [letter], size=len(letter.body))
