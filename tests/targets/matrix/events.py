"""Webhooks of all twelve types, and an archive, with values that careless loaders change."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.support.archive import (
    FIRST_DAY,
    STREAM_OF_EVENT,
    ArchiveObject,
    lines_of,
    path_of,
    track,
    zipped,
)
from tests.support.payloads import EMAIL_TYPES, OTHER_TYPES, documented

if TYPE_CHECKING:
    from collections.abc import Callable

TYPES = (*EMAIL_TYPES, *OTHER_TYPES)

TEXTS = (
    "Autumn collection",
    "Größe ✉ 件名 \U0001f4e7 \U0001f469\u200d\U0001f4bb",
    "e\u0301 \u202eright to left",
    "'We miss you'",
    '"We miss you"',
    'Say "hi"',
    "It's 5 o'clock",
    "''",
    '""',
    "'",
    '"',
    "",
    " ",
    " blanks around ",
    "line\nend",
    "line\r\nend",
    "carriage\rreturn",
    "tab\tstop",
    "\n",
    "NUL \0",
    "control \x01\x07\x08\x0b\x0c\x1b\x1f\x7f",
    "\x85 \u2028 \u2029 \ufeff",
    "back\\slash",
    "\\n \\t \\\\ \\",
    "a,b;c|d",
    "null",
    "NULL",
    "None",
    "\\N",
    "NaN",
    "true",
    "0123",
    "1e5",
    "1,5",
    "=1+1",
    "2026-11-23",
    "2026-11-23T09:24:00Z",
    "{}",
    "[]",
    '{"a": 1}',
    "{{ user.name }} ${x} %s %(x)s $1",
    "'; DROP TABLE tracks; --",
    "<b>bold</b> &amp; #",
    "é" * 255,
    "\U0001f600" * 300,
    "A long subject, with a comma. " * 66,
)
NUMBERS = (0, 1, -1, 550, 1.5, -0.25, 0.1, 1e-7, 1e20, 2**53 + 1, -(2**63), 2**64, 12.0)
TIMES = (
    *(1_435_016_238 + number * 86_399 for number in range(10)),
    "1435016238",
    1435016238.123456,
    "2026-10-25T02:30:00+02:00",
    0,
    -1,
    4_102_444_800,  # beyond 32 bits
    32_503_680_000,  # the year 3000
    None,
    "soon",
)


def webhooks(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return distinct payloads, as many of each type, the same ones each time."""
    return [_webhook(number) for number in range(first, first + count)]


def _webhook(number: int) -> dict[str, Any]:
    chance = random.Random(number)
    payload = documented(TYPES[number % len(TYPES)])
    vero_type = payload["type"]
    email = f"person{number}@example.com"
    user: dict[str, Any] = chance.choice(
        [
            *[{"id": number, "email": email}] * 5,
            {"id": str(number), "email": email},
            {"id": f"{number:012}", "email": f"O'Hara.{number}+\u00e9@example.com"},
            {"id": 2**53 + 1 + number, "email": email},
            {"id": 10**30 + number, "email": email},
            {"id": email, "email": email},
            {"id": None, "email": email},
            {"email": email},
            {"id": number, "email": None},
        ]
    )
    payload["user"] = user
    if chance.random() < 0.05:
        del payload["user"]
    if vero_type == "resubscribed" and "user" in payload:
        return payload  # nothing but its user: no properties at all
    payload["number"] = number
    if f"{vero_type}_at" in payload:
        payload[f"{vero_type}_at"] = chance.choice(TIMES)
    _vary(payload, chance)
    return payload


def _vary(payload: dict[str, Any], chance: random.Random) -> None:  # noqa: C901  # a flat list
    """Give fields values that are seldom, each of them in some payloads."""

    def sometimes(holder: dict[str, Any], key: str, value: Callable[[], Any]) -> None:
        if chance.random() < 0.6:
            holder[key] = value()

    def text() -> str:
        return chance.choice(TEXTS)

    def nested() -> Any:
        return chance.choice(
            [
                {"total": chance.choice(NUMBERS), "currency": "EUR", "lines": [1, 2.5, None, True]},
                {"a": {"b": {"c": [text(), {"": text()}]}}},
                {"a.b": 1, "a b": 2, "Ünï": text(), "select": None, "A": 1, "a": 2},
                [],
                {},
                [None, [], {}, [[1, "two", {"three": 3.0}]]],
                chance.choice(NUMBERS),
                text(),
                None,
                False,
            ]
        )

    campaign = payload.get("campaign")
    if campaign is not None:
        subject, name = ("subject", "name")
        if payload["type"] == "unsubscribed":
            subject, name = ("email_subject", "campaign_title")
        sometimes(campaign, subject, text)
        sometimes(campaign, name, text)
        sometimes(campaign, "id", lambda: chance.choice([*NUMBERS, "987", "00987", None]))
        sometimes(campaign, "tags", lambda: chance.choice(["a, b", ["a", text()], [], "", None]))
        sometimes(campaign, "variation", text)
        sometimes(campaign, "unheard-of", nested)
    if "user_agent" in payload:
        sometimes(payload, "user_agent", text)
    if "bounce_code" in payload:
        sometimes(payload, "bounce_code", lambda: chance.choice(["521", 550.0, 5.25, "", None]))
        sometimes(payload, "bounce_message", text)
    if "event" in payload:
        sometimes(payload["event"], "data", nested)
        if chance.random() < 0.1:
            payload["event"] = None
    sometimes(payload, "more", nested)
    if isinstance(payload.get("user"), dict):
        sometimes(payload["user"], "profile", nested)


def archive(count: int) -> list[ArchiveObject]:
    """Return an archive of distinct calls, the same ones each time."""
    chance = random.Random(count)
    objects = []
    events = list(STREAM_OF_EVENT)
    each = max(1, count // 5)
    for start in range(0, count, each):
        calls = []
        for number in range(start, min(start + each, count)):
            received_at = FIRST_DAY + timedelta(seconds=number, microseconds=number * 7)
            call = track(number, events[number % len(events)], received_at)
            properties = call["properties"]
            properties["email_subject"] = chance.choice(TEXTS).replace("\0", "")
            properties["campaign_id"] = chance.choice([*NUMBERS, "987", None])
            properties["link_url"] = "https://example.com/?a=1&b=%20'x'"
            properties["order"] = {"total": chance.choice(NUMBERS), "lines": [1, 2.5, None]}
            if chance.random() < 0.1:
                call["messageId"] = f"{number:0100}"
            if chance.random() < 0.3:
                call["userId"] = None
            if chance.random() < 0.2:
                call["context"] = None
            if chance.random() < 0.2:
                call["properties"] = {}
            calls.append(call)
        path = path_of("source-a", 0, f"{start:06}.gz")
        modified_at = FIRST_DAY + timedelta(days=1, minutes=start)
        objects.append(ArchiveObject(path, zipped(lines_of(calls)), modified_at, []))
    return objects
