"""A small believable campaign: a hundred recipients and what they do with an email."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tap_vero_segment.collector.sample.documented import Payload

RECIPIENTS: Final = 100
BOUNCED: Final = 4
OPENED: Final = 58
CLICKED: Final = 21
UNSUBSCRIBED: Final = 3

_SEED: Final = 2026
_HARD: Final = {
    "bounce_type": "hard",
    "bounce_code": 550,
    "bounce_message": "550 5.1.1 The email account that you tried to reach does not exist",
}
_SOFT: Final = {
    "bounce_type": "soft",
    "bounce_code": "452",
    "bounce_message": "452 4.2.2 The recipient's inbox is out of storage space",
}
_AGENTS: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
)


def campaign_payloads(now: int) -> Iterator[Payload]:
    """Yield the events of a campaign that went out in the last hour, in the order of time.

    Args:
        now: The present time, in seconds since 1970; no event is later.
    """
    chance = random.Random(_SEED)  # noqa: S311  # believable, not secret
    payloads = [
        payload
        for number in range(1, RECIPIENTS + 1)
        for payload in _story(number, now - 3600, now, chance)
    ]
    yield from sorted(payloads, key=lambda payload: payload[f"{payload['type']}_at"])


def _story(number: int, start: int, now: int, chance: random.Random) -> Iterator[Payload]:
    """Tell what happens to one recipient's email."""
    sent_at = start + number
    message: Payload = {
        "user": {"id": 1000 + number, "email": f"recipient{number}@example.com"},
        "campaign": {
            "id": 20_261,
            "type": "newsletter",
            "name": "Autumn collection",
            "subject": "The autumn collection is here \N{MAPLE LEAF}",
            "variation": "A" if number % 2 else "B",
            "channel": "email",
            "sent_to": f"recipient{number}@example.com",
            "locale": "en-US",
            "tags": "newsletter, autumn",
        },
        "message_id": f"{now}.{number}.20261@veromail.com",
    }
    yield {"type": "sent", "sent_at": sent_at, **message}
    if number <= BOUNCED:
        reason = _HARD if number % 2 else _SOFT
        yield {"type": "bounced", "bounced_at": sent_at + 2, **reason, **message}
        return
    yield {
        "type": "delivered",
        "delivered_at": sent_at + 2,
        "sender_ip": "198.51.100.7",
        **message,
    }
    if number > BOUNCED + OPENED:
        return
    opened_at = chance.randint(sent_at + 10, now - 120)
    agent = {"user_agent": chance.choice(_AGENTS)}
    yield {"type": "opened", "opened_at": opened_at, **agent, **message}
    if number <= BOUNCED + CLICKED:
        clicked_at = opened_at + chance.randint(2, 60)
        yield {"type": "clicked", "clicked_at": clicked_at, **agent, **message}
    elif number <= BOUNCED + CLICKED + UNSUBSCRIBED:
        yield {
            "type": "unsubscribed",
            "unsubscribed_at": opened_at + 30,
            "user": message["user"],
            "campaign": {
                "campaign_title": message["campaign"]["name"],
                "message_id": message["message_id"],
                "email_subject": message["campaign"]["subject"],
                "variation_name": message["campaign"]["variation"],
                "channel": "email",
            },
        }
    elif number == BOUNCED + CLICKED + UNSUBSCRIBED + 1:
        yield {"type": "complained", "complained_at": opened_at + 45, **message}
