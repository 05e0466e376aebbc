"""``vero-collector forward``: what Vero posted, to other servers."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.destinations import Destination
from tap_vero_segment.collector.forwarding import Forwarding, Manner, register
from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.open import open_reader, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

logger = logging.getLogger("vero-collector")

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
    # Here, so that a store that cannot be opened is no matter for trying again.
    with open_reader(store, "store") as reader, closing(open_writer(store, "store")) as writer:
        for destination in destinations:
            register(reader, writer, destination, manner.start)
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
    problem = _problem(forwarding)
    if not ended:  # a thread that waits for a response has the store open
        if problem:
            logger.error("%s", problem)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(1 if problem else 0)
    if problem:
        raise UserError(problem)


def _problem(forwarding: Forwarding) -> str:
    """Return what kept destinations from having all of it; empty: nothing did."""
    problems = [one.error for one in forwarding.forwarders if one.error is not None]
    for error in problems:
        if not isinstance(error, (UserError, StoreError)):
            raise error
    return "; ".join(map(str, problems))


def forget(store: str, destination: str) -> str:
    """Forget a destination; return what was done, in a line.

    Args:
        store: The store's URL.
        destination: The destination's URL, or its number in the status.

    Raises:
        SettingError: The store cannot be opened, or has no such destination.
        StoreError: It failed.
    """
    open_reader(store, "store").close()  # which makes no store
    wanted = int(destination) if destination.isdecimal() else Destination(destination, {}).key
    with closing(open_writer(store, "store")) as writer:
        number = writer.forget_forward(wanted)
    if number is None:
        problem = "the store knows no such destination: `vero-collector status` lists those"
        raise SettingError("--forget", problem)
    return f"destination {number} was forgotten"
