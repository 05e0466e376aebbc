"""``vero-collector dead-letters list``, ``show``, ``delete``: what could not be read or mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.redaction import readable
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tap_vero_segment.stores.base import KeptDeadLetter, Reader


def list_dead_letters(store: str, *, as_json: bool) -> Iterator[str]:
    """Describe each dead letter in a line, without its body; as JSON an object a line.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
    """
    with open_reader(store, "store") as reader:
        first = True
        for kept in every_dead_letter(reader):
            facts = _facts(kept)
            if first and not as_json:
                yield _row("number", "received_at", "input", "bytes", "reason")
            first = False
            yield msgspec.json.encode(facts).decode() if as_json else _row(*facts.values())
        if first and not as_json:
            yield "There are no dead letters."


def show_dead_letter(store: str, number: int, secrets: Iterable[str]) -> str:
    """Describe a dead letter, its body included, for a terminal.

    Args:
        store: The store's URL.
        number: The letter's.
        secrets: What is not shown, wherever it stands.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
        UserError: It has no such letter.
    """
    kept = _letter(store, number)
    facts = "\n".join(f"{name}: {value}" for name, value in _facts(kept).items())
    return printable(f"{facts}\n\n{readable(kept.letter.body, secrets)}")


def body_of(store: str, number: int) -> bytes:
    """Return the body of a dead letter as it came.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
        UserError: It has no such letter.
    """
    return _letter(store, number).letter.body


def delete_dead_letters(store: str, numbers: Sequence[int]) -> str:
    """Delete dead letters, all of them or none; return what was done, in a line.

    Raises:
        SettingError: The store cannot be opened.
        StoreError: The store failed; nothing was deleted.
        UserError: There is no letter of one of the numbers; nothing was deleted.
    """
    with open_reader(store, "store") as reader:
        check_there(reader, numbers)
    writer = open_writer(store, "store")
    try:
        missing = writer.discard(numbers)
    finally:
        writer.close()
    if missing:  # another process has been quicker
        raise not_there(missing)
    named = sorted(set(numbers))
    return f"dead letters deleted: {len(named)} ({', '.join(map(str, named))})"


def _letter(store: str, number: int) -> KeptDeadLetter:
    with open_reader(store, "store") as reader:
        kept = find_dead_letter(reader, number)
    if kept is None:
        msg = f"there is no dead letter {number}"
        raise UserError(msg)
    return kept


def _facts(kept: KeptDeadLetter) -> dict[str, int | str]:
    letter = kept.letter
    return {
        "number": kept.number,
        "received_at": times.to_text(letter.received_at),
        "input": letter.input,
        "bytes": len(letter.body),
        "reason": letter.reason,
    }


def _row(*cells: int | str) -> str:
    number, received_at, source, size, reason = cells
    return printable(f"{number:>8}  {received_at:27}  {source:8}  {size:>7}  {reason}")


PAGE: Final = 20
"""Letters that are read together; each may be as long as a request's body."""


def every_dead_letter(reader: Reader) -> Iterator[KeptDeadLetter]:
    """Yield all dead letters, in order of their numbers."""
    after = 0
    while page := reader.dead_letters(after, PAGE):
        yield from page
        after = page[-1].number


def find_dead_letter(reader: Reader, number: int) -> KeptDeadLetter | None:
    """Return the dead letter of a number, if there is one."""
    return next(
        (kept for kept in reader.dead_letters(number - 1, 1) if kept.number == number), None
    )


def check_there(reader: Reader, numbers: Iterable[int]) -> None:
    """See that there is a dead letter of each number, and that who reads may see it.

    Raises:
        StoreError: Who reads may see no dead letters, or they cannot be read.
        UserError: Of a number there is none.
    """
    reader.dead_letters(0, 1)
    if missing := [
        number for number in sorted(set(numbers)) if find_dead_letter(reader, number) is None
    ]:
        raise not_there(missing)


def not_there(numbers: Sequence[int]) -> UserError:
    """Return the error that tells of numbers, one or more, of no dead letter."""
    named = ", ".join(map(str, numbers))
    return UserError(f"there is no dead letter {named}, so nothing was done")


def find_dead_letters(reader: Reader, numbers: Iterable[int]) -> Iterator[KeptDeadLetter]:
    """Yield the dead letters of some numbers; numbers that have none are ignored."""
    for number in sorted(set(numbers)):
        kept = find_dead_letter(reader, number)
        if kept is not None:
            yield kept
