"""Vero's webhook payloads, as its help pages show them, and many like them."""

from __future__ import annotations

import random
from typing import Any

EMAIL_TYPES = ("sent", "delivered", "opened", "clicked", "unsubscribed", "bounced", "complained")
OTHER_TYPES = ("failed", "converted", "resubscribed", "user_created", "user_updated")

STREAM_OF = {
    "sent": "email_sent",
    "delivered": "email_delivered",
    "opened": "email_opened",
    "clicked": "email_link_clicked",
    "unsubscribed": "email_unsubscribed",
    "bounced": "email_bounced",
    "complained": "email_marked_as_spam",
    "failed": "email_failed",
    "converted": "email_converted",
    "resubscribed": "email_resubscribed",
    "user_created": "user_created",
    "user_updated": "user_updated",
}


def documented(vero_type: str = "sent") -> dict[str, Any]:
    """Return a payload of a type, in the newer of the shapes that Vero has shown."""
    payload: dict[str, Any] = {
        "type": vero_type,
        "user": {"id": 123, "email": "steve@getvero.com"},
    }
    if vero_type == "unsubscribed":
        payload["unsubscribed_at"] = 1435016238
        payload["campaign"] = {
            "campaign_title": "Order confirmation",
            "series_title": "Orders",
            "message_id": "20190730123456.1.1B72E094173067F0F@veromail.com",
            "email_subject": "Your order is being processed!",
            "variation_name": "Variation A",
            "template": "default",
            "channel": "email",
        }
    elif vero_type == "user_created":
        payload["user"] |= {"first_name": "Steve", "plan": {"name": "pro", "seats": 5}}
    elif vero_type == "user_updated":
        payload |= {
            "action": "update",
            "changes": {"_tags": {"add": ["customer"], "remove": ["lead"]}},
        }
    elif vero_type != "resubscribed":
        if vero_type != "converted":
            payload[f"{vero_type}_at"] = 1435016238
        payload["campaign"] = {
            "id": 987,
            "type": "transactional",
            "name": "Order confirmation",
            "group": "Order confirmation - Email 6",
            "channel": "email",
            "subject": "Your order is being processed!",
            "trigger-event": "purchased item",
            "permalink": "http://app.getvero.com/view/1/341d64944577ac1f70f560e37db54a25",
            "sent_to": "user@example.com",
            "variation": "Variation A",
            "locale": "en-US",
        }
        payload["message_id"] = "20190730123456.1.1B72E094173067F0F@veromail.com"
        payload["event"] = {
            "name": "purchased item",
            "triggered_at": 1435016230,
            "data": {"order": 17, "items": ["a", "b"]},
        }
    if vero_type in {"opened", "clicked"}:
        payload["user_agent"] = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_9_5)"
    if vero_type == "delivered":
        payload["sender_ip"] = "198.51.100.7"
    if vero_type == "bounced":
        payload |= {
            "bounce_type": "hard",
            "bounce_code": 550,
            "bounce_message": "550 5.1.1 The email account does not exist",
        }
    return payload


def many(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Return distinct payloads of the seven email types, the same for the same seed."""
    chance = random.Random(seed)
    payloads = []
    for number in range(count):
        payload = documented(chance.choice(EMAIL_TYPES))
        payload["user"] = {"id": number, "email": f"person{number}@example.com"}
        payload[f"{payload['type']}_at"] = 1_700_000_000 + number
        payloads.append(payload)
    return payloads
