"""A believable day of a small shop's emails, for pictures; the same one each time."""

from __future__ import annotations

import json
import random
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tap_vero_segment import times
from tap_vero_segment.inputs.intake import read_vero
from tap_vero_segment.stores.sqlite.writer import SqliteWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    Happening = tuple[float, dict[str, Any]]
    """When, in seconds of the day, and the webhook."""

DAY = 86_400
NAMES = ("ada", "ben", "carla", "dmitri", "elif", "farid", "grace", "hugo", "ines", "jonas", "kofi")
AGENT = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15"
HOURS = (1, 1, 1, 1, 1, 2, 4, 7, 9, 9, 8, 8, 10, 9, 8, 7, 7, 8, 10, 11, 9, 6, 4, 2)
"""How busy each hour is, the last one being now."""


class Mailing:
    """What happens to each email of a campaign."""

    def __init__(self, name: str, subject: str, kind: str, opened: float, clicked: float) -> None:
        self.campaign = {"id": sum(name.encode()), "type": kind, "name": name, "subject": subject}
        self.opened = opened
        self.clicked = clicked

    def to(self, number: int, at: float, chance: random.Random) -> Iterator[Happening]:
        name = f"{NAMES[number % len(NAMES)]}.{number}"
        message = {
            "user": {"id": 40_000 + number, "email": f"{name}@example.com"},
            "campaign": self.campaign | {"channel": "email", "locale": "en-US"},
            "message_id": f"{number}.{self.campaign['id']}@veromail.com",
        }
        yield at, {"type": "sent", **message}
        fate = chance.random()
        if fate < 0.02:
            reason = {"bounce_type": "hard", "bounce_code": 550, "bounce_message": "no such user"}
            yield at + 3, {"type": "bounced", **reason, **message}
            return
        yield at + chance.uniform(1, 40), {"type": "delivered", **message}
        if chance.random() > self.opened:
            return
        opened = at + 30 + chance.expovariate(1 / 9_000)
        yield opened, {"type": "opened", "user_agent": AGENT, **message}
        if chance.random() < self.clicked:
            later = opened + chance.uniform(5, 90)
            yield later, {"type": "clicked", "user_agent": AGENT, **message}
        elif fate > 0.985:
            unsubscribed = {"type": "unsubscribed", "user": message["user"]}
            about = {"campaign_title": self.campaign["name"], "message_id": message["message_id"]}
            yield opened + 40, unsubscribed | {"campaign": about}
        elif fate > 0.98:
            yield opened + 20, {"type": "complained", **message}


def happenings() -> list[Happening]:
    chance = random.Random(2026)
    autumn = Mailing(
        "Autumn collection", "The autumn collection is here", "newsletter", opened=0.48, clicked=0.3
    )
    orders = Mailing(
        "Order confirmation", "Your order is on its way", "transactional", opened=0.8, clicked=0.4
    )
    welcome = Mailing("Welcome aboard", "Good to have you", "behavioral", opened=0.6, clicked=0.35)
    told = [
        happening
        for number in range(420)
        for happening in autumn.to(number, 15.2 * 3600 + number * 1.5, chance)
    ]
    number = 1_000
    for hour, busy in enumerate(HOURS):
        for _ in range(busy):
            at = (hour + chance.random()) * 3600
            told += orders.to(number, at, chance)
            if chance.random() < 0.3:
                user = {"id": 41_000 + number, "email": f"new.{number}@example.com"}
                told.append((at, {"type": "user_created", "user": user}))
                told += welcome.to(number + 1_000, at + 5, chance)
            number += 1
    return sorted((each for each in told if each[0] < DAY), key=lambda each: each[0])


def write_day(store_url: str) -> None:
    """Write the day that ends now into an empty SQLite store."""
    begins = times.now() - DAY * times.SECOND
    clock = [0]
    writer = SqliteWriter(store_url, "store", lambda: clock[0])
    for minute, group in groupby(happenings(), key=lambda each: each[0] // 60):
        clock[0] = begins + int(minute * 60 * times.SECOND)
        bodies = [
            json.dumps(payload | {f"{payload['type']}_at": (begins // times.SECOND + int(at))})
            for at, payload in group
        ]
        writer.write([read_vero(body.encode(), clock[0]) for body in bodies], [])
    writer.close()


def last_moments(seed: str) -> list[dict[str, Any]]:
    """Webhooks that come while somebody looks."""
    chance = random.Random(seed)
    orders = Mailing(
        "Order confirmation", "Your order is on its way", "transactional", opened=1, clicked=1
    )
    return [
        payload
        for _ in range(2)
        for _, payload in orders.to(chance.randrange(50_000, 60_000), 0, chance)
    ]
