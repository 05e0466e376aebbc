"""Events for the benchmarks, made from a seed: as long and as hard to compress as real ones.

A call is about 900 bytes of JSON, and gzip makes a fourth to a sixth of it, as of an archive of
Segment's: names, subjects and browsers repeat, ids and addresses do not.
"""

from __future__ import annotations

import gzip
import os
import random
import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tap_vero_segment import times
from tap_vero_segment.collection import COLLECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED: Final = 20261123
START: Final = times.from_text("2026-01-01T00:00:00Z")
CALLS_IN_AN_OBJECT: Final = 20_000

# How often each happens, as in a mailing that is read well.
_WEIGHTS: Final = {
    "email_sent": 100,
    "email_delivered": 97,
    "email_opened": 45,
    "email_link_clicked": 8,
    "email_unsubscribed": 1,
    "email_bounced": 3,
    "email_marked_as_spam": 1,
}
_BROWSERS: Final = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
)
_WORDS: Final = [
    "autumn",
    "winter",
    "order",
    "invoice",
    "welcome",
    "weekly",
    "digest",
    "offer",
    "reminder",
    "trial",
    "upgrade",
    "thanks",
    "news",
    "shipping",
    "return",
    "review",
    "birthday",
    "points",
    "account",
    "security",
    "summer",
    "event",
    "ticket",
]


def calls(number: int, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Yield track calls of the seven email collections, in the order of their receipt."""
    chance = random.Random(seed)
    streams = list(_WEIGHTS)
    weights = list(_WEIGHTS.values())
    names = {collection.stream: collection.event for collection in COLLECTIONS}
    campaigns = [_campaign(chance) for _ in range(300)]
    at = START
    for _ in range(number):
        at += chance.randrange(5_000, 500_000)
        stream = chance.choices(streams, weights)[0]
        yield _call(chance, stream, names[stream], chance.choice(campaigns), at)


def _campaign(chance: random.Random) -> dict[str, Any]:
    title = " ".join(chance.choices(_WORDS, k=4)).capitalize()
    return {
        "email_subject": " ".join(chance.choices(_WORDS, k=7)).capitalize(),
        "campaign_id": chance.randrange(10**6, 10**9),
        "campaign_name": title,
        "campaign_type": chance.choice(("transactional", "newsletter", "behavioral")),
        "campaign_trigger_event": "_".join(chance.choices(_WORDS, k=2)),
        "campaign_variation": f"Variation {chance.choice('ABCD')}",
        "campaign_channel": "email",
        "campaign_locale": chance.choice(("en-US", "en-GB", "de-DE", "fr-FR")),
    }


def _call(
    chance: random.Random, stream: str, name: str, campaign: dict[str, Any], at: int
) -> dict[str, Any]:
    user = chance.randrange(10**5, 10**8)
    person = f"{chance.choice(_WORDS)}.{chance.randbytes(4).hex()}"
    context: dict[str, Any] = {
        "ip": ".".join(str(chance.randrange(1, 255)) for _ in range(4)),
        "library": {"name": "vero", "version": "1.4.2"},
        "traits": {"email": f"{person}@{chance.choice(_WORDS)}.example"},
    }
    properties: dict[str, Any] = {
        "email_id": f"{at // 10**6}.{chance.randbytes(12).hex()}@veromail.com",
        **campaign,
        "campaign_permalink": f"http://app.getvero.com/view/1/{chance.randbytes(16).hex()}",
    }
    if stream in {"email_opened", "email_link_clicked"}:
        context["userAgent"] = chance.choice(_BROWSERS)
    if stream == "email_link_clicked":
        properties["link_url"] = f"https://shop.example/{chance.choice(_WORDS)}/{user}"
    if stream == "email_delivered":
        properties["sender_ip"] = f"198.51.100.{chance.randrange(250)}"
    if stream == "email_bounced":
        properties |= {
            "bounce_type": chance.choice(("hard", "soft")),
            "bounce_code": chance.choice((550, 552, 421)),
            "bounce_message": f"550 5.1.1 <{person}@x.example> User unknown",
        }
    if chance.random() < 0.5:
        properties["event"] = {"name": "purchased", "data": {"order": chance.randrange(10**7)}}
    happened = _iso(at - chance.randrange(10**6))
    return {
        "messageId": str(uuid.UUID(bytes=chance.randbytes(16), version=4)),
        "type": "track",
        "event": name,
        "userId": str(user),
        "timestamp": happened,
        "originalTimestamp": happened,
        "receivedAt": _iso(at),
        "sentAt": None,
        "context": context,
        "properties": properties,
        "integrations": {},
    }


def _iso(moment: int) -> str:
    return times.to_text(moment)[:23] + "Z"


def write_archive(folder: Path, number: int) -> Path:
    """Write an archive of so many calls, unless it is there; return its folder."""
    archive = folder / f"archive-{number}"
    if archive.exists():
        return archive
    unfinished = folder / f"archive-{number}.unfinished"
    day = unfinished / "segment-logs" / "source" / str(START // 1000)
    day.mkdir(parents=True, exist_ok=True)
    encode = msgspec.json.encode
    lines: list[bytes] = []
    written = 0

    def write() -> None:
        nonlocal written
        path = day / f"{START // 1000 + written:015}.gz"
        path.write_bytes(gzip.compress(b"\n".join([*lines, b""]), 6))
        os.utime(path, (START / 10**6 + written, START / 10**6 + written))
        written += 1
        lines.clear()

    for call in calls(number):
        lines.append(encode(call))
        if len(lines) == CALLS_IN_AN_OBJECT:
            write()
    if lines:
        write()
    unfinished.rename(archive)
    return archive


def ten_parts(folder: Path, number: int) -> Path:
    """Write an archive that holds the objects of a smaller one ten times; return its folder.

    What takes memory is how many objects and calls there are, not that they differ.
    """
    archive = folder / f"ten-times-{number}"
    if not archive.exists():
        unfinished = folder / f"ten-times-{number}.unfinished"
        for path in write_archive(folder, number).rglob("*.gz"):
            for part in range(10):
                link = unfinished / path.parent.name / f"{part}-{path.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                os.link(path, link)
        unfinished.rename(archive)
    return archive
