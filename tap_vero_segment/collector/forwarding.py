"""Copies out: what Vero posted, posted again to other servers from the store."""

from __future__ import annotations

import logging
import sys
import threading
import time
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_exponential,
    wait_fixed,
    wait_random,
)
from tenacity.nap import sleep_using_event

from tap_vero_segment import times
from tap_vero_segment.collector.destinations import Client, DeliveryError
from tap_vero_segment.errors import UserError, describe_fault
from tap_vero_segment.inputs.intake import VERO
from tap_vero_segment.stores.base import StoreError
from tap_vero_segment.stores.open import open_reader, open_writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tap_vero_segment.collector.destinations import Destination
    from tap_vero_segment.stores.base import Forward, KeptDeadLetter, Reader, Writer

logger = logging.getLogger("vero-collector")

PAGE: Final = 200
"""Events that are read together; a page also ends at 8 MB."""
LETTER_PAGE: Final = 20
PAGE_SECONDS: Final = 10.0
"""How long a page is worked on. What is deleted or erased in the store is not to be posted from
memory long after that."""
POLL_SECONDS: Final = 0.5
"""How often the store is looked at for something new."""
SAVE_SECONDS: Final = 1.0
"""How often the cursor is written to the store, which syncs it: what was posted since is posted
again after a crash."""
PATIENCE: Final = 30.0
"""Seconds that a run which ends by itself tries to post a body, or waits for another process."""
PAUSE: Final = 0.5
"""Seconds before the second try; each further one waits twice as long."""
PAUSE_MAX: Final = 60.0
RETRY_AFTER_MAX: Final = 600.0
"""Seconds to wait at most, whatever a server asks for."""
LOG_SECONDS: Final = 60.0
"""How often the log says that a destination fails, or refuses something."""


class _StoppedError(Exception):
    """The end has come."""


class _OvertakenError(Exception):
    """The store says something else of a destination than before, and that is what holds."""


class _GoneError(Exception):
    """What was to be posted again is no longer in the store."""


class _ForgottenError(UserError):
    """The store does not know a destination any more."""


class Manner(NamedTuple):
    """How to forward.

    Attributes:
        start: Where a destination that the store does not know yet begins: with what was loaded
            then or later, in microseconds since 1970; None: with what comes from now on.
        skip_refused: Whether an event whose body is refused is skipped. A dead letter always is:
            it stays in the store.
        follow: Whether to go on with what comes later, and never to give up.
        patience: For how many seconds to try otherwise.
    """

    start: int | None = 0
    skip_refused: bool = False
    follow: bool = True
    patience: float = PATIENCE


class Forwarder:
    """Posts what a store has to one destination: in order, at least once.

    Args:
        store: The store's URL.
        destination: Where to.
        manner: How.
        stopping: Ends it, when it is set.

    Attributes:
        error: Why it ended before that.
        name: What the destination is called in messages.
        sent: How many bodies the destination has accepted from this one.
        skipped: How many events and dead letters came by another input than Vero's.
        refused: How many bodies were skipped, as the destination refused them.
    """

    def __init__(
        self, store: str, destination: Destination, manner: Manner, stopping: threading.Event
    ) -> None:
        self.error: Exception | None = None
        self.name = destination.shown
        self.sent = self.skipped = self.refused = 0
        self.destination = destination
        self.manner = manner
        self.stopping = stopping
        self._store = store
        self._fails = False
        self._logged_failure = self._logged_refusal = -LOG_SECONDS

    def run(self) -> None:
        """Forward until there is nothing more, or until it is stopped. It raises nothing."""
        attempts = Retrying(
            retry=retry_if_exception(self._is_worth_another_try),
            wait=wait_random(1, 5),
            sleep=sleep_using_event(self.stopping),
            before_sleep=lambda state: self.log_failure(_words(_error_of(state))),
            reraise=True,
        )
        try:
            attempts(self._run)
        except _StoppedError:
            pass
        except Exception as error:  # noqa: BLE001  # whoever has started the thread asks for it
            self.error = error
            if self.manner.follow:
                logger.error("forwarding to %s has ended: %s", self.name, _words(error))  # noqa: TRY400

    def _is_worth_another_try(self, error: BaseException) -> bool:
        """Whether to begin anew after trouble with the store, or with this program."""
        return self.manner.follow and not isinstance(error, (_StoppedError, _ForgottenError))

    def _run(self) -> None:
        if self.stopping.is_set():
            raise _StoppedError
        with (
            closing(open_writer(self._store, "store")) as writer,
            open_reader(self._store, "store") as reader,
            closing(Client(self.destination)) as client,
        ):
            _Run(self, reader, writer, client).to_the_end()

    def log_failure(self, reason: str) -> None:
        """Say now and then why nothing can be forwarded at present."""
        now = time.monotonic()
        if now - self._logged_failure >= LOG_SECONDS:
            self._logged_failure = now
            self._fails = True
            logger.warning("forwarding to %s fails and is tried again: %s", self.name, reason)

    def log_success(self) -> None:
        """Say that it goes on, where it was said that it failed."""
        if self._fails:
            self._fails = False
            logger.info("forwarding to %s goes on", self.name)

    def log_skipped(self) -> None:
        """Count, and say once, that what came by another input is not forwarded."""
        self.skipped += 1
        if self.skipped == 1:
            logger.info(
                "to %s only what Vero posted is forwarded: events of other inputs are skipped, "
                "and counted in the status",
                self.name,
            )

    def log_refused(self, reason: str) -> None:
        """Count, and say now and then, that bodies were refused and skipped."""
        self.refused += 1
        now = time.monotonic()
        if now - self._logged_refusal >= LOG_SECONDS:
            self._logged_refusal = now
            logger.warning(
                "%s refuses bodies, which are skipped: %s; %d so far",
                self.name,
                reason,
                self.refused,
            )


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _words(error: BaseException | None) -> str:
    if error is None or isinstance(error, (StoreError, UserError)):
        return str(error)
    return f"unexpected {describe_fault(error)}"


def register(
    reader: Reader, writer: Writer, destination: Destination, start: int | None
) -> Forward:
    """Let the store know a destination, unless it does; return how far that has come.

    Args:
        reader: The store's reading half.
        writer: Its writing half.
        destination: The destination.
        start: See :class:`Manner`.

    Raises:
        StoreError: The store failed.
    """
    newest = reader.high_water() or 0
    until = newest if start is None else min(max(0, start - 1), newest)
    received_at = times.LATEST if start is None else start
    return writer.add_forward(destination.key, destination.shown, until, received_at)


class _Run:
    """Forwards, with a store and a client that are open.

    Args:
        forwarder: Says where to and how, and counts.
        reader: The store's reading half.
        writer: Its writing half.
        client: Posts.
    """

    def __init__(
        self, forwarder: Forwarder, reader: Reader, writer: Writer, client: Client
    ) -> None:
        self._forwarder = forwarder
        self._manner = forwarder.manner
        self._stopping = forwarder.stopping
        self._reader = reader
        self._writer = writer
        self._client = client
        self._saved = register(reader, writer, forwarder.destination, self._manner.start)
        self._now = self._saved
        self._saved_at = time.monotonic()
        self._failed = False  # the body that is being posted, before
        forwarder.name = f"{self._now.destination} ({self._now.number})"
        until = self._now.until
        begins = f"after {times.to_text(until)}" if until else "at the oldest event"
        logger.info("forwarding to %s begins %s", forwarder.name, begins)
        self._until, self._last_letter = times.LATEST, sys.maxsize
        if not self._manner.follow:  # what comes later is for the next run, or this had no end
            self._until = reader.high_water() or 0
            newest = reader.letter_heads(1)
            self._last_letter = newest[0].number if newest else 0

    def to_the_end(self) -> None:
        """Forward until there is nothing more, or until it is stopped.

        Raises:
            _StoppedError: It was stopped.
            UserError: The destination cannot have it, another process has the destination, or
                the store does not know it any more.
            StoreError: The store failed.
        """
        while True:
            self._wait_for_turn()
            try:
                self._reload()
                found = self._forward_events()
                if self._forward_dead_letters() or found:
                    continue
                self._save()
                if not self._manner.follow:
                    return
                self._check_not_ahead()
            except _OvertakenError:
                self._saved = self._now  # so that it is read again
                continue
            except (_StoppedError, UserError):
                with suppress(_OvertakenError):
                    self._save()
                raise
            self._stopping.wait(POLL_SECONDS)

    def _wait_for_turn(self) -> None:
        """Wait while another process forwards to the destination: each body would come twice.

        Raises:
            _StoppedError: The end has come.
            UserError: It goes on for too long.
        """
        if self._hold():
            return
        logger.info("another process forwards to %s: waiting until it ends", self._forwarder.name)
        attempts = Retrying(
            retry=retry_if_result(lambda held: not held),
            stop=stop_never if self._manner.follow else stop_after_delay(self._manner.patience),
            wait=wait_fixed(POLL_SECONDS),
            sleep=sleep_using_event(self._stopping),
            retry_error_callback=lambda _: False,
        )
        if not attempts(self._hold):
            msg = f"another process forwards to {self._forwarder.name}: nothing was done"
            raise UserError(msg)

    def _hold(self) -> bool:
        self._check_not_stopped()
        return self._writer.hold_forward(self._saved.number)

    def _check_not_stopped(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError

    def _reload(self) -> None:
        """Begin where the store says, where this has saved all that it knows.

        Raises:
            _ForgottenError: The store does not know the destination any more.
        """
        if self._now != self._saved:
            return
        number = self._now.number
        found = [each for each in self._reader.forwards() if each.number == number]
        if not found:
            msg = f"{self._forwarder.name} was forgotten: start again to forward to it anew"
            raise _ForgottenError(msg)
        self._now = self._saved = found[0]

    def _forward_events(self) -> bool:
        """Post a page of events; return whether there was one."""
        page = self._reader.bodies(self._now.until, self._until, PAGE)
        end = time.monotonic() + PAGE_SECONDS
        for event in page:
            if event.input == VERO and event.body:
                at = event.loaded_at
                self._deliver(event.body, partial(self._reader.bodies, at - 1, at, 1), at)
            else:
                self._skip()
            self._advance(self._now._replace(until=event.loaded_at))
            if time.monotonic() > end:
                break
        return bool(page)

    def _forward_dead_letters(self) -> bool:
        """Post a page of dead letters: Vero posted them too; return whether there was one."""
        page = self._reader.dead_letters(self._now.letter, LETTER_PAGE)
        page = [kept for kept in page if kept.number <= self._last_letter]
        end = time.monotonic() + PAGE_SECONDS
        for number, letter in page:
            if letter.input == VERO:
                self._deliver(letter.body, partial(self._letters, number))
            else:
                self._skip()
            self._advance(self._now._replace(letter=number))
            if time.monotonic() > end:
                break
        return bool(page)

    def _letters(self, number: int) -> list[KeptDeadLetter]:
        """Return the dead letter of a number, if there is one."""
        return [each for each in self._reader.dead_letters(number - 1, 1) if each.number == number]

    def _skip(self) -> None:
        self._check_not_stopped()
        self._now = self._now._replace(skipped=self._now.skipped + 1)
        self._forwarder.log_skipped()

    def _deliver(
        self, body: bytes, find: Callable[[], Sequence[object]], loaded_at: int | None = None
    ) -> None:
        """Post a body until it is accepted, or is refused and may be skipped.

        Args:
            body: An event's, or a dead letter's.
            find: Finds that in the store: before it is posted again, as it may have been erased.
            loaded_at: The event's, in microseconds since 1970; None: it is a dead letter's.

        Raises:
            _StoppedError: The end has come.
            UserError: It is refused, or could not be posted for too long.
        """
        may_skip = self._manner.skip_refused or loaded_at is None
        patience, follow = self._manner.patience, self._manner.follow
        about = "" if loaded_at is None else f" (the event of {times.to_text(loaded_at)})"
        remedy = f"{about}; mend that there, or skip what is refused with --skip-refused"
        attempts = Retrying(
            retry=retry_if_exception(
                lambda error: (
                    isinstance(error, DeliveryError)
                    and not (error.refused and (may_skip or not follow))
                )
            ),
            stop=stop_never if follow else stop_before_delay(patience),
            wait=_pause,
            sleep=sleep_using_event(self._stopping),
            before_sleep=lambda state: self._note_failure(state, remedy),
            reraise=True,
        )
        self._failed = False
        try:
            attempts(self._post, body, find)
        except _GoneError:
            return
        except DeliveryError as error:
            if error.refused and may_skip:
                self._now = self._now._replace(refused=self._now.refused + 1)
                self._forwarder.log_refused(str(error))
                return
            self._now = _failing(self._now, error)
            msg = f"{self._forwarder.name}: {error}{remedy if error.refused else ''}"
            raise UserError(msg) from error
        self._forwarder.sent += 1
        self._forwarder.log_success()
        self._now = self._now._replace(sent=self._now.sent + 1, failing=False)

    def _post(self, body: bytes, find: Callable[[], Sequence[object]]) -> None:
        self._check_not_stopped()
        if self._failed and not find():
            raise _GoneError
        self._client.post(body)

    def _note_failure(self, state: RetryCallState, remedy: str) -> None:
        error = _error_of(state)
        self._failed = True
        self._now = _failing(self._now, error)
        self._save()
        refused = isinstance(error, DeliveryError) and error.refused
        self._forwarder.log_failure(f"{error}{remedy if refused else ''}")

    def _advance(self, now: Forward) -> None:
        """Move the cursor on; write it to the store where that is due."""
        self._now = now
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        """Write the cursor to the store.

        Raises:
            _OvertakenError: It was moved or deleted there meanwhile.
        """
        if self._now != self._saved:
            if not self._writer.save_forward(self._saved, self._now):
                raise _OvertakenError
            self._saved = self._now
        self._saved_at = time.monotonic()

    def _check_not_ahead(self) -> None:
        """Set the cursor back where the store ends before it, or what comes would be skipped."""
        newest = self._reader.high_water() or 0
        if newest < self._now.until:
            logger.warning(
                "the store ends at %s, before what %s has had, which is up to %s: it was restored "
                "or its newest events were deleted; forwarding begins where the store ends",
                times.to_text(newest),
                self._forwarder.name,
                times.to_text(self._now.until),
            )
            self._now = self._now._replace(until=newest)
            self._save()


def _failing(forward: Forward, error: BaseException | None) -> Forward:
    return forward._replace(failing=True, failure=str(error), failed_at=times.now())


_backoff: Final = wait_exponential(multiplier=PAUSE, max=PAUSE_MAX) + wait_random(0, PAUSE)


def _pause(state: RetryCallState) -> float:
    """Return for how many seconds to wait: as long as the server asks for, or ever longer."""
    error = _error_of(state)
    if isinstance(error, DeliveryError) and error.retry_after is not None:
        return min(max(error.retry_after, PAUSE), RETRY_AFTER_MAX)
    return _backoff(state)


class Forwarding:
    """Forwarders, each in a thread of its own: one that waits keeps no other one waiting.

    Args:
        store: The store's URL.
        destinations: Where to; empty: nothing is done.
        manner: How.

    Attributes:
        forwarders: One for each destination.
    """

    def __init__(self, store: str, destinations: Sequence[Destination], manner: Manner) -> None:
        self._stopping = threading.Event()
        self.forwarders = [
            Forwarder(store, destination, manner, self._stopping) for destination in destinations
        ]
        # A server that never answers must not keep the process alive: the end does not wait.
        self._threads = [
            threading.Thread(target=forwarder.run, name="forwarder", daemon=True)
            for forwarder in self.forwarders
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin the end."""
        self._stopping.set()

    @property
    def stopped(self) -> bool:
        """Whether the end has begun."""
        return self._stopping.is_set()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the threads.

        Args:
            seconds: For how long, at most; None: as long as it takes.

        Returns:
            Whether they have ended.
        """
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(None if end is None else max(0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
