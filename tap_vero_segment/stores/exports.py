"""What an archive has of a store's events, and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tap_vero_segment import times

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tap_vero_segment.stores.base import Exported


class Missing(NamedTuple):
    """Events that an archive lacks; all times are in microseconds since 1970.

    Attributes:
        after: Those with ``after < loaded_at``
        until: ``<= until``
        since: and ``since <= received_at``
        before: ``< before``.
    """

    after: int
    until: int
    since: int
    before: int


def missing(written: Sequence[Exported], wanted: Exported) -> list[Missing]:
    """Return what an archive lacks of what it is to have, in the order of ``loaded_at``.

    Args:
        written: What it has, in the order of ``until``.
        wanted: What it is to have.
    """
    found = []
    after = 0
    for has in written:
        until = min(has.until, wanted.until)
        if until > after and has.before < wanted.before:
            found.append(Missing(after, until, has.before, wanted.before))
        after = max(after, until)
    if wanted.until > after:
        found.append(Missing(after, wanted.until, times.EARLIEST, wanted.before))
    return found


def merged(written: Iterable[Exported]) -> list[Exported]:
    """Return what an archive has, in the order of ``until``, without what another item includes."""
    kept: list[Exported] = []
    for has in sorted(set(written), reverse=True):
        if not kept or has.before > kept[-1].before:
            kept.append(has)
    return kept[::-1]
