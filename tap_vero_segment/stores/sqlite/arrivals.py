"""Counting events by the time when they came, in the embedded store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment.stores.base import (
    ARRIVALS_FINE,
    ARRIVALS_HOUR,
    ARRIVALS_KEPT,
    ARRIVALS_SLOT,
    Arrivals,
)

if TYPE_CHECKING:
    import apsw

_ADD: Final = """
INSERT INTO arrivals (start, collection, events) VALUES (?, ?, ?)
ON CONFLICT (start, collection) DO UPDATE SET events = events + excluded.events
"""
_FORGET: Final = "DELETE FROM arrivals WHERE start < ?"
_ADD_UP: Final = f"""
INSERT INTO arrivals (start, collection, events)
SELECT start - start % {ARRIVALS_HOUR} AS hour, collection, sum(events) FROM arrivals
WHERE start < ? AND start % {ARRIVALS_HOUR} > 0 GROUP BY hour, collection
ON CONFLICT (start, collection) DO UPDATE SET events = events + excluded.events
"""  # noqa: S608
_FORGET_FINE: Final = f"DELETE FROM arrivals WHERE start < ? AND start % {ARRIVALS_HOUR} > 0"  # noqa: S608
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
    """Delete the slots that are too old, and add up those of old hours, when a slot is begun."""
    newest = slot * ARRIVALS_SLOT
    connection.execute(_FORGET, (newest - ARRIVALS_KEPT,))
    whole = newest - ARRIVALS_FINE
    whole -= whole % ARRIVALS_HOUR
    connection.execute(_ADD_UP, (whole,))
    connection.execute(_FORGET_FINE, (whole,))


def read_arrivals(connection: apsw.Connection, after: int, step: int) -> list[Arrivals]:
    """Return what was counted for slots that begin at a time or later, added up by longer ones."""
    rows: list[Any] = connection.execute(_SINCE, (step, after)).fetchall()
    return [Arrivals(*row) for row in rows]
