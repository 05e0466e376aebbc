"""Messages to systemd, if the collector runs under it: sd_notify(3), in a few lines."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("vero-collector")

START_SECONDS: Final = 60
"""For how long the manager waits for the next word of a collector that starts."""


class Notifier:
    """Tells the service manager how the collector is; without one, tells nobody.

    Args:
        environment: Where ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` may be.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment)
        """Without a sign of life for so long, the collector is restarted; 0: no such watch."""
        self._next = 0.0

    def starting(self) -> None:
        """Ask for more time to start: :data:`START_SECONDS` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={START_SECONDS * 1_000_000}")

    def ready(self) -> None:
        """Say that requests are taken, or that the secrets have been read again."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the secrets are being read again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the collector is shutting down."""
        self._send("STOPPING=1")

    def alive(self, now: float) -> None:
        """Give a sign of life, if it is time to.

        Args:
            now: Seconds on any clock that only rises.
        """
        if self.watchdog_seconds and now >= self._next:
            self._next = now + self.watchdog_seconds / 2
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(0)
                manager.sendto(state.encode(), self._address)
        except OSError as error:
            logger.warning("systemd cannot be told %s: %s", state.partition("=")[0], error.strerror)


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() else 0.0
