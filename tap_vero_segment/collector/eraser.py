"""Erasing the users of Segment's ``delete`` notices, beside all that comes in."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from tap_vero_segment.errors import UserError, describe_fault
from tap_vero_segment.recipients import ADDRESS, address, user_id
from tap_vero_segment.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.stores.base import Writer

logger = logging.getLogger("vero-collector")

AGAIN_SECONDS: Final = 600
"""How long to wait after an erasure that could not be finished."""


def begin_erasure(writer: Writer, user_ids: Sequence[str]) -> None:
    """Note in the store that users are to be erased; an id that is an address counts as both.

    Raises:
        StoreError: The store failed.
    """
    people = [user_id(one) for one in user_ids]
    people += [address(one) for one in user_ids if ADDRESS.fullmatch(one.strip())]
    digest = writer.erased_people().digest
    writer.begin_erasure([digest(one) for one in people])


class Eraser:
    """Finishes erasures that were begun, one after the other, in a thread of its own.

    What was begun is in the store, so that a collector that ends in the middle goes on with it
    when it starts again. The thread does not keep the process alive.

    Args:
        store: The store's URL.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eraser", daemon=True)

    def start(self) -> None:
        """Begin with what was left unfinished."""
        self.wake()
        self._thread.start()

    def wake(self) -> None:
        """Look for erasures that were begun."""
        self._wanted.set()

    def _run(self) -> None:
        again: float | None = None
        while True:
            self._wanted.wait(again)
            self._wanted.clear()
            again = None if self._finish() else AGAIN_SECONDS

    def _finish(self) -> bool:
        """Erase; return whether nothing is left to do."""
        # The object stores' library takes its time to import.
        from tap_vero_segment.collector.commands.erase import finish_erasures  # noqa: PLC0415

        try:
            done = finish_erasures(self._store)
        except (UserError, StoreError) as error:
            logger.error("an erasure is not finished, and is tried again: %s", error)  # noqa: TRY400
            return False
        except Exception as error:  # noqa: BLE001  # the next one must not find the thread gone
            logger.error("a fault in an erasure: %s", describe_fault(error))  # noqa: TRY400
            return False
        if done is None:
            return True
        counts = (done.events.total(), done.dead_letters, len(done.archives))
        logger.info("erased: %d events, %d dead letters; archives looked through: %d", *counts)
        for problem in done.problems:
            logger.warning("an erasure is not finished, and is tried again: %s", problem)
        return not done.problems
