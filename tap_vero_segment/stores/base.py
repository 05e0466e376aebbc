"""What a store can do, whatever it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tap_vero_segment.closing import Closable

if TYPE_CHECKING:
    from collections.abc import Sequence


class StoreError(Exception):
    """The store could not do what it was asked; nothing of it was stored.

    The message names no secret, no recipient and no event.
    """


class StoreFullError(StoreError):
    """No space is left. The store goes on when there is space again."""


class StoreBusyError(StoreError):
    """Another process held the store for too long. Trying again helps."""


class StoreBrokenError(StoreError):
    """The store can no longer say what is on disk: the process that writes must end.

    After a failed write or sync the operating system may have thrown away what it could not
    write, so that only a fresh start, which reads the files again, can tell what is there.
    """


class Event(NamedTuple):
    """A track call to be stored.

    Attributes:
        id: The track call's ``messageId``.
        collection: The slug of its collection, ``email_sent``.
        received_at: When it was received, in microseconds since 1970.
        call: The track call as JSON, without ``loadedAt``.
        input: Where it came in: ``vero``.
        body: The request's body as it came, where it is more than the track call itself.
    """

    id: str
    collection: str
    received_at: int
    call: bytes
    input: str
    body: bytes | None


class DeadLetter(NamedTuple):
    """A body that came from an authenticated sender and could not be read or mapped.

    Attributes:
        received_at: When it was received, in microseconds since 1970.
        input: Where it came in: ``vero``.
        reason: Why it is no event, in words that repeat nothing of the body.
        body: The request's body as it came.
    """

    received_at: int
    input: str
    reason: str
    body: bytes


class KeptLetter(NamedTuple):
    """A dead letter in a store.

    Attributes:
        number: What the store calls it: rises in the order of arrival, and is never used again.
        letter: The dead letter.
    """

    number: int
    letter: DeadLetter


class Total(NamedTuple):
    """What a store holds of one collection; times in microseconds since 1970."""

    collection: str
    events: int
    first_loaded_at: int
    last_loaded_at: int


class Summary(NamedTuple):
    """What a store holds.

    Attributes:
        totals: Its events.
        dead_letters: How many there are; None: who reads may not see them.
        passed_over: How many calls came that are none of the collections.
    """

    totals: list[Total]
    dead_letters: int | None
    passed_over: int


PAGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of track calls or bodies that a reader returns at once, or a larger one alone.

What is in memory while a store is read goes with this, not with how many events are asked for.
"""

ARRIVALS_SLOT: Final = 300_000_000
"""Microseconds in a slot of :class:`Arrivals`, which begins at a multiple of them: five minutes."""

ARRIVALS_KEPT: Final = 172_800_000_000
"""Microseconds that slots are kept for: 48 hours before the newest one begins."""

NEWEST_SEARCHED: Final = 20_000
"""Events that :meth:`Reader.newest` looks at, at most, for those of one collection."""


class Arrivals(NamedTuple):
    """How many events of a collection came in a slot of time.

    Attributes:
        collection: The slug of the collection.
        start: Where the slot begins, in microseconds since 1970.
        events: The new ones that have their ``loaded_at`` in it, :data:`ARRIVALS_SLOT` long; those
            that were pruned since count as well.
    """

    collection: str
    start: int
    events: int


class Reader(Closable, Protocol):
    """A store's reading half. It may be used from one thread at a time."""

    def high_water(self) -> int | None:
        """Return the newest ``loaded_at`` in microseconds since 1970; None: there never was one.

        Events that are stored later have a greater one. It outlives events that are pruned.
        """

    def lines(self, after: int, until: int | None, limit: int) -> list[bytes]:
        """Return events with ``after < loaded_at <= until``, in its order.

        Args:
            after: Microseconds since 1970.
            until: Microseconds since 1970; None: no bound.
            limit: The most events to return.

        Returns:
            Track calls as JSON with ``loadedAt``, without line ends: :data:`PAGE_BYTES` of them
            at most. Only an empty page says that there is nothing more.
        """

    def summary(self) -> Summary:
        """Return counts, without scanning the events."""

    def arrivals(self, after: int) -> list[Arrivals]:
        """Return how many events came, slot by slot, without scanning the events.

        Slots in which nothing came are left out, and those older than :data:`ARRIVALS_KEPT` can be
        gone. An upgraded store counts what comes from then on.

        Args:
            after: Slots that begin then or later; microseconds since 1970.
        """

    def newest(self, limit: int, collection: str | None = None) -> list[bytes]:
        """Return the newest events as :meth:`lines` does, the newest first.

        Args:
            limit: The most to return, one or more; :data:`PAGE_BYTES` at most.
            collection: Only events of it, sought among the newest :data:`NEWEST_SEARCHED` events
                and no further, as no index leads to them.
        """

    def event(self, loaded_at: int) -> bytes | None:
        """Return one event as :meth:`lines` does; None: there is none of that time.

        Args:
            loaded_at: Microseconds since 1970.
        """

    def size(self) -> int:
        """Return how many bytes of disk the store takes."""

    def dead_letters(self, after: int, limit: int) -> list[KeptLetter]:
        """Return dead letters in order of their numbers.

        Args:
            after: Those with a greater number.
            limit: The most to return; :data:`PAGE_BYTES` of bodies at most. Only an empty page
                says that there are no more.
        """

    def newest_dead_letters(self, limit: int) -> list[KeptLetter]:
        """Return the dead letters that came last, the newest first.

        Args:
            limit: The most to return; :data:`PAGE_BYTES` of bodies at most.
        """

    def exported_until(self, destination: str | None = None) -> int | None:
        """Return the ``loaded_at`` up to which an archive has the events; None: it has none.

        Args:
            destination: The archive's URL; None: whichever archive has most.
        """


class Writer(Protocol):
    """A store's writing half. It may be used from one thread only."""

    def write(
        self, events: Sequence[Event], dead_letters: Sequence[DeadLetter], passed_over: int = 0
    ) -> int:
        """Store all of it in one transaction, synced to disk when this returns.

        An event whose id is stored already, and a dead letter whose body is, are passed over.

        Args:
            events: Track calls.
            dead_letters: Bodies that are none.
            passed_over: How many calls came that are none of the collections; only counted.

        Returns:
            How many of the events are new.

        Raises:
            StoreError: Nothing of it is stored; the subclass says whether going on makes sense.
        """

    def probe(self) -> None:
        """Write something small and sync it, to see whether the store accepts writes.

        Raises:
            StoreError: It does not.
        """

    def nearly_full(self) -> bool:
        """Return whether there is next to no room left on disk; False where none can tell."""

    def mark_exported(self, destination: str, until: int) -> None:
        """Note the ``loaded_at`` up to which an archive has the events."""

    def resolve(self, number: int, events: Sequence[Event]) -> int:
        """Store what a dead letter holds, and delete the letter, in one transaction.

        Args:
            number: The dead letter.
            events: The track calls that could be made of it after all.

        Returns:
            How many of the events are new; 0, and nothing done, where there is no such letter.
        """

    def discard(self, numbers: Sequence[int]) -> list[int]:
        """Delete dead letters, in one transaction: all of them, or none.

        Args:
            numbers: Which ones.

        Returns:
            The numbers of no dead letter, rising; where there is one, nothing was deleted.
        """

    def prune(self, before: int) -> int:
        """Delete some of the oldest events, in a transaction that is short.

        What is deleted frees its ``id``: the same event delivered again is a new one.

        Args:
            before: Only events with an earlier ``loaded_at``; microseconds since 1970.

        Returns:
            How many were deleted; 0: none is left.
        """

    def close(self) -> None:
        """Let go of the store."""
