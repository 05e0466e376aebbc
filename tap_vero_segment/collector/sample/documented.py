"""Every payload that Vero documents, with the present time.

The shapes and values are those of help.getvero.com, ``/vero-1/integrations/setting-up-webhooks``
and ``/vero-2/integrations/setting-up-reporting-webhooks``, as far as they show any; the payload of
``complained`` and ``failed`` is documented nowhere and has the shape of the others.
"""

from __future__ import annotations

from typing import Any

Payload = dict[str, Any]


def documented_payloads(now: int) -> list[Payload]:
    """Return a payload of each of Vero's twelve types.

    Args:
        now: The time of the events, in seconds since 1970.
    """
    user = {"id": 123, "email": "steve@example.com"}
    message = {
        "user": user,
        "campaign": {
            "id": 987,
            "type": "transactional",
            "name": "Order confirmation",
            "subject": "Your order is being processed!",
            "trigger-event": "purchased item",
            "permalink": "http://app.getvero.com/view/1/341d64944577ac1f70f560e37db54a25",
            "variation": "Variation A",
            "group": "Order confirmation - Email 6",
            "channel": "email",
            "sent_to": "steve@example.com",
            "locale": "en-US",
        },
        "message_id": f"{now}.1.1B72E094173067F0F@veromail.com",
        "event": {"name": "purchased item", "triggered_at": now - 30, "data": {"order": 17}},
    }
    browser = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15"
    return [
        {"type": "sent", "sent_at": now, **message},
        {"type": "delivered", "delivered_at": now, "sender_ip": "198.51.100.7", **message},
        {"type": "opened", "opened_at": now, "user_agent": browser, **message},
        {"type": "clicked", "clicked_at": now, "user_agent": browser, **message},
        {"type": "failed", "failed_at": now, **message},
        {
            "type": "bounced",
            "bounced_at": now,
            "bounce_type": "hard",
            "bounce_code": "521",
            "bounce_message": "521 5.2.1 : (CON:B1)",
            **message,
        },
        {"type": "converted", **message},
        {
            "type": "unsubscribed",
            "unsubscribed_at": now,
            "user": user,
            "campaign": {
                "campaign_title": "Order confirmation",
                "series_title": "Orders",
                "message_id": message["message_id"],
                "email_subject": "Your order is being processed!",
                "variation_name": "Variation A",
                "template": "default",
                "channel": "email",
            },
        },
        {"type": "resubscribed", "user": user},
        {"type": "complained", "complained_at": now, **message},
        {"type": "user_created", "user": {**user, "first_name": "Steve", "plan": "pro"}},
        {
            "type": "user_updated",
            "action": "update",
            "user": user,
            "changes": {"_tags": {"add": ["customer"], "remove": ["lead"]}},
        },
    ]
