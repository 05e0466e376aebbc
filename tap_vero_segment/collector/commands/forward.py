"""``vero-collector forward``: what Vero posted, to other servers."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.destinations import Destination
from tap_vero_segment.collector.forwarding import Forwarding, Manner, register
from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.open import open_reader, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

STOP_SECONDS: Final = 5.0
"""How long a request that is on its way may take once the end has come."""


def forward(
    store: str,
    destinations: Sequence[Destination],
    manner: Manner,
    say: Callable[[str], object],
) -> None:
    """Forward until there is nothing more, or, following, until SIGTERM or SIGINT.

    Args:
        store: The store's URL.
        destinations: Where to.
        manner: How.
        say: Prints a line.

    Raises:
        SettingError: The store cannot be opened.
        StoreError: It failed.
        UserError: A destination could not have all of it.
    """
    with open_reader(store, "store") as reader:
        writer = open_writer(store, "store")
        try:
            for destination in destinations:
                register(reader, writer, destination, manner.start)
        finally:
            writer.close()
    forwarding = Forwarding(store, destinations, manner)

    def stop(_number: int, _frame: FrameType | None) -> None:
        forwarding.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    forwarding.start()
    while not forwarding.join(0.2) and not forwarding.stopped:
        pass
    ended = forwarding.join(STOP_SECONDS)
    for forwarder in forwarding.forwarders:
        say(
            f"{forwarder.name}: {forwarder.sent} bodies forwarded, {forwarder.skipped} of other "
            f"inputs skipped, {forwarder.refused} refused and skipped"
        )
    if not ended:  # it waits for a response, and Python would wait for it
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    problems = [one.error for one in forwarding.forwarders if one.error is not None]
    for error in problems:
        if not isinstance(error, (UserError, StoreError)):
            raise error
    if problems:
        raise UserError("; ".join(map(str, problems)))


def forget(store: str, destination: str) -> str:
    """Forget a destination; return what was done, in a line.

    Args:
        store: The store's URL.
        destination: The destination's URL, or its number in the status.

    Raises:
        SettingError: The store cannot be opened, or has no such destination.
        StoreError: It failed.
    """
    with open_reader(store, "store"):  # it makes no store
        writer = open_writer(store, "store")
    try:
        wanted = int(destination) if destination.isdecimal() else Destination(destination, {}).key
        number = writer.forget_forward(wanted)
    finally:
        writer.close()
    if number is None:
        problem = "the store knows no such destination: `vero-collector status` lists those"
        raise SettingError("--forget", problem)
    return f"destination {number} was forgotten"
