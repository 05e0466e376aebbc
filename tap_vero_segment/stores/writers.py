"""The writing half of each kind of store.

A new store is a row here, in ``readers`` and in ``places``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment.stores.sqlite.writer import SqliteWriter
from tap_vero_segment.stores.urls import by_scheme, needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Writer


def _postgres(url: str, setting: str) -> Writer:
    with needed(setting):
        from tap_vero_segment.stores.postgres.writer import PostgresWriter  # noqa: PLC0415

    return PostgresWriter(url, setting)


WRITERS: Final[dict[str, Callable[[str, str], Writer]]] = {
    "sqlite": SqliteWriter,
    "postgresql": _postgres,
    "postgres": _postgres,
}


def open_writer(url: str, setting: str) -> Writer:
    """Open the writing half of the store that a URL names; make the store where there is none.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Raises:
        SettingError: The URL names no store that can be written.
    """
    return by_scheme(WRITERS, url, setting)(url, setting)
