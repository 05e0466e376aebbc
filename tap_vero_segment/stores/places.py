"""Where each kind of store is, in words for a log. A new store is a row here, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment.stores.sqlite.connection import path_of
from tap_vero_segment.stores.urls import by_scheme, needed

if TYPE_CHECKING:
    from collections.abc import Callable


def _sqlite(url: str, setting: str) -> str:
    return str(path_of(url, setting).absolute())


def _postgres(url: str, setting: str) -> str:
    with needed(setting):
        from tap_vero_segment.stores.postgres.connection import place_of  # noqa: PLC0415

    return place_of(url, setting)


PLACES: Final[dict[str, Callable[[str, str], str]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
}


def place_of(url: str, setting: str) -> str:
    """Return where the store is that a URL names: no user and no password.

    Args:
        url: The store's URL.
        setting: The setting that the URL came from, for errors.

    Returns:
        The absolute path of a file; a database and its server.

    Raises:
        SettingError: The URL names no store.
    """
    return by_scheme(PLACES, url, setting)(url, setting)
