"""Hypothesis: how it runs here, and the payloads that it makes up.

Every run draws the same examples, so that a failure here is a failure everywhere.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.support.contract import COLUMNS, VERO_TYPES
from tests.support.payloads import documented
from tests.support.rounds import by_rounds, rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_settings = settings(
    derandomize=True,
    database=None,
    max_examples=rounds(150, least=50),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a busy machine is no failure
)


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    """Give a property its settings, as a decorator."""
    return by_rounds(_settings(test))


TIMES = [
    -1,
    0,
    1435016238,
    "1435016238",
    1435016238.25,
    "2015-06-22T23:37:18.5+02:00",
    "now",
    2**63,
]

AWKWARD_TEXTS = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ud83d",
    "x\udc4d",
    "\ufffd",
    "é",
    "👟",
    "1",
    "1.0",
    "true",
]


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """The object itself and those inside of it, at any depth."""
    if isinstance(value, dict):
        yield value
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    )
    for child in children:
        yield from objects_in(child)


KNOWN_KEYS = sorted(
    {
        *(column for columns in COLUMNS.values() for column in columns),
        *(f"{vero_type}_at" for vero_type in VERO_TYPES),
        *(key for name in VERO_TYPES for holder in objects_in(documented(name)) for key in holder),
        *("tags", "properties", "traits", "payload", "userId", "messageId", "loadedAt"),
    }
)

texts = st.one_of(
    st.text(st.characters(), max_size=8),
    st.sampled_from(AWKWARD_TEXTS),
    st.sampled_from(KNOWN_KEYS),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 1.0, 550.0, 1e16, 1e300, 2**64, 10**40]),
    st.sampled_from(TIMES),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
"""Anything that JSON can say."""

known_objects = st.dictionaries(st.sampled_from(KNOWN_KEYS), values, max_size=6)
users = st.dictionaries(st.sampled_from(["id", "email", "name"]), values)
campaigns = st.dictionaries(
    st.sampled_from([*documented("sent")["campaign"], *documented("unsubscribed")["campaign"]]),
    values,
)


@st.composite
def invented(draw: st.DrawFn) -> dict[str, Any]:
    """Objects of a known type that have little to do with Vero's."""
    payload = draw(st.dictionaries(texts, values, max_size=4)) | draw(known_objects)
    payload |= draw(st.fixed_dictionaries({}, optional={"user": users, "campaign": campaigns}))
    payload["type"] = vero_type = draw(st.sampled_from(sorted(VERO_TYPES)))
    if draw(st.booleans()):
        payload[f"{vero_type}_at"] = draw(st.sampled_from(TIMES) | values)
    return normal(payload)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """Vero's payloads with fields taken away, replaced and added."""
    payload = documented(draw(st.sampled_from(sorted(VERO_TYPES))))
    for _ in range(draw(st.integers(0, 5))):
        mutate(draw, payload)
    return normal(payload)


def mutate(draw: st.DrawFn, payload: dict[str, Any]) -> None:
    """Take a field away, replace it or add one, anywhere but in the payload's type."""
    holder = draw(st.sampled_from(list(objects_in(payload))))
    keys = sorted(holder.keys() - ({"type"} if holder is payload else set()))
    kind = draw(st.sampled_from(["add", "replace", "delete"] if keys else ["add"]))
    if kind == "delete":
        del holder[draw(st.sampled_from(keys))]
    elif kind == "replace":
        holder[draw(st.sampled_from(keys))] = draw(values)
    else:
        holder.setdefault(draw(texts), draw(values))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two payloads that are alike, or the same."""
    one = draw(payloads)
    other = copy.deepcopy(one)
    for _ in range(draw(st.integers(0, 2))):
        mutate(draw, other)
    return one, normal(other)


payloads = st.one_of(mutated(), invented())
"""JSON objects of each type that Vero documents."""


@st.composite
def shuffled(draw: st.DrawFn, payload: Any) -> Any:
    """The same JSON, its keys in another order."""
    if isinstance(payload, dict):
        items = draw(st.permutations(list(payload.items())))
        return {key: draw(shuffled(value)) for key, value in items}
    if isinstance(payload, list):
        return [draw(shuffled(item)) for item in payload]
    return payload


def normal(value: Any) -> Any:
    """The value as it is after a way through JSON, where two halves are one character."""
    return json.loads(json.dumps(value))
