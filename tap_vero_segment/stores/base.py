"""What a store can do, whatever it is made of."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tap_vero_segment import times
from tap_vero_segment.closing import Closable
from tap_vero_segment.inputs.ids import ALIKE

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from tap_vero_segment.stores.erasures import (
        Deletion,
        ErasedEvent,
        ErasedPeople,
        ErasureFigures,
    )


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
        received_at: When it was received, as ``call`` has it, in microseconds since 1970.
        call: The track call as JSON, without ``loadedAt``.
        input: Where it came in: ``vero``.
        body: The request's body as it came, where it is more than the track call itself.
        alike: Ids of which one makes this the same event, where an event of it was received within
            :data:`tap_vero_segment.inputs.ids.ALIKE` of this one.
    """

    id: str
    collection: str
    received_at: int
    call: bytes
    input: str
    body: bytes | None
    alike: tuple[str, ...] = ()


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


class KeptDeadLetter(NamedTuple):
    """A dead letter in a store.

    Attributes:
        number: What the store calls it: rises in the order of arrival, and is never used again.
        letter: The dead letter.
    """

    number: int
    letter: DeadLetter


class LetterHead(NamedTuple):
    """What is listed of a dead letter: all except its body.

    Attributes:
        number: What the store calls it.
        received_at: When it was received, in microseconds since 1970.
        input: Where it came in.
        reason: Why it is no event.
        bytes: How long its body is.
    """

    number: int
    received_at: int
    input: str
    reason: str
    bytes: int


class LetterGroup(NamedTuple):
    """The dead letters of one reason.

    Attributes:
        reason: The reason; of an import without the file and the line.
        letters: How many there are.
        first: The lowest of their numbers.
        last: The highest.
        oldest: When the oldest one was received, in microseconds since 1970.
        newest: The same of the newest one.
    """

    reason: str
    letters: int
    first: int
    last: int
    oldest: int
    newest: int


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
        ignored: How many calls came that are none of the collections.
        letters_deleted: How many dead letters were deleted by hand, ever.
    """

    totals: list[Total]
    dead_letters: int | None
    ignored: int
    letters_deleted: int = 0


ARRIVALS_SLOT: Final = 300_000_000
"""Microseconds in a slot of :class:`Arrivals`, which begins at a multiple of them: five minutes."""

ARRIVALS_KEPT: Final = 2_678_400_000_000
"""Microseconds that slots are kept for: 31 days before the newest one begins."""

ARRIVALS_FINE: Final = 172_800_000_000
"""How long they are kept as they are: 48 hours. Older ones are added up, to one each hour."""

ARRIVALS_HOUR: Final = 3_600_000_000
"""Microseconds in such a slot, which begins at a multiple of them."""

LAST_LETTER: Final = 2**63 - 1
"""No dead letter has a higher number."""

NEWEST_SEARCHED: Final = 20_000
"""Events that :meth:`Reader.newest` looks at, at most, for those of one collection."""


class Arrivals(NamedTuple):
    """How many events of a collection came in a slot of time.

    Attributes:
        collection: The slug of the collection.
        start: Where the slot begins, in microseconds since 1970.
        events: The new ones that have their ``loaded_at`` in it; those that were pruned or erased
            since count as well.
    """

    collection: str
    start: int
    events: int


class Exported(NamedTuple):
    """What an archive has of a store's events; all times are in microseconds since 1970.

    Attributes:
        until: Of the events up to this ``loaded_at``,
        before: it has those that were received before this.
    """

    until: int
    before: int


class Exports(NamedTuple):
    """How far the export to an archive has come.

    Attributes:
        written: What the archive has: the later the ``until``, the earlier the ``before``.
        planned: What is being written to it, or was when an export broke off. Until it is written,
            no other plan is made: so each export that goes on writes the same objects.
    """

    written: list[Exported]
    planned: Exported


class Body(NamedTuple):
    """What an event came in by.

    Attributes:
        loaded_at: The event's, in microseconds since 1970.
        input: Where it came in: ``vero``.
        body: The request's body as it came, once unzipped; empty: the store has none.
    """

    loaded_at: int
    input: str
    body: bytes


class Forward(NamedTuple):
    """How far a destination of ``forward`` has come.

    Attributes:
        number: What the store calls it; never used again.
        destination: Its URL's scheme and host: the rest can hold a secret.
        until: It has had what is to be forwarded of the events up to this ``loaded_at``, in
            microseconds since 1970,
        letter: and of the dead letters up to this number.
        sent: How many bodies it has accepted.
        skipped: How many events were not forwarded, as they came by another input than Vero's.
        refused: How many bodies it has refused for what they are, and were skipped.
        failing: Whether the last request failed.
        failure: Why the last request that failed did; None: none has.
        failed_at: When that was, in microseconds since 1970.
    """

    number: int
    destination: str
    until: int
    letter: int
    sent: int = 0
    skipped: int = 0
    refused: int = 0
    failing: bool = False
    failure: str | None = None
    failed_at: int | None = None


BACKLOG_COUNTED: Final = 10_000
"""How far a :class:`Backlog` is counted: a look at each event would take long after an outage."""


class Backlog(NamedTuple):
    """What a destination of ``forward`` has not had yet.

    Attributes:
        events: How many events; :data:`BACKLOG_COUNTED`: so many or more.
        oldest: The first one's ``loaded_at``, in microseconds since 1970; None: no events.
        dead_letters: How many dead letters, likewise; None: who reads may not see them.
    """

    events: int
    oldest: int | None
    dead_letters: int | None


class Refused(NamedTuple):
    """How often requests were refused for a reason.

    Attributes:
        reason: A word for it, ``wrong_secret``.
        requests: How many were.
        last_at: When the last one was, in microseconds since 1970.
    """

    reason: str
    requests: int
    last_at: int


class Copied(NamedTuple):
    """What a backup of a store holds.

    Attributes:
        events: How many events.
        dead_letters: How many dead letters.
        newest: The newest ``loaded_at`` in microseconds since 1970; None: there never was one.
    """

    events: int
    dead_letters: int
    newest: int | None


class Span(NamedTuple):
    """The times of some events, in microseconds since 1970."""

    first_loaded_at: int
    last_loaded_at: int
    first_received_at: int
    last_received_at: int


class Found(NamedTuple):
    """An event that was looked for.

    Attributes:
        id: Its id.
        input: Where it came in.
        call: The track call as JSON, without ``loadedAt``.
    """

    id: str
    input: str
    call: bytes


FOUND: Final = 1_000
"""The most events that :meth:`Reader.beginning` returns at once."""


class Search(NamedTuple):
    """What is known of events that are looked for; an event has to fit all of it.

    Attributes:
        recipient: The address or number that the message went to: capital letters make no
            difference, nor does the way in which a number is written.
        user_id: The user's id.
        email_id: The message's id, which all of its events share.
        campaign: The campaign's id or its name, in which capital letters make no difference.
        id: The event's id, the ``messageId`` of its track call.
        text: Any of these.
        collection: The slug of the event's collection.
        since: The event's ``timestamp`` is then or later; microseconds since 1970.
        until: It is before then.
    """

    recipient: str | None = None
    user_id: str | None = None
    email_id: str | None = None
    campaign: str | None = None
    id: str | None = None
    text: str | None = None
    collection: str | None = None
    since: int | None = None
    until: int | None = None


class SearchPage(NamedTuple):
    """A page of the events that were looked for; times in microseconds since 1970.

    Attributes:
        lines: The events as :meth:`Reader.lines` returns them, the newest first.
        older: What :meth:`Reader.search` takes as ``before`` for the page of older ones; None:
            there are no older ones.
        newer: What it takes as ``after`` for the page of newer ones; None: there are none.
        searched_to: Where the search broke off, as it would have taken too long: nothing is known
            of events beyond this ``loaded_at``, to which the next page goes on. None: it did not.
    """

    lines: list[bytes]
    older: int | None
    newer: int | None
    searched_to: int | None = None


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

    def arrivals(self, after: int, step: int = ARRIVALS_SLOT) -> list[Arrivals]:
        """Return how many events came, slot by slot, without scanning the events.

        Slots in which nothing came are left out, and those older than :data:`ARRIVALS_KEPT` can be
        gone.

        Args:
            after: Slots that begin then or later; microseconds since 1970.
            step: The length of the slots that are returned, in microseconds: a multiple of
                :data:`ARRIVALS_SLOT`; what is older than :data:`ARRIVALS_FINE` is known by the
                hour.
        """

    def newest(self, limit: int, collection: str | None = None) -> list[bytes]:
        """Return the newest events as :meth:`lines` does, the newest first.

        Args:
            limit: The most to return, one or more; :data:`PAGE_BYTES` at most.
            collection: Only events of it, sought among the newest :data:`NEWEST_SEARCHED` events
                and no further, as no index leads to them.
        """

    def clock_behind(self) -> int:
        """Return by how many microseconds the clock is behind the newest ``loaded_at``.

        0: it is not behind. The clock is the one that ``loaded_at`` is taken from: the machine's,
        or the server's.
        """

    def count_after(self, loaded_at: int) -> int:
        """Return how many events have a later ``loaded_at``, which takes a look at each of them.

        Args:
            loaded_at: Microseconds since 1970.
        """

    def event(self, loaded_at: int) -> bytes | None:
        """Return one event as :meth:`lines` does; None: there is none of that time.

        Args:
            loaded_at: Microseconds since 1970.
        """

    def size(self) -> int:
        """Return how many bytes of disk the store takes."""

    def dead_letters(self, after: int, limit: int) -> list[KeptDeadLetter]:
        """Return dead letters in order of their numbers.

        Args:
            after: Those with a greater number.
            limit: The most to return; :data:`PAGE_BYTES` of bodies at most. Only an empty page
                says that there are no more.
        """

    def letter_heads(
        self, limit: int, before: int = LAST_LETTER, reason: str | None = None
    ) -> list[LetterHead]:
        """Return the dead letters that came last without reading their bodies, the newest first.

        Args:
            limit: The most to return.
            before: Only those with a lower number.
            reason: Only those of this group.

        Raises:
            StoreError: They cannot be read, or this database user may not see them.
        """

    def letter_groups(self) -> list[LetterGroup]:
        """Return the dead letters by their reasons, the reason of the newest one first.

        It takes a look at each, not at its body.

        Raises:
            StoreError: They cannot be read, or this database user may not see them.
        """

    def span(self, since: int, before: int, after: int, until: int) -> Span | None:
        """Return the times of the events with ``since <= received_at < before``; None: no events.

        Args:
            since: Microseconds since 1970, as are the others.
            before: The end of it.
            after: Only events with ``after < loaded_at``
            until: ``<= until``.
        """

    def received(self, ids: Sequence[str]) -> dict[str, int]:
        """Return when events were received, in microseconds since 1970, by their ids.

        Args:
            ids: Ids; those that are not stored are left out.
        """

    def beginning(self, fronts: Sequence[str], after: str) -> list[Found]:
        """Return events whose ids begin with one of some texts, in the order of ids.

        Args:
            fronts: The texts, of which none begins with another.
            after: Only events with a greater id.

        Returns:
            Some of them. Only an empty page says that there is nothing more.
        """

    def search(
        self, search: Search, *, before: int | None = None, after: int | None = None, limit: int
    ) -> SearchPage:
        """Return the events that fit a search, in a time that does not go with how many there are.

        Args:
            search: What is looked for.
            before: The newest ones with an earlier ``loaded_at``; microseconds since 1970.
            after: The oldest ones with a later one, of which the newest comes first all the same;
                not together with ``before``. Neither: the newest ones.
            limit: The most to return, one or more; :data:`PAGE_BYTES` at most.
        """

    def exports(self) -> dict[str, list[Exported]]:
        """Return what archives have, by their URLs; see :class:`Exports`."""

    def bodies(self, after: int, until: int, limit: int) -> list[Body]:
        """Return what events came in by, in the order of ``loaded_at``.

        Args:
            after: Of the events with ``after < loaded_at``; microseconds since 1970.
            until: ``<= until``.
            limit: The most to return; :data:`PAGE_BYTES` at most. Only an empty page says that
                there is nothing more.
        """

    def forwards(self) -> list[Forward]:
        """Return how far each destination of ``forward`` has come, in order of their numbers."""

    def backlog(self, forward: Forward) -> Backlog:
        """Return what a destination has not had yet, counted no further than it has to be."""

    def refused(self) -> list[Refused]:
        """Return which requests were refused, the reason that was the last one first."""

    def check_all(self, advance: Callable[[int], None]) -> None:
        """Read all that the store holds, which takes minutes where it is large.

        Args:
            advance: Takes how many more events were read.

        Raises:
            StoreError: Something is damaged or missing, as far as the store can notice.
        """

    def nearly_full(self) -> bool:
        """Return whether there is next to no room left on disk; False where none can tell."""

    def planned_exports(self) -> list[str]:
        """Return the URLs of archives that something is being written to, or an export broke off.

        What an archive has of it is not noted yet.
        """

    def erased(self, after: int, limit: int) -> list[ErasedEvent]:
        """Return events that were erased, in the order of their erasures' ``loaded_at``.

        Args:
            after: Those with a later one; microseconds since 1970.
            limit: The most to return.
        """

    def newest_erased(self) -> int | None:
        """Return the newest ``loaded_at`` of :meth:`erased`; None: there is none."""

    def erasure_figures(self) -> ErasureFigures:
        """Return counts of erasures."""


class Writer(Protocol):
    """A store's writing half. It may be used from one thread only."""

    def write(
        self, events: Sequence[Event], dead_letters: Sequence[DeadLetter], ignored: int = 0
    ) -> int:
        """Store all of it in one transaction, synced to disk when this returns.

        An event whose id is stored already, and one that is stored as another alike, are passed
        over; so is a dead letter whose body is one that was received shortly before or after.

        Args:
            events: Track calls.
            dead_letters: Bodies that are none.
            ignored: How many calls came that are none of the collections; only counted.

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

    def check(self) -> int:
        """Make sure that the store is still the one that was opened, and has what it had.

        Returns:
            By how many microseconds the clock is behind the newest ``loaded_at``; 0: it is not.

        Raises:
            StoreError: It is not, or cannot be asked; the subclass says which.
        """

    def nearly_full(self) -> bool:
        """Return whether there is next to no room left on disk; False where none can tell."""

    def add_refused(self, refused: Sequence[Refused]) -> None:
        """Count requests that were refused, beside those before."""

    def plan_export(self, destination: str, planned: Exported) -> Exports:
        """Note what is going to be written to an archive, unless something is already.

        Args:
            destination: The archive's URL.
            planned: What it has once that is written.

        Returns:
            What is to be written: it may be another export's plan.
        """

    def mark_exported(self, destination: str, written: Exported) -> None:
        """Note what an archive has; a plan of it is done.

        Args:
            destination: The archive's URL.
            written: What it has, now as well; it can be read there.
        """

    def forget_export(self, destination: str) -> bool:
        """Forget what an archive has, and what was planned; return whether anything was known.

        Args:
            destination: The archive's URL.
        """

    def add_forward(self, key: str, destination: str, until: int, received_at: int) -> Forward:
        """Note a destination of ``forward``, unless it is known, and return how far it has come.

        Args:
            key: What tells it from all others; no secret can be read from it.
            destination: What is shown of it.
            until: A new one gets the events with a later ``loaded_at``; microseconds since 1970,
            received_at: and the dead letters that were received then or later.
        """

    def save_forward(self, before: Forward, now: Forward) -> bool:
        """Note how far a destination has come.

        Args:
            before: What the store said of it.
            now: What it is to say.

        Returns:
            Whether it still said the former; otherwise nothing was noted.
        """

    def forget_forward(self, destination: str | int) -> int | None:
        """Forget a destination of ``forward``; return its number, None: there is no such.

        Args:
            destination: Its key or its number.
        """

    def hold_forward(self, number: int) -> bool:
        """Keep a destination for this writer, until it is closed or its process ends.

        It can be lost with the connection to a database: it is asked for again now and then.

        Returns:
            Whether this writer has it; otherwise another one does.
        """

    def resolve(self, number: int, events: Sequence[Event]) -> int:
        """Store what a dead letter holds, and delete the letter, in one transaction.

        Args:
            number: The dead letter.
            events: The track calls that could be made of it after all.

        Returns:
            How many of the events are new; 0, and nothing done, where there is no such letter.
        """

    def discard(self, numbers: Sequence[int]) -> list[int]:
        """Delete dead letters by hand, and count them, in one transaction: all of them, or none.

        Args:
            numbers: Which ones.

        Returns:
            The numbers of no dead letter, rising; where there is one, nothing was deleted.
        """

    def prune(self, before: int, until: int = times.LATEST) -> int:
        """Delete some events, in a transaction that is short.

        What is deleted frees its ``id``: the same event delivered again is a new one.

        Args:
            before: Only events with an earlier ``received_at``; microseconds since 1970.
            until: Only events with this ``loaded_at`` at most.

        Returns:
            How many were deleted; 0: none is left.
        """

    def build_index(self, rest: Callable[[], None] = lambda: None) -> bool:
        """Add some events to the index that :meth:`Reader.search` goes by, if there are enough.

        Args:
            rest: Called between pieces of work of some milliseconds, to leave the machine to
                others; no transaction is open then.

        Returns:
            Whether something was done, so that there may be more to do.
        """

    def repair_index(self, rest: Callable[[], None] = lambda: None) -> int:
        """Delete what is damaged of that index, so that it is built anew; return how many blocks.

        Args:
            rest: As for :meth:`build_index`.
        """

    def erased_people(self) -> ErasedPeople:
        """Return the people who were erased; the same object as before where nothing changed."""

    def begin_erasure(self, digests: Iterable[bytes], *, suppress: bool | None = None) -> None:
        """Note that people are to be erased: the events that are here, and those received before.

        Args:
            digests: Their keyed hashes: see :meth:`ErasedPeople.digest`.
            suppress: Whether what comes later is dropped; None: as it was, or no.
        """

    def erase(self, deletions: Sequence[Deletion]) -> Counter[str]:
        """Delete events for good, and note that they were erased, in a transaction that is short.

        Args:
            deletions: The events; those that are gone are ignored.

        Returns:
            How many were deleted, by their collections.
        """

    def erase_letters(self, letters: Mapping[int, bytes]) -> int:
        """Delete dead letters for good; return how many were deleted.

        Args:
            letters: Whose each of them is, by its number.
        """

    def scrub(self, *, rewrite: bool = False) -> str | None:
        """Take care that the files keep no trace of what was erased, as far as that is possible.

        Args:
            rewrite: Whether to write tables anew where nothing less removes it, while all wait.

        Returns:
            Why that could not be done now, for the user; None: it was.
        """

    def finish_erasures(self, digests: Iterable[bytes]) -> None:
        """Note that erasures are finished.

        Args:
            digests: The keyed hashes of the people.
        """

    def count_dropped(self, count: int) -> None:
        """Count events and dead letters of erased people that were not stored."""

    def close(self) -> None:
        """Let go of the store."""


@contextmanager
def throttled() -> Generator[None]:
    """Do something with a store, then leave the store to others for as long as it took.

    Who waits for a store's lock only looks from time to time whether it is free, and would find it
    taken again and again by one who takes it without a pause.
    """
    began = time.monotonic()
    yield
    time.sleep(time.monotonic() - began)


def digest_of(letter: DeadLetter) -> bytes:
    """Return 32 bytes that only the same body has that came in by the same input, at about a time.

    As with ids, the time is that of receipt, cut to a multiple of :data:`ALIKE`.
    """
    return digests_alike(letter)[1]


def digests_alike(letter: DeadLetter) -> tuple[bytes, bytes, bytes]:
    """Return the digest, between those of the same body received shortly before and after."""
    content = hashlib.sha256(b"%b\0%b" % (letter.input.encode(), letter.body)).digest()
    slot = letter.received_at // ALIKE

    def digest(number: int) -> bytes:
        return hashlib.sha256(b"%d\0%b" % (number, content)).digest()

    return digest(slot - 1), digest(slot), digest(slot + 1)
