"""The state of an earlier run: what it may look like, and what of it is used."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from tap_vero_segment import times
from tap_vero_segment.errors import UserError
from tap_vero_segment.singer.stream_maps import hint_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from tap_vero_segment.sources.open import Kind

    Bookmarks = dict[str, dict[str, Any]]

logger = logging.getLogger("tap-vero-segment")

BOOKMARKS: Final = "bookmarks"
KEY: Final = "replication_key"
VALUE: Final = "replication_key_value"
SOURCE: Final = "source"
"""What kind of source a bookmark is of: ``collector`` or ``archive``."""

_WRAPPERS: Final = ("completed", "singer_state", "value")
"""Keys that hold a state in what Meltano and targets write."""

_PARTIAL: Final = "partial"
"""What Meltano keeps of interrupted runs, to be laid over what the last complete run left."""

_WRAPPING: Final = frozenset({*_WRAPPERS, _PARTIAL, "type"})
_OF_OTHERS: Final = frozenset({"currently_syncing"})
"""Keys that the Singer specification knows, and that say nothing to this tap."""

_HINT: Final = 'a state is an object with "bookmarks", such as the last line that a target prints'


def read_state(
    state: Mapping[str, Any], streams: Collection[str], kind: Callable[[], Kind]
) -> Bookmarks:
    """Return the bookmarks of a state by stream, their times as fixed-width UTC text.

    Singer compares bookmarks as text; a state that was written by hand must compare too. What is
    not used is logged.

    Args:
        state: The state, or an object that wraps it: a STATE message, or what Meltano stores or
            ``meltano state get`` prints.
        streams: The streams that exist.
        kind: Returns the kind of the source; called if there is a bookmark. A bookmark that does
            not say of which kind it is, is taken for one of this kind.

    Raises:
        UserError: It is not a state, a bookmark is not a date or time, or it is of another kind of
            source.
    """
    bookmarks: Bookmarks = {}
    for found in _unwrapped(state):
        for stream, bookmark in _bookmarks_of(found).items():
            bookmarks[stream] = bookmarks.get(stream, {}) | bookmark
    used = {}
    for stream, bookmark in bookmarks.items():
        if stream not in streams:
            logger.warning(
                "state: there is no stream %s, so its bookmark is ignored%s",
                stream,
                hint_of(stream, streams),
            )
            continue
        used[stream] = _read(stream, bookmark)
    _check_kinds(used, kind)
    return used


def check_is_state(value: Any) -> None:
    """See that a value has the form of a state, wrapped or not.

    Raises:
        UserError: It has not.
    """
    for found in _unwrapped(value):
        _bookmarks_of(found)


def _unwrapped(state: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the states that an object holds, the later ones to be laid over the earlier."""
    if not isinstance(state, dict):
        msg = f"state: it is not an object; {_HINT}"
        raise UserError(msg)
    if BOOKMARKS in state or not state.keys() & _WRAPPING:
        yield state
        return
    if unknown := state.keys() - _WRAPPING:
        _warn_of_keys("state", unknown)
    inner = [state[name] for name in (*_WRAPPERS, _PARTIAL) if state.get(name) is not None]
    if not inner:
        msg = f"state: there is no state in it; {_HINT}"
        raise UserError(msg)
    for each in inner:
        yield from _unwrapped(each)


def _bookmarks_of(state: Mapping[str, Any]) -> Bookmarks:
    if BOOKMARKS not in state:
        if state.keys() <= _OF_OTHERS:
            return {}
        msg = f'state: it has no "bookmarks"; {_HINT}'
        raise UserError(msg)
    if unknown := state.keys() - {BOOKMARKS} - _OF_OTHERS - _WRAPPING:
        _warn_of_keys("state", unknown)
    bookmarks = state[BOOKMARKS]
    if not isinstance(bookmarks, dict) or not all(
        isinstance(bookmark, dict) for bookmark in bookmarks.values()
    ):
        msg = 'state: "bookmarks" must be an object that holds an object for each stream'
        raise UserError(msg)
    return bookmarks


def _read(stream: str, bookmark: dict[str, Any]) -> dict[str, Any]:
    if unknown := bookmark.keys() - {KEY, VALUE, SOURCE}:
        _warn_of_keys(f"state: the bookmark of {stream}", unknown)
    value = bookmark.get(VALUE)
    if value is None:
        if bookmark:
            logger.warning(
                "state: the bookmark of %s has no %s, so the stream is read from the beginning",
                stream,
                VALUE,
            )
        return {}
    try:
        value = times.canonical(value)
    except (TypeError, ValueError) as error:
        msg = f"state: the bookmark of {stream} is not a date or time"
        raise UserError(msg) from error
    if bookmark.get(SOURCE, "collector") not in ("collector", "archive"):
        msg = f"state: {SOURCE} of the bookmark of {stream} must be collector or archive"
        raise UserError(msg)
    known = {name: bookmark[name] for name in (KEY, SOURCE) if name in bookmark}
    return known | {VALUE: value}


def _check_kinds(bookmarks: Bookmarks, kind: Callable[[], Kind]) -> None:
    """Give each bookmark a kind of source; end where it is of another one than this run's."""
    others = []
    for stream, bookmark in bookmarks.items():
        if not bookmark:
            continue
        own = kind()
        if bookmark.setdefault(SOURCE, own) != own:
            others.append(stream)
    if others:
        # Times of a collector's commits and of an archive's objects have nothing to do with each
        # other: all that is older than the bookmark would be left out.
        other = "an archive" if kind() == "collector" else "a collector"
        msg = (
            f"state: the bookmarks of {', '.join(others)} are not of a source like this one but of "
            f"{other}: give each source a state of its own (with Meltano run the extractor "
            "tap-vero-segment--archive for an archive, or set another --state-id-suffix), or read "
            "everything again (--full-refresh, or remove these bookmarks from the state)"
        )
        raise UserError(msg)


def _warn_of_keys(where: str, names: Collection[str]) -> None:
    logger.warning("%s: unknown keys are ignored: %s", where, ", ".join(sorted(names)))
