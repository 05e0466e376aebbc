"""Wrong secrets: counted, logged without what was given, and slowed down where people log in."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.connection_limits import network_of
from tap_vero_segment.collector.live_page.views import PageError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("vero-collector")

BURST: Final = 10
"""Wrong logins that an address has free; after them, it has one every ``PAUSE_SECONDS``."""
PAUSE_SECONDS: Final = 1.0
MAX_ADDRESSES: Final = 4_096
"""Addresses that are remembered; beyond, the one that was wrong longest ago is forgotten."""
LOG_SECONDS: Final = 60.0
"""How often wrong secrets are logged: a line for all of them."""


class Guesses:
    """Knows how often a wrong secret was given, and from where.

    Args:
        clock: Returns seconds, of which only the differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When an address has all of its free logins again, by address; the last one that was
        # wrong comes last.
        self._full_again: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def begin_login(self, client: str) -> None:
        """Take one of an address's free logins, before it is known whether it is wrong.

        Args:
            client: The client's address.

        Raises:
            PageError: 429, it has none at present; ``Retry-After`` says when it will.
        """
        address, now = network_of(client), self._clock()
        full_again = max(now, self._full_again.pop(address, now)) + PAUSE_SECONDS
        wait = full_again - now - BURST * PAUSE_SECONDS
        self._full_again[address] = full_again if wait <= 0 else full_again - PAUSE_SECONDS
        if len(self._full_again) > MAX_ADDRESSES:
            del self._full_again[next(iter(self._full_again))]
        if wait > 0:
            seconds = math.ceil(wait)
            message = f"Too many wrong read tokens came from your address. Wait {seconds} s."
            raise PageError(429, message, {"retry-after": str(seconds)}, login=True)

    def right_login(self, client: str) -> None:
        """Give an address all of its free logins back."""
        self._full_again.pop(network_of(client), None)

    def note(self, path: str, client: str) -> None:
        """Log that a secret was wrong or missing: at once, or with those that follow.

        Args:
            path: The endpoint's, without what a client can choose.
            client: The client's address.
        """
        self._unlogged[path] += 1
        address = network_of(client)
        if address in self._addresses or len(self._addresses) < MAX_ADDRESSES:
            self._addresses[address] += 1
        if self._timer is None:
            self.log()

    def log(self) -> None:
        """Log what was not logged yet, and again after a while if there is more by then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._unlogged:
            return
        counts = ", ".join(f"{count} at {path}" for path, count in sorted(self._unlogged.items()))
        [(most, _)] = self._addresses.most_common(1)
        others = len(self._addresses) - 1
        whence = f"{most or 'an unknown address'}" + (f" and {others} others" if others else "")
        logger.warning("wrong or missing secrets: %s; from %s", counts, whence)
        self._unlogged.clear()
        self._addresses.clear()
        self._timer = asyncio.get_running_loop().call_later(LOG_SECONDS, self.log)
