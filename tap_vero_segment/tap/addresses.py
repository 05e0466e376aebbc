"""The recipient's address or number in a track call: hashed, or left out."""

from __future__ import annotations

import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from tap_vero_segment.recipients import ADDRESS, folded, named_values
from tap_vero_segment.record import as_text, take_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.track import TrackCall

_FIELDS: Final = tuple(
    b'"%b":' % name.encode()
    for name in (
        *("email", "email_address", "emailaddress", "sent_to", "sentto", "campaignsentto"),
        *("phone", "phone_number", "phonenumber", "mobile", "mobile_number", "mobilenumber"),
    )
)
"""They, as JSON has them."""

_SHORTEST: Final = 6
"""Characters of an address or number that is looked for inside longer text. A shorter one would be
found in text that has nothing to do with it."""

_LEFT_OUT: Final[Any] = object()

_encode: Final = msgspec.json.Encoder().encode


class Addresses:
    """Hides the recipient's address or number wherever a track call has it.

    It is known from the places that hold it: the address among the context's traits, the user's
    ids where they are addresses, whom the message was sent to, and fields of such names at any
    depth. The same text is then hidden in all other places, and inside longer text as well.

    Args:
        key: The secret key. The address or number becomes its HMAC-SHA256, as 64 hexadecimal
            digits, which is the same in every stream and run; capital letters and blanks around
            it make no difference. None: it is left out.
    """

    def __init__(self, key: str | None) -> None:
        self._omits = key is None
        # To copy it costs a third of making it anew from the key.
        keyed = hmac.new((key or "").encode(), digestmod="sha256")

        @lru_cache(maxsize=4096)  # a recipient has several events, and an event several places
        def digest(folded: str) -> str:
            own = keyed.copy()
            own.update(folded.encode())
            return own.hexdigest()

        self._digest = digest

    def hide(self, call: TrackCall) -> None:
        """Hide it in a track call, which is changed in place."""
        context, properties = call.context or {}, call.properties or {}
        traits = context.get("traits")
        # Almost always it is in these places only, and they are done by themselves.
        email = take_text(traits, "email") if isinstance(traits, dict) else None
        sent_to = take_text(properties, "campaign_sent_to")
        known = {folded(each) for each in (email, sent_to) if each and each.strip()}
        for identity in (call.user_id, call.anonymous_id):
            if identity and "@" in identity and ADDRESS.fullmatch(identity.strip()):
                known.add(folded(identity))
        if _is_elsewhere(known, _encode((context, properties)).lower()):
            known.update(named_values(context), named_values(properties))
            needles = sorted(
                {needle: each for each in known for needle in _needles(each)}.items(),
                key=lambda item: -len(item[0]),
            )
            context = self._hidden(context, known, needles)
            properties = self._hidden(properties, known, needles)
        if email is not None:
            # What was sent to can itself be "traits", and is hidden in names as well.
            traits = context.setdefault("traits", {})
            if not self._omits:
                traits["email"] = self._digest(folded(email)) if email else email
            elif not traits:
                del context["traits"]
        if sent_to is not None and not self._omits:
            properties["campaign_sent_to"] = self._digest(folded(sent_to)) if sent_to else sent_to
        call.context, call.properties = context or None, properties or None
        call.user_id = self._identity(call.user_id, known)
        call.anonymous_id = self._identity(call.anonymous_id, known)

    def _identity(self, value: str | None, known: set[str]) -> str | None:
        if value is None or folded(value) not in known:
            return value
        return None if self._omits else self._digest(folded(value))

    def _hidden(self, value: Any, known: set[str], needles: list[tuple[str, str]]) -> Any:
        """Return a value without what is known, wherever it is in there."""
        if isinstance(value, dict):
            pairs = (
                (self._in_text(name, needles), self._hidden(each, known, needles))
                for name, each in value.items()
            )
            return {name: each for name, each in pairs if each is not _LEFT_OUT}
        if isinstance(value, list):
            values = [self._hidden(each, known, needles) for each in value]
            return [each for each in values if each is not _LEFT_OUT]
        text = as_text(value)
        if text is None:
            return value
        if folded(text) in known:
            return _LEFT_OUT if self._omits else self._digest(folded(text))
        return self._in_text(value, needles) if isinstance(value, str) else value

    def _in_text(self, text: str, needles: list[tuple[str, str]]) -> str:
        for needle, known in needles:
            folded = text.lower()
            if len(folded) != len(text):  # letters that become two
                folded = text
            begin = folded.find(needle)
            while begin >= 0:
                end = begin + len(needle)
                # A part of a longer number is not the number.
                part = needle.isdigit() and (
                    text[begin - 1 : begin].isdigit() or text[end : end + 1].isdigit()
                )
                if not part:
                    instead = "" if self._omits else self._digest(known)
                    text = text[:begin] + instead + text[end:]
                    folded = folded[:begin] + instead + folded[end:]
                    end = begin + len(instead)
                begin = folded.find(needle, end)
        return text


def _needles(known: str) -> Iterator[str]:
    """Yield the forms in which an address or number stands in longer text."""
    if len(known) >= _SHORTEST:
        yield known
        if "@" in known:
            yield quote(known, safe="").lower()


def _is_elsewhere(known: set[str], text: bytes) -> bool:
    """Return whether an address or number may stand in JSON in small letters."""
    for field in _FIELDS:
        if field in text:
            return True
    for each in known:
        if not each.isascii() or _encode(each)[1:-1] in text:
            return True
    return b"%40" in text
