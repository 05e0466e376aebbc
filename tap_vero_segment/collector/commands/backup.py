"""``vero-collector backup`` and ``restore``: a store as one file, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tap_vero_segment import times
from tap_vero_segment.stores import open as stores

if TYPE_CHECKING:
    from pathlib import Path

    from tap_vero_segment.stores.base import Copied


def backup(store: str, file: Path) -> str:
    """Copy a store to a new file; return what was copied, in a line.

    Raises:
        SettingError: The store cannot be read, or is backed up otherwise.
        StoreError: It is damaged, or the disk is full.
        UserError: The file is there already, or cannot be written.
    """
    return f"{_text(stores.backup(store, 'store', file))} are in {file}"


def restore(store: str, file: Path, *, replace: bool) -> str:
    """Make a store of a copy; return what was restored, and what became of the store before.

    Raises:
        SettingError: The copy cannot be read, or the store is restored otherwise.
        StoreError: The copy is damaged, or the disk is full.
        UserError: There is a store already, or it is in use; or it cannot be written.
    """
    copied, aside = stores.restore(store, "store", file, replace=replace)
    line = f"{_text(copied)} are in {stores.location_of(store, 'store')}"
    return line if aside is None else f"{line}\nThe files that were there are now {aside}*"


def _text(copied: Copied) -> str:
    newest = "" if copied.newest is None else f" up to {times.to_text(copied.newest)}"
    return f"{copied.events} events{newest} and {copied.dead_letters} dead letters"
