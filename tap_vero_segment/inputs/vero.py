"""Vero's webhooks: payload to track call.

The payloads are documented at help.getvero.com, under ``/vero-1/integrations/setting-up-webhooks``
and ``/vero-2/integrations/setting-up-reporting-webhooks``; what Vero does not document is
tolerated. What a payload holds moves to the place that a track call has for it, and all the rest
stays where it was, under ``properties``.
"""

from __future__ import annotations

from typing import Any, Final

from tap_vero_segment import times
from tap_vero_segment.collection import BY_VERO_TYPE, EMAIL_COLUMNS, Collection
from tap_vero_segment.inputs.body import UnmappableError, clean
from tap_vero_segment.inputs.ids import canonical_json, content_id
from tap_vero_segment.record import as_text
from tap_vero_segment.track import TrackCall

Payload = dict[str, Any]
Path = tuple[str, ...]

_PROPERTIES: Final[dict[str, tuple[Path, ...]]] = {
    "email_id": (("message_id",), ("campaign", "message_id")),
    "email_subject": (("campaign", "subject"), ("campaign", "email_subject")),
    "campaign_id": (("campaign", "id"),),
    "campaign_name": (("campaign", "name"), ("campaign", "campaign_title")),
    "campaign_type": (("campaign", "type"),),
    "campaign_trigger_event": (("campaign", "trigger-event"),),
    "campaign_permalink": (("campaign", "permalink"),),
    "campaign_variation": (("campaign", "variation"), ("campaign", "variation_name")),
    "campaign_group": (("campaign", "group"),),
    "campaign_channel": (("campaign", "channel"),),
    "campaign_locale": (("campaign", "locale"),),
    "campaign_tags": (("campaign", "tags"),),
    "campaign_sent_to": (("campaign", "sent_to"),),
    "campaign_series_title": (("campaign", "series_title"),),
    "campaign_template": (("campaign", "template"),),
}
"""Where a payload holds the properties that have a name of their own, the first that a text column
can hold. Whatever else is there stays there.

Those whose key is already right (``bounce_code``, ``sender_ip``, …) need no row: they are what is
left at the payload's top.
"""
if tuple(_PROPERTIES) != tuple(column.name for column in EMAIL_COLUMNS):  # pragma: no cover
    msg = "each email column needs its row in _PROPERTIES"
    raise AssertionError(msg)

_LINK: Final[dict[str, tuple[Path, ...]]] = {
    "link_url": (("link_url",), ("url",), ("link", "url"), ("link",)),
}
"""Where the URL of a click would stand. No known payload has one."""

_USER_ID: Final[Path] = ("user", "id")
_USER_EMAIL: Final[Path] = ("user", "email")
_USER_AGENT: Final[Path] = ("user_agent",)
_PROFILE_TYPES: Final = frozenset({"user_created", "user_updated"})
"""The types whose payload has been seen with the user's fields at its top, as well as in ``user``:
either way they end at the top."""

_HOLDERS: Final = frozenset({"user", "campaign", "link"})
"""The objects that fields are taken out of; emptied, they are gone."""


def to_track(payload: Payload, received_at: int) -> TrackCall:
    """Turn a webhook's payload into a track call.

    Args:
        payload: The JSON object that Vero posted.
        received_at: When it came, in microseconds since 1970.

    Raises:
        UnmappableError: Its ``type`` is none that Vero documents. Nothing else is refused.
    """
    collection = _collection(payload)
    canonical = canonical_json(payload)
    rest = _Rest(clean(payload))
    rest.drop("type")
    happened_at = _take_time(rest, collection)
    user_id = _take_user_id(rest, collection)
    email = rest.take_text(_USER_EMAIL)
    if collection.vero_type in _PROFILE_TYPES:
        if email is None:
            email = rest.take_text(("email",))
        rest.lift("user")
    user_agent = rest.take_text(_USER_AGENT)
    received = times.to_text(received_at)
    timestamp = received if happened_at is None else times.to_text(happened_at)
    return TrackCall(
        message_id=content_id(happened_at, received_at, canonical),
        event=collection.event,
        user_id=user_id,
        anonymous_id=email if user_id is None else None,
        timestamp=timestamp,
        original_timestamp=timestamp,
        received_at=received,
        sent_at=received,
        context=_context(email, user_agent),
        properties=_properties(rest, collection) or None,
    )


def time_of(payload: Payload) -> int | None:
    """Return the time that a payload itself tells, in microseconds since 1970; None: it tells none.

    Raises:
        UnmappableError: As in :func:`to_track`.
    """
    return _take_time(_Rest(dict(payload)), _collection(payload))


def _collection(payload: Payload) -> Collection:
    vero_type = payload.get("type")
    if not isinstance(vero_type, str):
        msg = "no type that is text"
        raise UnmappableError(msg)
    collection = BY_VERO_TYPE.get(vero_type)
    if collection is None:
        # The text of an unknown type is the sender's: it may be anything, so it is not repeated.
        msg = "a type that Vero does not document"
        raise UnmappableError(msg)
    return collection


class _Rest:
    """What is left of a payload while fields are taken out of it, in place."""

    def __init__(self, payload: Payload) -> None:
        self.fields = payload

    def _holder(self, path: Path) -> Payload:
        holder: Any = self.fields
        for key in path[:-1]:
            holder = holder.get(key)
            if not isinstance(holder, dict):
                return {}
        return holder  # type: ignore[no-any-return]

    def get(self, path: Path) -> Any:
        return self._holder(path).get(path[-1])

    def take(self, path: Path) -> Any:
        return self._holder(path).pop(path[-1], None)

    def take_text(self, path: Path) -> str | None:
        """Take a field that is text or a number and not empty; any other stays."""
        value = self.get(path)
        text = as_text(value)
        if text or value is None:
            self.take(path)
        return text or None

    def lift(self, key: str) -> None:
        """Move an object's fields to the top, unless there is something of that name."""
        holder = self.fields.get(key)
        if isinstance(holder, dict):
            for name in [name for name in holder if name not in self.fields]:
                self.fields[name] = holder.pop(name)

    def drop(self, key: str) -> None:
        self.fields.pop(key, None)


def _take_time(rest: _Rest, collection: Collection) -> int | None:
    """Take the time of the event: epoch seconds, in microseconds. What is no time stays."""
    path = (f"{collection.vero_type}_at",)
    value = rest.get(path)
    exact = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, str):
        exact = value.isascii() and value.isdigit()
    try:
        if exact:
            micros = int(value) * times.SECOND
        elif isinstance(value, float):
            micros = round(value * times.SECOND)
        elif isinstance(value, str):
            micros = times.from_text(value)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    if not times.EARLIEST <= micros <= times.LATEST:
        return None
    if exact:
        rest.take(path)  # any other spelling than whole seconds stays in properties as it came
    return micros


def _take_user_id(rest: _Rest, collection: Collection) -> str | None:
    user_id = rest.take_text(_USER_ID)
    if user_id is None and collection.vero_type in _PROFILE_TYPES:
        user_id = rest.take_text(("id",))
    return user_id


def _context(email: str | None, user_agent: str | None) -> dict[str, Any] | None:
    context: dict[str, Any] = {}
    if email is not None:
        context["traits"] = {"email": email}
    if user_agent is not None:
        context["userAgent"] = user_agent
    return context or None


def _properties(rest: _Rest, collection: Collection) -> Payload:
    named: Payload = {}
    where = _PROPERTIES | _LINK if collection.vero_type == "clicked" else _PROPERTIES
    for name, paths in where.items():
        for path in paths:
            value = rest.get(path)
            if value is None:
                rest.take(path)
            elif name not in named and as_text(value) is not None:
                named[name] = rest.take(path)
    left = {
        key: value
        for key, value in rest.fields.items()
        if not (key in _HOLDERS and (value is None or value == {}))
    }
    clashing = named.keys() & left.keys()
    if clashing:
        # A payload that itself has a key such as campaign_id beside campaign.id: neither may
        # overwrite the other.
        clashing.add("payload")
        kept = {key: value for key, value in left.items() if key in clashing}
        return {**left, **named, "payload": kept}
    return {**named, **left}
