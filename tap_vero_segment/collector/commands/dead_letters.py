"""``vero-collector dead-letters list``, ``show``, ``delete``: what could not be read or mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collector.redaction import readable
from tap_vero_segment.errors import UserError
from tap_vero_segment.stores.base import LAST_LETTER, throttled
from tap_vero_segment.stores.open import open_reader, open_writer
from tap_vero_segment.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tap_vero_segment.stores.base import KeptDeadLetter, Reader, Writer


def list_dead_letters(store: str, *, by_reason: bool, as_json: bool) -> Iterator[str]:
    """Describe each dead letter in a line, without its body; as JSON an object a line.

    Args:
        store: The store's URL.
        by_reason: Describe the reasons instead, and how many dead letters each has.
        as_json: Write JSON.

    Raises:
        SettingError: There is no such store.
        StoreError: It cannot be read.
    """
    with open_reader(store, "store") as reader:
        if by_reason:
            yield from _reasons(reader, as_json=as_json)
            return
        first = True
        for kept in every_dead_letter(reader):
            facts = _facts(kept)
            if first and not as_json:
                yield _row("number", "received_at", "input", "bytes", "reason")
            first = False
            yield msgspec.json.encode(facts).decode() if as_json else _row(*facts.values())
        if first and not as_json:
            yield "There are no dead letters."


def _reasons(reader: Reader, *, as_json: bool) -> Iterator[str]:
    names = ("dead_letters", "oldest", "newest", "reason")
    rows = [
        (each.letters, times.to_text(each.oldest), times.to_text(each.newest), each.reason)
        for each in reader.letter_groups()
    ]
    if as_json:
        yield from (
            msgspec.json.encode(dict(zip(names, row, strict=True))).decode() for row in rows
        )
    elif rows:
        for count, oldest, newest, reason in [names, *rows]:
            yield printable(f"{count:>12}  {oldest:27}  {newest:27}  {reason}")
    else:
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


def delete_dead_letters(
    store: str,
    numbers: Sequence[int],
    reason: str | None = None,
    confirm: Callable[[str], None] = lambda _: None,
) -> str:
    """Delete dead letters; return what was done, in a line.

    Args:
        store: The store's URL.
        numbers: Which ones: all that are named, or none where a number has none; empty: all that
            are there now.
        reason: Of those only the ones of this reason.
        confirm: Asks whether to go on; raises where not.

    Raises:
        SettingError: The store cannot be opened.
        StoreError: The store failed.
        UserError: There is no letter of one of the numbers, or of the reason; nothing was deleted.
    """
    with open_reader(store, "store") as reader:
        check_there(reader, numbers)
        those = sorted(set(numbers)) if numbers else numbers_of(reader, reason)
    confirm(f"Delete {len(those)} dead letters for good?")
    writer = open_writer(store, "store")
    deleted = 0
    try:
        if numbers and (missing := writer.discard(those)):  # another process has been quicker
            raise not_there(missing)
        for begin in range(0, 0 if numbers else len(those), DELETED_AT_ONCE):
            with throttled():
                deleted += discard_those_left(writer, those[begin : begin + DELETED_AT_ONCE])
    finally:
        writer.close()
    if numbers:
        return f"dead letters deleted: {len(those)} ({', '.join(map(str, those))})"
    return f"dead letters deleted: {deleted}"


def discard_those_left(writer: Writer, numbers: Sequence[int]) -> int:
    """Delete dead letters as far as they are still there; return how many were.

    Raises:
        StoreError: The store failed; nothing was deleted.
    """
    missing = set(writer.discard(numbers))
    left = [number for number in numbers if number not in missing]
    if missing and left:
        writer.discard(left)
    return len(left)


def numbers_of(reader: Reader, reason: str | None) -> list[int]:
    """Return the numbers of all dead letters of a reason, or of any, the newest first.

    Raises:
        StoreError: Who reads may see no dead letters, or they cannot be read.
        UserError: There is none of the reason.
    """
    known = [group.reason for group in reader.letter_groups()]
    if reason is not None and reason not in known:
        msg = (
            "there is no dead letter of that reason, so nothing was done: "
            "`vero-collector dead-letters list --by-reason` prints the reasons"
        )
        raise UserError(msg)
    numbers: list[int] = []
    before = LAST_LETTER
    while heads := reader.letter_heads(HEADS, before, reason):
        numbers += [head.number for head in heads]
        before = heads[-1].number
    return numbers


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


HEADS: Final = 1_000
"""Dead letters that are listed together, without their bodies."""

DELETED_AT_ONCE: Final = 200
"""Dead letters that are deleted in one transaction; a collector beside waits meanwhile."""

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
