"""The recipient's address or number in a track call: hashed, or left out."""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from tap_vero_segment.recipients import (
    ADDRESS,
    NUMBER,
    SHORTEST,
    addresses_in,
    digits_of,
    folded,
    holds_address,
    named_values,
)
from tap_vero_segment.record import as_text, take_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tap_vero_segment.track import TrackCall

_MOST_NAMES: Final = 4096
"""Names of fields that are remembered: a sender has a few."""

_TOKEN: Final = re.compile(r"(?=.*\d)\S{20,}")
"""What a device token looks like: Apple's has 64 hexadecimal digits, others are longer."""

_NESTED: Final = frozenset((dict, list))
_LEFT_OUT: Final[Any] = object()

_encode: Final = msgspec.json.Encoder().encode


class Addresses:
    """Hides the recipient's address or number wherever a track call has it.

    It is known from the places that hold it: the address among the context's traits, the user's
    ids where they are addresses, whom the message was sent to, and fields of such names at any
    depth. In these places it is hidden whatever it looks like. What looks like an address, a number
    or a device token is then hidden in all other places, and inside longer text as well. A word or
    a short number is not: it would be found in values and names that have nothing to do with it.

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
        def digest(form: str) -> str:
            own = keyed.copy()
            own.update(form.encode())
            return own.hexdigest()

        self._digest = digest
        self._others: set[str] = set()  # names of fields that hold no address or number

    def hide(self, call: TrackCall) -> None:
        """Hide it in a track call, which is changed in place."""
        context, properties = call.context or {}, call.properties or {}
        traits = context.get("traits")
        # Almost always it is in these places only, and they are done by themselves.
        email = take_text(traits, "email") if isinstance(traits, dict) else None
        sent_to = take_text(properties, "campaign_sent_to")
        known = _known(email, sent_to, (call.user_id, call.anonymous_id))
        if self._is_elsewhere(known, context, properties):
            for each in (*named_values(context), *named_values(properties)):
                _add_forms(known, each)
            needles = sorted(
                {needle: of for form, of in known.items() for needle in _needles(form)}.items(),
                key=lambda item: -len(item[0]),
            )
            context = self._hidden(context, known, needles)
            properties = self._hidden(properties, known, needles)
        if email is not None:
            traits = context["traits"]
            if not self._omits:
                traits["email"] = self._digest(folded(email)) if email else email
            elif not traits:
                del context["traits"]
        if sent_to is not None and not self._omits:
            properties["campaign_sent_to"] = self._digest(folded(sent_to)) if sent_to else sent_to
        call.context, call.properties = context or None, properties or None
        call.user_id = self._identity(call.user_id, known)
        call.anonymous_id = self._identity(call.anonymous_id, known)

    def _is_elsewhere(self, known: Iterable[str], context: Any, properties: Any) -> bool:
        """Return whether an address or number may stand in the rest of a track call."""
        if self._names_one(context) or self._names_one(properties):
            return True
        text = _encode((context, properties)).lower()
        for each in known:
            if not each.isascii() or "\\" in each or '"' in each or each.encode() in text:
                return True
        return b"%40" in text

    def _names_one(self, value: dict[str, Any] | list[Any]) -> bool:
        """Return whether a field at any depth has a name that says that it holds one."""
        inner: Iterable[Any] = value
        if isinstance(value, dict):
            if not self._others.issuperset(value):
                if any(map(holds_address, value)):
                    return True
                if len(self._others) < _MOST_NAMES:
                    self._others.update(value)
            inner = value.values()
        # Seldom is there anything nested: to ask for the types first costs least.
        return not _NESTED.isdisjoint(map(type, inner)) and any(
            self._names_one(each) for each in inner if type(each) in _NESTED
        )

    def _identity(self, value: str | None, known: Mapping[str, str]) -> str | None:
        if value is None or folded(value) not in known:
            return value
        return None if self._omits else self._digest(known[folded(value)])

    def _hidden(
        self,
        value: Any,
        known: Mapping[str, str],
        needles: list[tuple[str, str]],
        *,
        named: bool = False,
        inside: bool = False,
    ) -> Any:
        """Return a value without what is known, wherever it is in there.

        Args:
            value: The value.
            known: What is hidden where it is the whole value.
            needles: What is hidden inside longer text.
            named: Whether it is the value of a field that holds an address or number.
            inside: Whether it is anywhere in such a value.
        """
        if isinstance(value, dict):
            found: dict[str, Any] = {}
            for name, each in value.items():
                of_name = holds_address(name)
                hidden = self._hidden(each, known, needles, named=of_name, inside=inside or of_name)
                if hidden is not _LEFT_OUT:
                    own = self._in_text(name, needles)
                    while own in found:  # two names that differed in capital letters
                        own += "_"
                    found[own] = hidden
            return found
        if isinstance(value, list):
            values = [
                self._hidden(each, known, needles, named=inside, inside=inside) for each in value
            ]
            return [each for each in values if each is not _LEFT_OUT]
        text = as_text(value)
        if text is None or not text.strip():
            return value
        form = folded(text)
        if named or form in known:
            return _LEFT_OUT if self._omits else self._digest(known.get(form, form))
        return self._in_text(value, needles) if isinstance(value, str) else value

    def _in_text(self, text: str, needles: list[tuple[str, str]]) -> str:
        for needle, known in needles:
            lowered = text.lower()
            if len(lowered) != len(text):  # letters that become two
                lowered = text
            begin = lowered.find(needle)
            while begin >= 0:
                end = begin + len(needle)
                # A part of a longer number is not the number.
                part = needle.isdigit() and (
                    text[begin - 1 : begin].isdigit() or text[end : end + 1].isdigit()
                )
                if not part:
                    instead = "" if self._omits else self._digest(known)
                    text = text[:begin] + instead + text[end:]
                    lowered = lowered[:begin] + instead + lowered[end:]
                    end = begin + len(instead)
                begin = lowered.find(needle, end)
        return text


def _known(
    email: str | None, sent_to: str | None, identities: Iterable[str | None]
) -> dict[str, str]:
    """Return what is hidden wherever it is the whole value, and what each is hashed as."""
    known: dict[str, str] = {}
    for each in (email, sent_to):
        if each:
            _add_forms(known, each)
    for identity in identities:
        if identity and "@" in identity and ADDRESS.fullmatch(identity.strip()):
            _add_forms(known, identity)
    return known


def _add_forms(known: dict[str, str], text: str) -> None:
    """Add the forms in which text is an address, number or token, and what each is hashed as."""
    form = folded(text)
    if "@" in form:
        known[form] = form
        if not ADDRESS.fullmatch(form):
            known.update((inside.value, inside.value) for inside in addresses_in(form))
    elif NUMBER.fullmatch(form):
        if digits := digits_of(form):
            known[form] = known[digits] = form
    elif _TOKEN.fullmatch(form):
        known[form] = form


def _needles(form: str) -> Iterator[str]:
    """Yield the forms in which an address or number stands in longer text."""
    if len(form) >= SHORTEST:
        yield form
        if "@" in form:
            yield quote(form, safe="").lower()
