"""Bodies that were damaged on their way or made to harm: a number is always the same body."""

from __future__ import annotations

import gzip
import json
import random
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tests.support.collector import WRITE_KEY
from tests.support.contract import VERO_TYPES
from tests.support.fuzz import KNOWN_KEYS
from tests.support.odd import odd
from tests.support.payloads import documented

if TYPE_CHECKING:
    from collections.abc import Sequence


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


VERO = [
    *(_json(documented(name)) for name in VERO_TYPES),
    *(_json(payload) for payload in odd()[:-1]),
    quote(_json(documented())).encode(),
    urlencode({"payload": json.dumps(documented("bounced"))}).encode(),
    _json([documented()]),
]
"""What Vero sends, and what careless senders make of it."""


def _call(event: str, number: int) -> dict[str, Any]:
    return {
        "type": "track",
        "messageId": f"call-{number}",
        "event": event,
        "userId": "123",
        "anonymousId": None,
        "timestamp": "2026-11-23T09:24:00.000Z",
        "originalTimestamp": "2026-11-23T09:23:59Z",
        "sentAt": "2026-11-23T09:24:01+01:00",
        "receivedAt": "2026-11-23T09:24:02.5Z",
        "context": {
            "traits": {"email": "user@example.com"},
            "ip": "198.51.100.7",
            "userAgent": "M",
        },
        "properties": {"campaign_id": 987, "email_subject": "Größe", "deep": [{"a": None}]},
        "writeKey": WRITE_KEY,
        "integrations": {"All": True},
    }


_CALLS = [_call(event, number) for number, (_, event) in enumerate(VERO_TYPES.values())]
_CALLS.append(_call("Order Completed", 99))
LINES = [_json(call) for call in _CALLS]
"""Lines of an archive."""

BATCHES = [
    *LINES,
    *(
        _json({"batch": _CALLS[start : start + 3], "writeKey": WRITE_KEY, "sentAt": "2026-11-23"})
        for start in range(0, len(_CALLS), 3)
    ),
]
"""Bodies of the Tracking API."""

TOKENS = [
    *(f'"{key}":'.encode() for key in KNOWN_KEYS),
    *(f'"type":"{name}",'.encode() for name in VERO_TYPES),
    *(b'"\\ud83d"', b'"\\udc4d\\ud83d"', b'"\\u0000"', b"\\u0000", b"\xff", b"\xed\xa0\xbd", b"\0"),
    *(b"1e999", b"-1e-999", b"9" * 40, b"9" * 5_000, b"-0", b"1e5", b"0x1", b"NaN", b"Infinity"),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]"),
    *(b"[" * 90, b"[" * 2_000, b'{"a":' * 98, b'{"a":' * 5_000, b"]" * 90, b"}" * 98),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        "\u2028\u202e\U0001f4e7".encode(),
        b"%22",
        b"%00",
        b"+",
        b"&=",
        b"%",
    ),
    *(b'"1435016238"', b"-1", b"253402300800", b"1435016238.25", b'"2015-06-22T23:37:18.5+02:00"'),
    *(b'"0000-00-00"', b'"9999-12-31T23:59:60Z"', b"9223372036854775808", b"18446744073709551616"),
]


def mutated(number: int, corpus: Sequence[bytes]) -> bytes:
    """Return a body of the corpus with a few things done to it."""
    chance = random.Random(number)
    body = corpus[number % len(corpus)]
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        place = int(chance.random() * (len(body) + 1))
        kind = int(chance.random() * 8)
        if kind == 0:
            body = body[:place] + bytes([int(chance.random() * 256)]) + body[place + 1 :]
        elif kind == 1 and body:
            place = min(place, len(body) - 1)
            flipped = body[place] ^ 1 << int(chance.random() * 8)
            body = body[:place] + bytes([flipped]) + body[place + 1 :]
        elif kind == 2:
            body = body[:place] if chance.random() < 0.3 else body[place:] + body[:place]
        elif kind == 3:
            other = corpus[int(chance.random() * len(corpus))]
            body = body[:place] + other[int(chance.random() * len(other)) :]
        elif kind == 4:
            body = body[:place] + body[place + int(chance.random() * 20) :]
        else:
            # Where a value or a key stands, so that what comes of it is JSON more often.
            place = max(body.rfind(b",", 0, place), body.rfind(b"{", 0, place)) + 1
            token = TOKENS[int(chance.random() * len(TOKENS))]
            if token.endswith(b":"):
                token += TOKENS[int(chance.random() * len(TOKENS))].strip(b",:") + b","
            elif kind == 5:
                start = body.find(b":", place) + 1
                end = body.find(b",", start)
                body, place, token = body[:start] + token + body[end:], 0, b""
            body = body[:place] + token + body[place:]
    return body


def zipped(number: int, body: bytes) -> bytes:
    """Return a body as a client zips it, or as what unzips to far more than it is."""
    kind = number % 5
    if kind == 0:
        return _BOMB
    content = gzip.compress(body, 1, mtime=0)
    if kind == 1:
        return content[: number % len(content)]
    if kind == 2:
        return content + body[:20]
    return content


_BOMB = gzip.compress(bytes(chain(b'{"a":"', b"x" * 5_000_000, b'"}')), 9, mtime=0)
