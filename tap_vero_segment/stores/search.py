"""Finding events by whom and what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tap_vero_segment import times
from tap_vero_segment.collection import BY_EVENT
from tap_vero_segment.recipients import address, folded, identities_of
from tap_vero_segment.record import as_text
from tap_vero_segment.stores.base import SearchPage
from tap_vero_segment.track import decode, without_loaded_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from tap_vero_segment.stores.base import Reader, Search
    from tap_vero_segment.track import TrackCall

_READ_AT_ONCE: Final = 1_000


def matcher(search: Search) -> Callable[[bytes], bool]:
    """Return what says whether a track call, as JSON, fits a search."""
    tests = [
        (_has_recipient, search.recipient),
        (_has_user_id, search.user_id),
        (_has_email_id, search.email_id),
        (_has_campaign, search.campaign),
        (_has_id, search.id),
        (_has_text, search.text),
        (_is_of, search.collection),
    ]
    wanted = [(test, value) for test, value in tests if value is not None]

    def fits(line: bytes) -> bool:
        call = decode(line)
        if search.since is not None or search.until is not None:
            moment = times.from_text(call.timestamp)
            if search.since is not None and moment < search.since:
                return False
            if search.until is not None and moment >= search.until:
                return False
        return all(test(call, value) for test, value in wanted)

    return fits


def _has_recipient(call: TrackCall, value: str) -> bool:
    return address(value) in identities_of(call)


def _has_user_id(call: TrackCall, value: str) -> bool:
    return call.user_id is not None and call.user_id.strip() == value.strip()


def _has_email_id(call: TrackCall, value: str) -> bool:
    found = as_text((call.properties or {}).get("email_id"))
    return found is not None and found.strip() == value.strip()


def _has_campaign(call: TrackCall, value: str) -> bool:
    properties = call.properties or {}
    texts = (as_text(properties.get(name)) for name in ("campaign_id", "campaign_name"))
    return folded(value) in {folded(text) for text in texts if text is not None}


def _has_id(call: TrackCall, value: str) -> bool:
    return call.message_id in {value, value.strip()}


def _has_text(call: TrackCall, value: str) -> bool:
    tests = (_has_recipient, _has_user_id, _has_email_id, _has_campaign, _has_id)
    return any(test(call, value) for test in tests)


def _is_of(call: TrackCall, collection: str) -> bool:
    found = BY_EVENT.get(call.event)
    return found is not None and found.stream == collection


def search_all(
    reader: Reader, search: Search, before: int | None, after: int | None, limit: int
) -> SearchPage:
    """Do what :meth:`Reader.search` does, by a look at every event."""
    fits = matcher(search)
    found: list[tuple[int, bytes]] = []
    cursor = times.EARLIEST
    while lines := reader.lines(cursor, None, _READ_AT_ONCE):
        for line in lines:
            cursor = times.from_text(without_loaded_at(line)[1])
            if fits(line):
                found.append((cursor, line))
    if after is not None:
        newer = [each for each in found if each[0] > after]
        page, more = newer[:limit], len(newer) > limit
        older = (page[0][0] if page else after + 1) if len(newer) < len(found) else None
        return SearchPage(
            [line for _, line in reversed(page)], older, page[-1][0] if page and more else None
        )
    older_ones = [each for each in found if before is None or each[0] < before]
    page, more = older_ones[-limit:], len(older_ones) > limit
    newer_cursor = None
    if len(older_ones) < len(found):
        newer_cursor = page[-1][0] if page else (before or 0) - 1
    return SearchPage(
        [line for _, line in reversed(page)], page[0][0] if page and more else None, newer_cursor
    )
