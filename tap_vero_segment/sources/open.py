"""Which source a URL means. A new source is a module beside this one and a row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from tap_vero_segment.errors import SettingError, check_pasted
from tap_vero_segment.sources.base import SETTING, SourceSettings
from tap_vero_segment.sources.http import HttpSource
from tap_vero_segment.sources.store import StoreSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.sources.base import Source

Kind = Literal["collector", "archive"]
"""What gives events their ``loaded_at``: bookmarks of two kinds cannot be compared."""


def _http(settings: SourceSettings) -> Source:
    return HttpSource(settings.url, settings.token or "")


def _store(settings: SourceSettings) -> Source:
    return StoreSource(settings.url)


def _archive(settings: SourceSettings) -> Source:
    # obstore takes a tenth of a second to import, which no other source should cost.
    from tap_vero_segment.sources.archive import ArchiveSource  # noqa: PLC0415

    return ArchiveSource(settings)


SOURCES: Final[dict[str, Callable[[SourceSettings], Source]]] = {
    "sqlite": _store,
    "postgresql": _store,
    "postgres": _store,
    "http": _http,
    "https": _http,
    "s3": _archive,
    "gs": _archive,
    "az": _archive,
    "file": _archive,
}

_FORMS: Final = (
    "sqlite:///relative.db or sqlite:////absolute.db (a collector's file), "
    "postgresql://… (collectors' shared store), "
    "http(s)://host (a collector's read API), "
    "or s3://, gs://, az:// or file:/// (a Segment archive)"
)


def check(settings: SourceSettings) -> None:
    """Say what can be said of a source without touching it.

    Raises:
        SettingError: No source has this URL's scheme, or what that source needs is missing.
    """
    check_pasted(SETTING, settings.url)
    scheme = _scheme(settings.url)
    if scheme not in SOURCES:
        found = "a URL with another scheme" if scheme else "a URL without a scheme"
        raise SettingError(SETTING, f"{found}; it is {_FORMS}")
    if SOURCES[scheme] is _http:
        if not settings.token:
            raise SettingError("token", "an http(s) source needs the collector's read token")
        check_pasted("token", settings.token)
        if not (settings.token.isascii() and settings.token.isprintable()):
            raise SettingError("token", "it holds a line end, or what else no token holds")


def is_archive(url: str) -> bool:
    """Whether a source is an archive, whose objects can be read apart from each other."""
    return SOURCES.get(_scheme(url)) is _archive


def kind_of(url: str) -> Kind:
    """Return the kind of a source; a collector's stores and its read API are one kind."""
    return "archive" if is_archive(url) else "collector"


def open_source(settings: SourceSettings) -> Source:
    """Open the source that the settings name.

    Raises:
        SettingError: It cannot be opened.
    """
    check(settings)
    return SOURCES[_scheme(settings.url)](settings)


def open_trial(settings: SourceSettings) -> Source:
    """Open the source that the settings name, to look at its first pages only.

    Raises:
        SettingError: It cannot be opened.
    """
    check(settings)
    if not is_archive(settings.url):
        return open_source(settings)  # which reads no more than the pages that are taken
    from tap_vero_segment.sources.archive_trial import ArchiveTrial  # noqa: PLC0415

    return ArchiveTrial(settings)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError as error:
        raise SettingError(SETTING, f"no URL at all; it is {_FORMS}") from error
