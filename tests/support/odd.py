"""Payloads with what JSON allows and senders seldom mean."""

from __future__ import annotations

from typing import Any

from tests.support.payloads import documented


def odd() -> list[dict[str, Any]]:
    """Return distinct payloads, each with values that a careless writer would change or lose."""
    values: list[Any] = [
        "Größe ✉ 件名 \U0001f4e7",
        'line\nend\r\n\ttab \u2028 \u0085 quote" back\\slash',
        "\u0000\u001f\u007f",
        "",
        0,
        -0.0,
        1.5e308,
        5e-324,
        0.1 + 0.2,
        2**53 + 1,
        2**63,
        2**64,
        -(2**63) - 1,
        10**40,
        True,
        None,
        [],
        {},
        [None, [], {}, [[1, "two", {"three": 3.0}]]],
        {"": {"": ""}, "properties": {"context": {"traits": None}}, "a.b": 1, "a b": 2},
        _nested(30),
    ]
    payloads = []
    for number, value in enumerate(values):
        vero_type = ("sent", "bounced", "clicked", "unsubscribed")[number % 4]
        payload = documented(vero_type)
        payload["user"] = {"id": number, "email": f"odd{number}@example.com", "profile": value}
        payload["campaign"] |= {"subject": value, "tags": value, "made-up": value}
        payload |= {"bounce_code": value, "user_agent": value, "extra": {"deep": [value]}}
        payloads.append(payload)
    return payloads


def _nested(depth: int) -> Any:
    value: Any = "bottom"
    for level in range(depth):
        value = {"down": value} if level % 2 else [value]
    return value
