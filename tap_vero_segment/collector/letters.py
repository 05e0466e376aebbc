"""Dead letters of a store, page by page, so that memory does not depend on how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


def letters_of(reader: Reader, numbers: Iterable[int]) -> Iterator[KeptLetter]:
    """Yield the dead letters of some numbers; those that are not there are passed over."""
    for number in sorted(set(numbers)):
        kept = letter_of(reader, number)
        if kept is not None:
            yield kept
