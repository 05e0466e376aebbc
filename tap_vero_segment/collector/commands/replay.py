"""``vero-collector dead-letters replay``: they are read again, with today's mapping."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from tap_vero_segment.collector.commands.dead_letters import (
    check_there,
    every_dead_letter,
    find_dead_letters,
    numbers_of,
)
from tap_vero_segment.errors import describe_fault
from tap_vero_segment.inputs.body import BodyError, NotAnObjectError, UnmappableError
from tap_vero_segment.inputs.intake import READ_AGAIN
from tap_vero_segment.stores.base import StoreError, throttled
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.terminal import progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tap_vero_segment.inputs.intake import Calls
    from tap_vero_segment.stores.base import DeadLetter, KeptDeadLetter, Writer

logger = logging.getLogger("vero-collector")


def replay(store: str, numbers: Sequence[int], reason: str | None = None) -> str:
    """Read dead letters again, and store those that are events now; return what was done.

    An event gets a new ``loaded_at``, and keeps its ``received_at``. Safe beside a running
    collector: each letter is a transaction of its own. Broken off, the next one goes on.

    Args:
        store: The store's URL.
        numbers: Which letters; empty: all.
        reason: Of all only those of this reason.

    Raises:
        SettingError: The store cannot be opened.
        StoreError: The store failed.
        UserError: There is no letter of one of the numbers, or of the reason; nothing was done.
    """
    with open_reader(store, "store") as reader:
        check_there(reader, numbers)
        if reason is not None:
            numbers = numbers_of(reader, reason)
        writer = open_writer(store, "store")
        try:
            replaying = Replay(writer)
            total = len(set(numbers)) or reader.summary().dead_letters or 0
            with progress("replaying", total, "dead letters") as advance:
                for kept in (
                    find_dead_letters(reader, numbers) if numbers else every_dead_letter(reader)
                ):
                    with throttled():
                        replaying.read(kept)
                    advance(1)
        finally:
            writer.close()
    return replaying.told()


class Replay:
    """Reads letters again, and counts what becomes of them.

    Args:
        writer: The store's.
    """

    def __init__(self, writer: Writer) -> None:
        self.letters = 0
        self.new = 0
        self.stay: Counter[str] = Counter()
        self._writer = writer
        self._known = 0
        self._ignored = 0
        self._erased = 0

    def read(self, kept: KeptDeadLetter) -> None:
        """Read a letter, and store it if it is events now.

        Raises:
            StoreError: The store failed in a way that is not the letter's fault.
        """
        self.letters += 1
        calls, reason = _read(kept.letter)
        if reason is None and calls is not None:
            reason = self._resolve(kept, calls)
        if reason is not None:
            self.stay[reason] += 1

    def _resolve(self, kept: KeptDeadLetter, calls: Calls) -> str | None:
        """Store what a letter holds in its place; return why it stays, where it does."""
        bad = calls.dead_letters
        events, _, dropped = self._writer.erased_people().without(calls.events)
        if bad and not calls.events:
            return bad[0].reason
        try:
            if bad:
                # What can be mapped and what cannot part for good. Broken off before the letter is
                # deleted, it is read once more, and all of it is there already.
                new = self._writer.write(events, bad)
                self._writer.resolve(kept.number, [])
            else:
                new = self._writer.resolve(kept.number, events)
        except StoreError as error:
            if type(error) is not StoreError:
                raise
            return f"the store does not take it: {error}"  # and it must not cost the others
        self.new += new
        self._known += len(events) - new
        self._erased += dropped
        self._ignored += calls.ignored
        return None

    def told(self) -> str:
        """Return what was done, a fact a line; the letters that stay by their reasons."""
        stay = self.stay.total()
        lines = [
            f"dead letters read again: {self.letters}, of which {stay} stay",
            f"new events: {self.new}",
            f"events that were stored already: {self._known}",
            f"ignored calls (not Vero events): {self._ignored}",
        ]
        if self._erased:
            lines.append(f"events of erased people, not stored: {self._erased}")
        lines += [f"stay: {count} ({reason})" for reason, count in self.stay.most_common()]
        return "\n".join(lines)


def _read(letter: DeadLetter) -> tuple[Calls | None, str | None]:
    """Return what a letter holds, or why it cannot be read."""
    read_kept = READ_AGAIN.get(letter.input)
    if read_kept is None:
        return None, "it came in by what this release does not know"
    try:
        return read_kept(letter.body, letter.received_at), None
    except (BodyError, NotAnObjectError, UnmappableError) as error:
        return None, str(error)
    except Exception as error:  # noqa: BLE001  # a fault of the mapping must not cost the others
        logger.error("a fault in the mapping: %s", describe_fault(error))  # noqa: TRY400
        return None, f"a fault in the mapping: {type(error).__name__}"
