"""``vero-collector demo``: everything there is to see, without Vero, by one command."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec
import requests

from tap_vero_segment.collector.commands.sample import (
    DEFAULT_STORE,
    RECIPIENTS,
    WAREHOUSE,
    delete_demo,
    post,
    post_sample,
    running_collector,
    story,
)
from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

EMAIL_SECONDS: Final = 2.0
"""How often an email is sent; most of them have two to four events."""

STORY_SECONDS: Final = 300
"""How long it takes until all has happened to an email."""

_STEP: Final = 37
"""From one recipient to the next: it has no factor in common with their number."""

_TAP: Final = "from tap_vero_segment.console_scripts import tap; tap()"
_TARGET: Final = "from tap_vero_segment.console_scripts import duckdb_target; duckdb_target()"


def demo(port: int, say: Callable[[str], None]) -> None:
    """Fill an empty store, load and report it, then serve the live page with events that arrive.

    Returns at SIGINT or SIGTERM.

    Args:
        port: The port to listen on; 0 takes a free one.
        say: Takes lines of what is done.

    Raises:
        UserError: The demo before is still running, or something does not start.
    """
    delete_demo()
    token, read_token = secrets.token_urlsafe(), secrets.token_urlsafe()
    given = {"webhook_token": token, "read_token": read_token}
    with (
        _ending_at_signals(),
        running_collector(DEFAULT_STORE, given, port) as url,
        requests.Session() as session,
    ):
        endpoint = f"{url}/vero/{token}"
        say(post_sample(session, endpoint))
        if find_spec("duckdb") and find_spec("rich"):
            _load()
            say(f"Loaded them into {WAREHOUSE}:\n")
            say(_report())
        else:
            say("To load and report them: pip install 'tap-vero-segment[duckdb,report]'")
        say(f"The live page: {url}/\nIts read token: {read_token}")
        say("Events keep arriving. Stop with Ctrl+C.")
        for payload in _arriving():
            post(session, endpoint, msgspec.json.encode(payload))
    say(f"Stopped. The events are in {DEFAULT_STORE}.")


class _Ended(BaseException):
    """A signal has come."""


@contextmanager
def _ending_at_signals() -> Generator[None]:
    def end(*_: object) -> None:
        raise _Ended

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Ended:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arriving() -> Iterator[dict[str, Any]]:
    """Yield events when it is their time, for ever."""
    chance = random.Random()  # noqa: S311  # believable, not secret
    order = itertools.count()
    waiting: list[tuple[int, int, dict[str, Any]]] = []
    for number in itertools.count():
        recipient = 1 + number * _STEP % RECIPIENTS
        now = int(time.time())
        for payload in story(recipient, now - recipient, now + STORY_SECONDS, chance):
            heapq.heappush(waiting, (payload[f"{payload['type']}_at"], next(order), payload))
        until = time.monotonic() + chance.uniform(0.5, 1.5) * EMAIL_SECONDS
        while (left := until - time.monotonic()) > 0:
            if waiting and waiting[0][0] <= time.time():
                yield heapq.heappop(waiting)[2]
            else:
                time.sleep(min(left, 0.25))


def _load() -> None:
    """Load what the store holds into DuckDB, by the tap and its target.

    Raises:
        UserError: One of them failed.
    """
    # Without what is set for real runs.
    ours = ("TAP_VERO_SEGMENT_", "TARGET_")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "TAP_VERO_SEGMENT_SOURCE": DEFAULT_STORE,
        "TARGET_VERO_DUCKDB_FILEPATH": str(WAREHOUSE),
        "TARGET_VERO_DUCKDB_DEFAULT_TARGET_SCHEMA": "vero",
    }
    with subprocess.Popen(  # noqa: S603  # nothing of the command comes from outside
        [sys.executable, "-c", _TAP, "--config=ENV"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as tap:
        target = subprocess.run(  # noqa: S603  # likewise
            [sys.executable, "-c", _TARGET, "--config=ENV"],
            env=environment,
            stdin=tap.stdout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if tap.returncode or target.returncode:
        last = target.stderr.strip().rpartition("\n")[2]
        msg = f"the events could not be loaded into {WAREHOUSE}: {last}"
        raise UserError(msg)


def _report() -> str:
    command = [sys.executable, "-m", "tap_vero_segment.collector", "report", "--duckdb"]
    done = subprocess.run(  # noqa: S603  # nothing of the command comes from outside
        [*command, str(WAREHOUSE)], stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout
