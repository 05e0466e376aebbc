"""``vero-collector check``: whether events arrive and the store is well, for cron and monitors."""

from __future__ import annotations

import statistics
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import requests

from tap_vero_segment import times
from tap_vero_segment.collector.commands.repair_clock import clock_warning
from tap_vero_segment.errors import SettingError, UserError, check_pasted
from tap_vero_segment.http_client import reason_of
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.open import location_of, open_reader
from tap_vero_segment.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tap_vero_segment.stores.base import Reader

ALERT_SECONDS: Final = 10.0
"""How long an alert may take, from the first byte to the last."""

LAG_EVENTS: Final = 20
"""The newest events, whose median lag counts: one that was sent late is not an alarm."""


class Conditions(NamedTuple):
    """What is checked, beside whether the store can be read, its clock and its disk.

    Attributes:
        newest_within: How old the newest event may be, in microseconds; None: not checked.
        max_lag: How long after it happened an event may come, in microseconds; None: not checked.
        max_dead_letters: How many dead letters there may be; None: not checked.
        integrity: Whether all events are read.
    """

    newest_within: int | None = None
    max_lag: int | None = None
    max_dead_letters: int | None = None
    integrity: bool = False


class Checked(NamedTuple):
    """What a check has found.

    Attributes:
        name: The condition's name.
        problem: What is wrong, and what to do; None: nothing.
    """

    name: str
    problem: str | None


def check(store: str, conditions: Conditions) -> list[Checked]:
    """Check a store; never raises for what is wrong with it.

    Args:
        store: The store's URL.
        conditions: What is checked.
    """
    try:
        with open_reader(store, "store") as reader:
            return list(_check_all(reader, conditions))
    except SettingError as error:
        return [Checked("store", error.problem)]
    except (StoreError, UserError, OSError) as error:
        return [Checked("store", str(error))]


def _check_all(reader: Reader, conditions: Conditions) -> Iterator[Checked]:
    checks: dict[str, Callable[[], str | None]] = {
        "store": lambda: _read(reader),
        "clock": lambda: clock_warning(reader.clock_behind()),
        "disk": lambda: "the store's disk is nearly full" if reader.nearly_full() else None,
    }
    if (within := conditions.newest_within) is not None:
        checks["newest-within"] = lambda: _age(reader, within)
    if (lag := conditions.max_lag) is not None:
        checks["max-lag"] = lambda: _lag(reader, lag)
    if (letters := conditions.max_dead_letters) is not None:
        checks["max-dead-letters"] = lambda: _dead_letters(reader, letters)
    if conditions.integrity:
        checks["integrity"] = lambda: _integrity(reader)
    for name, find_problem in checks.items():
        try:
            yield Checked(name, find_problem())
        except (StoreError, OSError) as error:
            yield Checked(name, str(error))


def _read(reader: Reader) -> None:
    reader.high_water()
    reader.summary()


def _age(reader: Reader, within: int) -> str | None:
    newest = reader.high_water()
    if newest is None:
        return "no event has ever arrived: see whether Vero has the collector's URL"
    age = times.now() - newest
    if age <= within:
        return None
    return f"the newest event arrived {_text(age)} ago, which is more than {_text(within)}"


def _lag(reader: Reader, most: int) -> str | None:
    lags = []
    for line in reader.newest(LAG_EVENTS):
        call = msgspec.json.decode(line, type=_Times)
        happened, received = times.from_text(call.timestamp), times.from_text(call.receivedAt)
        if happened != received:  # what has no time of its own happened when it was received
            lags.append(received - happened)
    lag = int(statistics.median(lags)) if lags else 0
    if lag <= most:
        return None
    return (
        f"the newest events arrived {_text(lag)} after they happened (median of {len(lags)}), "
        f"which is more than {_text(most)}"
    )


class _Times(msgspec.Struct):
    timestamp: str
    receivedAt: str  # noqa: N815  # as Segment names it


def _dead_letters(reader: Reader, most: int) -> str | None:
    count = reader.summary().dead_letters
    if count is None:
        return "this database user may not see dead letters; the collectors' own user may"
    if count <= most:
        return None
    return (
        f"dead letters: {count}, which is more than {most}: see `vero-collector dead-letters list`"
    )


def _integrity(reader: Reader) -> None:
    total = sum(total.events for total in reader.summary().totals)
    with progress("checking", total) as advance:
        reader.check_all(advance)


def _text(micros: int) -> str:
    return str(timedelta(seconds=micros // times.SECOND))


def describe(store: str, checked: list[Checked]) -> dict[str, Any]:
    """Return what was found, for machines; ``text`` is what chat programs show of it.

    Args:
        store: The store's URL.
        checked: What was found.
    """
    try:
        location = location_of(store, "store")
    except UserError:
        location = ""
    failed = [f"{each.name}: {each.problem}" for each in checked if each.problem]
    return {
        "ok": not failed,
        "checked_at": times.to_text(times.now()),
        "store": location,
        "failed": failed,
        "checks": {each.name: each.problem for each in checked},
        "text": "\n".join([f"vero-collector check failed: {location}", *failed]),
    }


def check_alert_url(url: str) -> None:
    """Check a URL that alerts are posted to, which is a secret.

    Raises:
        SettingError: Nothing can be posted to it.
    """
    check_pasted("--alert-url", url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read only when it is asked for
    except ValueError as error:
        raise SettingError("--alert-url", "it is not a URL") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or " " in url:
        raise SettingError("--alert-url", "it is not a URL that begins with https:// or http://")


def alert(url: str, body: dict[str, Any]) -> str | None:
    """Post what was found as JSON; return why that failed, without the URL.

    Args:
        url: See :func:`check_alert_url`.
        body: What is posted.
    """
    problem: str | None = f"no response within {ALERT_SECONDS:.0f} seconds"

    def post() -> None:
        nonlocal problem
        try:
            with requests.post(
                url,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json"},
                timeout=ALERT_SECONDS,
                allow_redirects=False,
                stream=True,  # nobody reads the response's body
            ) as response:
                problem = (
                    None
                    if response.ok and not response.is_redirect
                    else (f"the server responded with {response.status_code}")
                )
        except OSError as error:
            problem = reason_of(error)
        except ValueError:  # urllib3 and idna refuse some URLs in words that repeat them
            problem = "its URL cannot be used"

    # The time-outs of requests are between two bytes, and of each address of a name.
    posting = threading.Thread(target=post, daemon=True)
    posting.start()
    posting.join(ALERT_SECONDS)
    return problem
