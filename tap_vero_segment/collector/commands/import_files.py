"""``vero-collector import``: webhooks that others have kept become events of the store."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tap_vero_segment import times, track
from tap_vero_segment.collection import BY_EVENT, COLLECTIONS
from tap_vero_segment.errors import UserError
from tap_vero_segment.inputs.files import (
    BODY_FIELD,
    UnreadableError,
    find_files,
    read_records,
)
from tap_vero_segment.inputs.ids import ALIKE, canonical_json
from tap_vero_segment.inputs.intake import IMPORT, UNDATED, read_record
from tap_vero_segment.limits import MAX_BODY
from tap_vero_segment.record import as_text
from tap_vero_segment.stores.base import DeadLetter, throttled
from tap_vero_segment.stores.open import location_of, open_reader, open_writer
from tap_vero_segment.terminal import progress, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tap_vero_segment.inputs.files import HistoryFile, Record
    from tap_vero_segment.inputs.history import Wrapping
    from tap_vero_segment.stores.base import Event, Found, Reader, Writer
    from tap_vero_segment.stores.erasures import ErasedPeople
    from tap_vero_segment.track import TrackCall

logger = logging.getLogger("vero-collector")

BATCH: Final = 500
"""Records that are written together, in a transaction that is short."""
BATCH_BYTES: Final = 4_000_000

REASONS: Final = 10
"""Reasons of dead letters that are counted each by itself."""

CUT: Final = 252
"""Bytes of text from which on a table may have cut it: Snowplow keeps 255 characters, Redshift 255
bytes, of which the last character can take four."""

_FRONT: Final = 13
"""Characters of an id that tell its time."""


class Report(NamedTuple):
    """What an import has done.

    Attributes:
        text: A fact a line.
        unread: Why files could not be read, or not to their ends.
    """

    text: str
    unread: list[str]


def import_files(
    store: str,
    sources: Sequence[str],
    wrapping: Wrapping,
    file_format: str | None = None,
    *,
    dry_run: bool = False,
) -> Report:
    """Bring files of webhooks into a store; what is there already is left as it is.

    Safe beside a running collector. Broken off, the next one goes on: what is there is only read.

    Args:
        store: The store's URL.
        sources: Paths, URLs and patterns of files and folders.
        wrapping: What the user says of the records.
        file_format: The files' format; None: their content tells.
        dry_run: Whether nothing is written, and only counted.

    Raises:
        StoreError: The store failed.
        UserError: The store cannot be opened, or a source names no files.
    """
    files = [file for source in sources for file in find_files(source)]
    unread = []
    with ExitStack() as opened:
        importing = _Importing(*_halves(store, opened, dry_run=dry_run))
        size = sum(file.size for file in files)
        advance = opened.enter_context(progress("importing", size, "bytes"))
        for file in files:
            try:
                importing.read(file, file_format, wrapping, advance)
            except UserError as error:
                unread.append(str(error))
    return Report(importing.described(dry_run=dry_run), unread)


def _halves(
    store: str, opened: ExitStack, *, dry_run: bool
) -> tuple[list[Reader], Writer, Callable[[], ErasedPeople]]:
    """Open a store to read and to write; return what looks up who was erased as well.

    What a dry run would write goes to another one, deleted at its end, which is read as well.
    """
    readers = []
    written = store
    erased_people = None
    if dry_run:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        written = f"sqlite:///{folder}/dry-run.db"
        if not store.startswith("sqlite:") or Path(location_of(store, "store")).exists():
            readers.append(opened.enter_context(open_reader(store, "store")))
            with closing(open_writer(store, "store")) as real:
                people = real.erased_people()
            erased_people = lambda: people  # noqa: E731  # as of now
        else:
            logger.warning("there is no such store yet: all events count as new")
    writer = open_writer(written, "store")
    opened.callback(writer.close)
    readers.append(opened.enter_context(open_reader(written, "store")))
    return readers, writer, erased_people or writer.erased_people


class _Importing:
    """Writes what files hold, batch by batch, and counts it."""

    def __init__(
        self,
        readers: Sequence[Reader],
        writer: Writer,
        erased_people: Callable[[], ErasedPeople],
    ) -> None:
        self._readers = readers
        self._writer = writer
        self._erased_people = erased_people
        self._batch: list[Event] = []
        self._letters: list[DeadLetter] = []
        self._size = 0
        self._ignored = 0
        self._known: Counter[str] = Counter()
        self._new: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._erased = 0
        self._name = ""  # the present file's
        self._unseen: dict[str, str] = {}  # fields that no record of it has had so far, by options

    def read(
        self,
        file: HistoryFile,
        file_format: str | None,
        wrapping: Wrapping,
        advance: Callable[[int], None],
    ) -> None:
        """Read a file to its end.

        Raises:
            StoreError: The store failed.
            UserError: It cannot be read, or not to its end; what came before is stored.
        """
        given = {BODY_FIELD: wrapping.body_field, "--received-field": wrapping.received_field}
        named = {option: name for option, name in given.items() if name is not None}
        self._name, self._unseen = file.name, named.copy()
        try:
            for record in read_records(file, file_format, named, advance):
                self._take(record, wrapping)
        finally:
            self._write()

    def _take(self, record: Record, wrapping: Wrapping) -> None:
        where = f"{self._name}: {record.where}"
        if record.problem is not None:
            self._bury(DeadLetter(UNDATED, IMPORT, f"{where}: {record.problem}", record.raw))
            return
        several = isinstance(record.content, list)
        for content in record.content if several else [record.content]:
            raw = b"" if several else record.raw
            if self._unseen and isinstance(content, dict):
                has = {name.lower() for name in content}
                self._unseen = {
                    option: name for option, name in self._unseen.items() if name.lower() not in has
                }
            found = read_record(content, raw, where, wrapping, exact=record.exact)
            if found.event is not None:
                self._batch.append(found.event)
                self._size += len(found.event.call) + len(found.event.body or b"")
            elif found.letter is not None:
                self._bury(found.letter)
            else:
                self._ignored += 1
            if len(self._batch) >= BATCH or self._size >= BATCH_BYTES:
                self._write()

    def _bury(self, letter: DeadLetter) -> None:
        letter = letter._replace(body=letter.body[:MAX_BODY])
        self._letters.append(letter)
        self._size += len(letter.body)
        if len(self._letters) >= BATCH or self._size >= BATCH_BYTES:
            self._write()

    def _write(self) -> None:
        """Store what was collected.

        Raises:
            StoreError: The store failed.
            UnreadableError: A field that was named is nowhere in it; nothing of it is stored.
        """
        events, letters = self._batch, self._letters
        self._batch, self._letters, self._size = [], [], 0
        if not events and not letters:
            return
        for option in self._unseen:
            problem = f"its first records have no field with the name given by {option}"
            raise UnreadableError(problem, self._name)
        self._unseen = {}
        kept, wanted, dropped = self._erased_people().without(events, letters)
        self._erased += dropped
        fresh = self._fresh(kept)
        self._known.update(event.collection for event in kept)
        if fresh or wanted or dropped:
            with throttled():
                self._writer.write(fresh, wanted)
                self._writer.count_dropped(dropped)
        self._new.update(event.collection for event in fresh)
        self._reasons.update(letter.reason.rpartition(": ")[2] for letter in wanted)

    def _fresh(self, events: Sequence[Event]) -> list[Event]:
        """Return the events that are not stored yet, each once."""
        held: dict[str, int] = {}
        ids = [each for event in events for each in (event.id, *event.alike)]
        for reader in self._readers:
            held |= reader.received(ids)
        fresh = []
        for event in events:
            near = (held.get(each) for each in event.alike)
            if event.id in held or any(
                at is not None and abs(at - event.received_at) <= ALIKE for at in near
            ):
                continue
            held[event.id] = event.received_at
            fresh.append(event)
        rebuilt = [event for event in fresh if event.input != IMPORT]
        stored = self._stored_otherwise(rebuilt)
        return [event for event in fresh if event.id not in stored]

    def _stored_otherwise(self, events: Sequence[Event]) -> set[str]:
        """Return the ids of rebuilt events that are stored with the payload that was posted.

        Or with what another kind of table has made of it. A payload that was put together from a
        table has rarely all that was posted, and so another id. It is the same event where its
        collection, its time and its recipient are the same and nothing that both have differs.
        """
        calls = {event.id: _Comparable(event) for event in events}
        by_recipient: dict[tuple[str, str], list[_Comparable]] = {}
        for call in calls.values():
            for recipient in call.recipients:
                by_recipient.setdefault((call.collection, recipient), []).append(call)
        fronts = sorted({front for call in calls.values() for front in call.fronts})
        same = set()
        for found in self._beginning(fronts):
            stored = track.decode(found.call)
            collection = BY_EVENT[stored.event].stream
            for recipient in _recipients(stored):
                for call in by_recipient.get((collection, recipient), ()):
                    if call.input != found.input and call.is_same(found.id, stored):
                        same.add(call.id)
        return same

    def _beginning(self, fronts: Sequence[str]) -> Iterator[Found]:
        for reader in self._readers if fronts else ():
            after = ""
            while page := reader.beginning(fronts, after):
                yield from page
                after = page[-1].id

    def described(self, *, dry_run: bool) -> str:
        """Return what was done, or would be; a fact a line."""
        new, known = self._new, self._known - self._new
        rows = [
            (collection.stream, str(new[collection.stream]), str(known[collection.stream]))
            for collection in COLLECTIONS
            if new[collection.stream] or known[collection.stream]
        ]
        done = "would be imported" if dry_run else "imported"
        lines = [
            *(table(("collection", "new", "stored already"), rows) if rows else ()),
            f"new events {done}: {new.total()}",
            f"events that were stored already: {known.total()}",
            f"dead letters: {self._reasons.total()}",
            *(f"  {count} ({reason})" for reason, count in self._reasons.most_common(REASONS)),
            f"ignored records (not Vero events): {self._ignored}",
            *([f"dropped, as of erased people: {self._erased}"] if self._erased else ()),
        ]
        return "\n".join(lines)


class _Comparable:
    """A rebuilt event, taken apart to compare it."""

    def __init__(self, event: Event) -> None:
        self.id = event.id
        self.input = event.input
        self.collection = event.collection
        self._received_at = event.received_at
        self._call = track.decode(event.call)
        self._timeless = bool(event.alike)
        self.recipients = _recipients(self._call)
        # An id begins with the event's time, or the time of its receipt.
        self.fronts = (
            {each[:_FRONT] for each in (event.id, *event.alike)} if self.recipients else ()
        )

    def is_same(self, event_id: str, stored: TrackCall) -> bool:
        """Whether another event of its collection and recipient is the same one."""
        if event_id[:_FRONT] != self.id[:_FRONT]:
            apart = abs(times.from_text(stored.received_at) - self._received_at)
            if not self._timeless or apart > ALIKE:
                return False
        return (
            _agree(self._call.user_id, stored.user_id)
            and _agree(self._call.context, stored.context)
            and _agree(self._call.properties, stored.properties)
        )


def _recipients(call: TrackCall) -> set[str]:
    """Return what tells who a call is about: the user's id, the address."""
    email = ((call.context or {}).get("traits") or {}).get("email")
    return {str(each) for each in (call.user_id, call.anonymous_id, email) if each}


def _agree(one: Any, other: Any) -> bool:
    """Whether nothing differs that both have; a table may have cut text off."""
    if one is None or other is None:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_agree(one[name], other[name]) for name in one.keys() & other.keys())
    shorter, longer = sorted((_text(one), _text(other)), key=len)
    return longer == shorter or (len(shorter) >= CUT and longer.startswith(shorter))


def _text(value: Any) -> bytes:
    text = as_text(value)
    return canonical_json(value) if text is None else text.encode(errors="replace")
