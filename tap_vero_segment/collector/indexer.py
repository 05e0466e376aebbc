"""Building the index of the store's events, beside all that comes in."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from tap_vero_segment.errors import UserError, describe_fault
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.open import open_writer

if TYPE_CHECKING:
    from tap_vero_segment.stores.base import Writer

logger = logging.getLogger("vero-collector")

PAUSE_SECONDS: Final = 2.0
"""How often it is looked whether there are enough new events for a block."""

AGAIN_SECONDS: Final = 600.0
"""How long to wait after a failure. Meanwhile searches look at the new events one by one."""

LEAST_SHARE: Final = 0.02
"""Share of the time that the thread takes where the process is busy all the time."""


class _StoppingError(Exception):
    """The collector ends."""


class Indexer:
    """Builds the index in a thread of its own, in the time that the process has left.

    The thread does not keep the process alive: what it had not finished is built later.

    Args:
        store: The store's URL.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._rested = self._clocks()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Begin the end."""
        self._stopping.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            pause = AGAIN_SECONDS
            try:
                writer = open_writer(self._store, "store")
                try:
                    self._build(writer)
                finally:
                    writer.close()
            except _StoppingError:
                return
            except (UserError, StoreError) as error:
                message = "the search index is not built, and is tried again: %s"
                logger.error(message, error)  # noqa: TRY400
            except Exception as error:  # noqa: BLE001  # the next try must not find the thread gone
                message = "a fault in building the search index: %s"
                logger.error(message, describe_fault(error))  # noqa: TRY400

    def _build(self, writer: Writer) -> None:
        """Build all that there is to build, again and again."""
        self._rested = self._clocks()
        if broken := writer.repair_index(self._rest):
            logger.warning("damaged blocks of the search index: %d, built anew", broken)
        while not self._stopping.wait(PAUSE_SECONDS):
            self._rested = self._clocks()
            while writer.build_index(self._rest):
                self._rest()

    def _rest(self) -> None:
        """Leave the machine to the rest of the process: the busier that is, the longer.

        Raises:
            _StoppingError: The collector ends.
        """
        wall, process, own = (
            now - before for now, before in zip(self._clocks(), self._rested, strict=True)
        )
        # Python runs one thread at a time: what others were at is what this one may hold up.
        busy = min(1.0, max(0.0, process - own) / max(wall, 1e-6))
        share = max(LEAST_SHARE, (1 - busy) / 2)
        seconds = own * (1 - share) / share - (wall - own)
        if self._stopping.wait(max(0.0, seconds)):
            raise _StoppingError
        self._rested = self._clocks()

    @staticmethod
    def _clocks() -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), time.thread_time()
