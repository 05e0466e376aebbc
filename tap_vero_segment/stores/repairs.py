"""What takes back the events of each kind of store. A new store is a row here, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment.stores.sqlite.repair import repair_clock as _sqlite
from tap_vero_segment.stores.urls import by_scheme, needed

if TYPE_CHECKING:
    from collections.abc import Callable


def _postgres(url: str, setting: str) -> int:
    with needed(setting):
        from tap_vero_segment.stores.postgres.repair import repair_clock as repair  # noqa: PLC0415

    return repair(url, setting)


REPAIRS: Final[dict[str, Callable[[str, str], int]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
}


def repair_clock(url: str, setting: str) -> int:
    """Give events that were loaded in the future a ``loaded_at`` up to now, in the same order.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Returns:
        How many events there were.

    Raises:
        SettingError: The URL names no store that can be written.
        UserError: It is in use, and may not be.
        StoreError: The store failed. The next call goes on.
    """
    return by_scheme(REPAIRS, url, setting)(url, setting)
