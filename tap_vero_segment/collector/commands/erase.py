"""``vero-collector erase``: people out of the store and out of the archives that it has written."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment import times
from tap_vero_segment.archive.erasing import ArchiveFigures, erase_from
from tap_vero_segment.archive.lines import DamagedError
from tap_vero_segment.archive.objects import Objects
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.collector.commands.dead_letters import PAGE as LETTERS
from tap_vero_segment.errors import SettingError, UserError
from tap_vero_segment.inputs.body import unquote
from tap_vero_segment.recipients import addresses_in, identities_in, identities_of
from tap_vero_segment.stores.base import throttled
from tap_vero_segment.stores.erasures import Deletion
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.track import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_vero_segment.recipients import Identity
    from tap_vero_segment.stores.base import Reader, Writer
    from tap_vero_segment.stores.erasures import ErasedPeople, Erasure
    from tap_vero_segment.track import TrackCall

PAGE: Final = 500
"""Events that are looked at, and deleted, together; collectors wait while they are deleted."""

FEW: Final = 20
"""Addresses of which each is looked for in an event by itself: more of them take longer so."""

COLLECTORS_KNOW: Final = 2.5
"""Seconds after which every collector knows whom to suppress: it looks each second."""


@dataclass
class Figures:
    """What was deleted, or would be.

    Attributes:
        events: Events by their collections.
        dead_letters: Dead letters.
        archives: Lines and objects of each archive, by its URL.
        related: Events that stay and may be of the same people: they have an address or user id
            that stands in a deleted event, too.
        mentions: Events that stay, of other recipients, which have an address in some text.
        problems: What is left to do, and how.
    """

    events: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    archives: dict[str, ArchiveFigures] = field(default_factory=dict)
    related: int = 0
    mentions: int = 0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return them for machines."""
        return {
            "events": self.events.total(),
            "collections": dict(sorted(self.events.items())),
            "dead_letters": self.dead_letters,
            "archives": {url: each._asdict() for url, each in sorted(self.archives.items())},
            "related_events": self.related,
            "mentions": self.mentions,
            "problems": self.problems,
        }

    def lines(self, done: str) -> Iterator[str]:
        """Yield them as text; ``done`` says what was done, such as ``deleted``."""
        yield f"events {done}: {self.events.total()}"
        yield from (f"  {name}: {count}" for name, count in sorted(self.events.items()))
        yield f"dead letters {done}: {self.dead_letters}"
        for url, each in sorted(self.archives.items()):
            yield (
                f"{url}: events {done}: {each.events} (objects rewritten: {each.rewritten}, "
                f"objects deleted: {each.deleted})"
            )
        if self.related:
            yield (
                f"events that stay, with the same address or user id: {self.related} (to erase "
                "them too, give both --email and --user-id)"
            )
        if self.mentions:
            yield f"events of other recipients that mention an address, and stay: {self.mentions}"


def erase(
    store: str,
    people: Sequence[Identity],
    archives: Sequence[str] = (),
    *,
    suppress: bool | None = None,
    rewrite: bool = False,
    dry_run: bool = False,
    confirm: Callable[[Figures], None] | None = None,
) -> Figures:
    """Erase people, and finish whatever erasure broke off before.

    Safe beside running collectors and taps. Broken off, the next one with the same people goes on.

    Args:
        store: The store's URL.
        people: Their addresses and user ids.
        archives: URLs of archives beside those that the store has been exported to.
        suppress: Whether what comes later is dropped; None: as it was, or no.
        rewrite: Whether PostgreSQL's tables are written anew, while collectors and taps wait.
        dry_run: Only look.
        confirm: Called with what would be deleted; raises where that is not wanted. None: nobody
            is asked, and it begins at once.

    Returns:
        What was deleted, or with ``dry_run`` would be; ``problems`` says what is left to do.

    Raises:
        SettingError: The store or an archive cannot be opened.
        StoreError: The store failed.
    """
    with open_reader(store, "store") as reader:
        writer = open_writer(store, "store")
        try:
            erasing = _Erasing(reader, writer, archives)
            known = writer.erased_people()
            if dry_run or confirm is not None:
                found = erasing.look(known.of(people), people)
                if dry_run or confirm is None:
                    return found
                confirm(found)
            writer.begin_erasure({known.digest(one): None for one in people}, suppress=suppress)
            return erasing.finish(people, rewrite=rewrite)
        finally:
            writer.close()


def finish_erasures(store: str) -> Figures | None:
    """Finish erasures that were only begun; None: there are none.

    Raises:
        SettingError: The store or an archive cannot be opened.
        StoreError: The store failed.
    """
    with open_reader(store, "store") as reader:
        if not reader.erasure_figures().unfinished:
            return None
        writer = open_writer(store, "store")
        try:
            return _Erasing(reader, writer, ()).finish()
        finally:
            writer.close()


class _Around:
    """What stands around the events of people who are to be erased.

    Args:
        given: The people, as they were given; nobody: nothing is looked for.

    Attributes:
        given: They.
        identities: All addresses and user ids in their events.
        mentions: Events of others in which an address of theirs stands.
    """

    def __init__(self, given: Sequence[Identity]) -> None:
        self.given = set(given)
        self.identities: set[Identity] = set()
        self.mentions = 0
        self._addresses = {one for one in given if one.kind == "address"}
        self._texts = [one.value.encode() for one in self._addresses]

    def is_mentioned(self, line: bytes) -> bool:
        """Return whether an address of theirs stands in an event, also as part of a URL."""
        if b"%40" in line:
            line = unquote(line)
        if len(self._texts) <= FEW:
            lowered = line.lower()
            if not any(text in lowered for text in self._texts):
                return False
        return not self._addresses.isdisjoint(addresses_in(line.decode(errors="replace")))


class _Erasing:
    """Erases people from a store and its archives."""

    def __init__(self, reader: Reader, writer: Writer, archives: Sequence[str]) -> None:
        self._reader = reader
        self._writer = writer
        exported = [*reader.exports(), *reader.planned_exports()]
        # Of what was named, everything has to be there before anything is deleted.
        self._archives = {url: Objects(url, {}, "--archive") for url in archives}
        self._exported = [url for url in dict.fromkeys(exported) if url not in self._archives]

    def look(self, people: ErasedPeople, given: Sequence[Identity]) -> Figures:
        """Return what there is of people."""
        figures = Figures()
        mark = self._reader.high_water() or 0
        around = _Around(given)
        for call, _ in self._events_of(people, 0, mark, around):
            figures.events[BY_EVENT[call.event].stream] += 1
        self._count_around(around, people, figures)
        figures.dead_letters = sum(len(page) for page in self._letters(people))
        self._erase_from_archives(people, figures, dry_run=True)
        return figures

    def finish(self, given: Sequence[Identity] = (), *, rewrite: bool = False) -> Figures:
        """Erase everybody whose erasure is not finished; look for more of those who were given."""
        began = time.monotonic()
        figures = Figures()
        people = self._writer.erased_people().unfinished()
        mark = self._reader.high_water() or 0
        around = _Around(given)
        self._delete_events(people, 0, mark, around, figures)
        self._delete_letters(people, figures)
        self._erase_from_archives(people, figures)
        if any(each.suppress for each in people):
            time.sleep(max(0.0, began + COLLECTORS_KNOW - time.monotonic()))
        # What was on its way into the store meanwhile.
        self._delete_events(people, mark, self._reader.high_water() or 0, around, figures)
        self._delete_letters(people, figures)
        self._count_around(around, people, figures)
        if problem := self._writer.scrub(rewrite=rewrite):
            figures.problems.append(problem)
        figures.problems += [
            f"an export to {url} is under way, or broke off: run `vero-collector export --to "
            f"{url}`, then this again{_gone(url)}"
            for url in self._reader.planned_exports()
        ]
        if not figures.problems:
            self._writer.finish_erasures([each.digest for each in people])
        return figures

    def _pages(self, after: int, until: int) -> Iterator[list[tuple[TrackCall, bytes]]]:
        while after < until and (lines := self._reader.lines(after, until, PAGE)):
            calls = [(decode(line), line) for line in lines]
            yield calls
            after = times.from_text(calls[-1][0].loaded_at or "")

    def _events_of(
        self, people: ErasedPeople, after: int, until: int, around: _Around
    ) -> Iterator[tuple[TrackCall, Erasure]]:
        """Yield the events of people, each with whose it is; look around on the way."""
        for calls in self._pages(after, until) if people else ():
            for call, line in calls:
                identities = identities_of(call)
                if found := _find(people, call, identities):
                    around.identities |= identities
                    yield call, found
                elif around.is_mentioned(line):
                    around.mentions += 1

    def _count_around(self, around: _Around, people: ErasedPeople, figures: Figures) -> None:
        """Count the events that stay though they may be of the same people."""
        figures.mentions = around.mentions
        others = people.of(around.identities - around.given if around.given else ())
        for calls in self._pages(0, self._reader.high_water() or 0) if others else ():
            for call, _ in calls:
                identities = identities_of(call)
                if _find(others, call, identities) and not _find(people, call, identities):
                    figures.related += 1

    def _delete_events(
        self, people: ErasedPeople, after: int, until: int, around: _Around, figures: Figures
    ) -> None:
        waiting: list[Deletion] = []
        for call, found in self._events_of(people, after, until, around):
            loaded_at = times.from_text(call.loaded_at or "")
            waiting.append(Deletion(loaded_at, call.message_id, found.digest))
            if len(waiting) >= PAGE:
                figures.events += self._delete(waiting)
                waiting = []
        if waiting:
            figures.events += self._delete(waiting)

    def _delete(self, deletions: list[Deletion]) -> Counter[str]:
        with throttled():
            return self._writer.erase(deletions)

    def _delete_letters(self, people: ErasedPeople, figures: Figures) -> None:
        for page in self._letters(people):
            with throttled():
                figures.dead_letters += self._writer.erase_letters(page)

    def _letters(self, people: ErasedPeople) -> Iterator[dict[int, bytes]]:
        """Yield the numbers of people's dead letters, each with whose it is."""
        after = 0
        while people and (page := self._reader.dead_letters(after, LETTERS)):
            found = {
                kept.number: owner.digest
                for kept in page
                if (owner := people.find(identities_in(kept.letter.body), kept.letter.received_at))
            }
            if found:
                yield found
            after = page[-1].number

    def _erase_from_archives(
        self, people: ErasedPeople, figures: Figures, *, dry_run: bool = False
    ) -> None:
        """Erase people from the archives; one that is gone is a problem, and costs the others none.

        Raises:
            SettingError: One that was named cannot be looked at, before anything is deleted.
        """
        for url in (*self._archives, *self._exported):
            try:
                objects = self._archives.get(url) or Objects(url, {}, "archive")
                figures.archives[url] = erase_from(objects, people, dry_run=dry_run)
            except DamagedError as error:
                figures.problems.append(f"{url}: an object cannot be read: {error}")
            except SettingError as error:
                if dry_run and url in self._archives:
                    raise
                figures.problems.append(f"{error}{'' if url in self._archives else _gone(url)}")


def _gone(url: str) -> str:
    return f" (if this archive is gone for good: `vero-collector export --forget {url}`)"


def _find(people: ErasedPeople, call: TrackCall, identities: set[Identity]) -> Erasure | None:
    """Return the erasure that covers a stored event: it came before, or is of before."""
    moments = (call.received_at, call.loaded_at or call.received_at)
    return people.find(identities, times.from_text(min(moments)))


def check_people(people: Sequence[Identity]) -> None:
    """See that there is somebody to erase.

    Raises:
        UserError: There is not.
    """
    if not people:
        msg = "say whom to erase: --email ADDRESS, --user-id ID or --emails-from FILE"
        raise UserError(msg)
    if not all(one.value.strip() for one in people):
        msg = "an address or user id to erase is empty: give one that is not"
        raise UserError(msg)
