"""The people who were erased: known by a keyed hash, and recognised in what comes later."""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from tap_vero_segment import times
from tap_vero_segment.recipients import Identity, identities_in, identities_of
from tap_vero_segment.track import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    class _Event(Protocol):
        @property
        def received_at(self) -> int: ...
        @property
        def call(self) -> bytes: ...

    class _DeadLetter(Protocol):
        @property
        def received_at(self) -> int: ...
        @property
        def body(self) -> bytes: ...

    E = TypeVar("E", bound=_Event)
    L = TypeVar("L", bound=_DeadLetter)


class Erasure(NamedTuple):
    """An erasure as a store keeps it.

    Attributes:
        digest: The keyed hash of an address, or of a user's id.
        erased_at: When it was asked for, in microseconds since 1970: later than the ``loaded_at``
            of all that the store had then.
        finished: Whether it was finished.
        suppress: Whether what comes later is dropped.
    """

    digest: bytes
    erased_at: int
    finished: bool = False
    suppress: bool = False


class ErasedEvent(NamedTuple):
    """An event that was erased; times in microseconds since 1970.

    Attributes:
        loaded_at: When its erasure became readable: rises in commit order, and is unique.
        id: The event's ``messageId``.
        erased_at: When it was deleted, later than the event's own ``loaded_at``.
    """

    loaded_at: int
    id: str
    erased_at: int


class Deletion(NamedTuple):
    """An event that is to be deleted.

    Attributes:
        loaded_at: The event's, in microseconds since 1970.
        id: Its ``messageId``.
        digest: Whose it is.
    """

    loaded_at: int
    id: str
    digest: bytes


class ErasureFigures(NamedTuple):
    """What a store says of its erasures.

    Attributes:
        erasures: How many addresses and ids were erased.
        unfinished: How many of these erasures broke off, or are under way.
        suppressed: How many are suppressed.
        events: How many events were deleted.
        dropped: How many events and dead letters of erased people came later and were not stored.
    """

    erasures: int = 0
    unfinished: int = 0
    suppressed: int = 0
    events: int = 0
    dropped: int = 0


def digests(key: bytes) -> Callable[[Identity], bytes]:
    """Return what makes the keyed hash of an identity: HMAC-SHA256."""
    keyed = hmac.new(key, digestmod="sha256")  # to copy it costs a third of making it anew

    @lru_cache(maxsize=65_536)  # a person has several events, and an event several places
    def digest(identity: Identity) -> bytes:
        own = keyed.copy()
        own.update(f"{identity.kind}\0{identity.value}".encode(errors="replace"))
        return own.digest()

    return digest


class ErasedPeople:
    """Recognises people who were erased. True where there are any.

    Args:
        key: The store's key.
        erasures: The people.

    Attributes:
        suppress: Whether anybody is suppressed.
    """

    def __init__(self, key: bytes, erasures: Iterable[Erasure] = ()) -> None:
        self.digest = digests(key)
        self._key = key
        self._erasures = {erasure.digest: erasure for erasure in erasures}
        self._until = max((each.erased_at for each in self._erasures.values()), default=0)
        self.suppress = any(each.suppress for each in self._erasures.values())

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._erasures)

    def unfinished(self) -> ErasedPeople:
        """Return those whose erasure is not finished."""
        return ErasedPeople(self._key, (one for one in self if not one.finished))

    def of(self, identities: Iterable[Identity]) -> ErasedPeople:
        """Return people as if they were erased now, for a look at what there is of them."""
        moment = times.LATEST + 1
        return ErasedPeople(self._key, (Erasure(self.digest(one), moment) for one in identities))

    def __iter__(self) -> Iterator[Erasure]:
        """Return each erasure."""
        return iter(self._erasures.values())

    def find(self, identities: Iterable[Identity], moment: int) -> Erasure | None:
        """Return the erasure that covers something, by whose it is and when it came.

        Args:
            identities: What tells whose it is.
            moment: When it was received, or loaded if that was earlier; microseconds since 1970.
        """
        if moment >= self._until and not self.suppress:
            return None
        for identity in identities:
            found = self._erasures.get(self.digest(identity))
            if found is not None and (found.suppress or moment < found.erased_at):
                return found
        return None

    def cover(self, event: _Event) -> bool:
        """Return whether an event must not be stored: it is of somebody who was erased.

        That is so where it was received before the erasure, and always where the person is
        suppressed. It costs next to nothing where neither can be.
        """
        if event.received_at >= self._until and not self.suppress:
            return False
        return self.find(identities_of(decode(event.call)), event.received_at) is not None

    def cover_letter(self, letter: _DeadLetter) -> bool:
        """Return whether a dead letter must not be stored, as :meth:`cover`."""
        if letter.received_at >= self._until and not self.suppress:
            return False
        return self.find(identities_in(letter.body), letter.received_at) is not None

    def without(
        self, events: Sequence[E], letters: Sequence[L] = ()
    ) -> tuple[Sequence[E], Sequence[L], int]:
        """Return what may be stored of events and dead letters, and how many were dropped."""
        if not self:
            return events, letters, 0
        kept = [event for event in events if not self.cover(event)]
        kept_letters = [letter for letter in letters if not self.cover_letter(letter)]
        dropped = len(events) + len(letters) - len(kept) - len(kept_letters)
        return kept, kept_letters, dropped
