"""Counting events by the time when they came, in the embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.stores.base import ARRIVALS_KEPT, ARRIVALS_SLOT, Arrivals

if TYPE_CHECKING:
    import apsw

_ADD: Final = """
INSERT INTO arrivals (start, collection, events) VALUES (?, ?, ?)
ON CONFLICT (start, collection) DO UPDATE SET events = events + excluded.events
"""
_FORGET: Final = "DELETE FROM arrivals WHERE start < ?"
_SINCE: Final = """
SELECT collection, start - start % ?1 AS slot, sum(events) FROM arrivals WHERE start >= ?2
GROUP BY slot, collection ORDER BY slot, collection
"""


def add_arrivals(connection: apsw.Connection, slot: int, collection: str, events: int) -> None:
    """Count events, in the transaction that stores them.

    Args:
        connection: In that transaction.
        slot: The number of their slot: their ``loaded_at`` over :data:`ARRIVALS_SLOT`.
        collection: The slug of their collection.
        events: How many there are.
    """
    connection.execute(_ADD, (slot * ARRIVALS_SLOT, collection, events))


def forget_arrivals(connection: apsw.Connection, slot: int) -> None:
    """Delete the slots that are too old, when a slot is begun."""
    connection.execute(_FORGET, (slot * ARRIVALS_SLOT - ARRIVALS_KEPT,))


def read_arrivals(connection: apsw.Connection, after: int, step: int) -> list[Arrivals]:
    """Return what was counted for slots that begin at a time or later, added up by longer ones."""
    rows: list[Any] = connection.execute(_SINCE, (step, after)).fetchall()
    return [Arrivals(*row) for row in rows]
