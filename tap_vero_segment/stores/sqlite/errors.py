"""The meaning of SQLite's errors."""

from __future__ import annotations

from typing import Final

import apsw

from tap_vero_segment.stores.base import (
    StoreBrokenError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)

RESTORE: Final = (
    "to restore a backup, stop the collector and run `vero-collector restore --replace FILE`"
)
"""What to do about damage. A log of a newer file beside the copy would be read as the copy's."""

_BROKEN: Final = (
    apsw.IOError,
    apsw.NotADBError,
    apsw.InternalError,
    apsw.NoMemError,
)


def damaged(what: str) -> StoreBrokenError:
    """Return the error that tells of damage, and what to do."""
    return StoreBrokenError(f"the store is damaged: {what}; {RESTORE}")


def store_error(error: apsw.Error) -> StoreError:
    """Say what an SQLite error means for the process that met it."""
    # apsw's messages are SQLite's own: they name tables and files, never values.
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, apsw.CorruptError):
        return damaged(f"SQLite says {error}")
    if isinstance(error, apsw.FullError):
        return StoreFullError(text)
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return StoreBusyError(text)
    if isinstance(error, _BROKEN):
        return StoreBrokenError(text)
    return StoreError(text)
