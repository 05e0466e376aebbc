"""Which store a URL means."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tap_vero_segment.errors import SettingError
from tap_vero_segment.extras import importing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

T = TypeVar("T")


def by_scheme(table: Mapping[str, T], url: str, setting: str) -> T:
    """Return what a table has for a URL's scheme.

    Raises:
        SettingError: It has nothing for it; the message lists what it has.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in table:
        known = " or ".join(f"{name}://" for name in table)
        found = f"not {scheme}://" if separator else "and this one has no scheme"
        raise SettingError(setting, f"a URL here begins with {known}, {found}")
    return table[scheme]


def needed(setting: str) -> AbstractContextManager[None]:
    """Import what PostgreSQL needs, which is an extra.

    Raises:
        SettingError: It is not installed.
    """
    problem = "PostgreSQL needs pip install 'tap-vero-segment[postgres]'"
    return importing(SettingError(setting, problem))
