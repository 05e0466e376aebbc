"""Dead letters of a store, page by page, so that memory does not depend on how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tap_vero_segment.stores.base import KeptLetter, Reader

PAGE: Final = 20
"""Letters that are read together; each may be as long as a request's body."""


def every_letter(reader: Reader) -> Iterator[KeptLetter]:
    """Yield all dead letters, in order of their numbers."""
    after = 0
    while page := reader.dead_letters(after, PAGE):
        yield from page
        after = page[-1].number


def letter_of(reader: Reader, number: int) -> KeptLetter | None:
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
    if missing := [number for number in sorted(set(numbers)) if letter_of(reader, number) is None]:
        raise not_there(missing)


def not_there(numbers: Sequence[int]) -> UserError:
    """Return the error that tells of numbers, one or more, of no dead letter."""
    named = ", ".join(map(str, numbers))
    return UserError(f"there is no dead letter {named}, so nothing was done")


def letters_of(reader: Reader, numbers: Iterable[int]) -> Iterator[KeptLetter]:
    """Yield the dead letters of some numbers; those that are not there are passed over."""
    for number in sorted(set(numbers)):
        kept = letter_of(reader, number)
        if kept is not None:
            yield kept
