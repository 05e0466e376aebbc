"""The reading half of each kind of store.

A new store is a row here, in ``writers`` and in ``places``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment.stores.sqlite.reader import SqliteReader
from tap_vero_segment.stores.urls import by_scheme, needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Reader


def _postgres(url: str, setting: str) -> Reader:
    with needed(setting):
        from tap_vero_segment.stores.postgres.reader import PostgresReader  # noqa: PLC0415

    return PostgresReader(url, setting)


READERS: Final[dict[str, Callable[[str, str], Reader]]] = {
    "sqlite": SqliteReader,
    "postgresql": _postgres,
    "postgres": _postgres,
}


def open_reader(url: str, setting: str) -> Reader:
    """Open the reading half of the store that a URL names.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Raises:
        SettingError: The URL names no store that can be read.
    """
    return by_scheme(READERS, url, setting)(url, setting)
