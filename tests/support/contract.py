"""The public interface's tables, written down a second time: what users' SQL relies on."""

from __future__ import annotations

VERO_TYPES = {
    "sent": ("email_sent", "Email Sent"),
    "delivered": ("email_delivered", "Email Delivered"),
    "opened": ("email_opened", "Email Opened"),
    "clicked": ("email_link_clicked", "Email Link Clicked"),
    "unsubscribed": ("email_unsubscribed", "Email Unsubscribed"),
    "bounced": ("email_bounced", "Email Bounced"),
    "complained": ("email_marked_as_spam", "Email Marked as Spam"),
    "failed": ("email_failed", "Email Failed"),
    "converted": ("email_converted", "Email Converted"),
    "resubscribed": ("email_resubscribed", "Email Resubscribed"),
    "user_created": ("user_created", "User Created"),
    "user_updated": ("user_updated", "User Updated"),
}
"""The stream and the event's name, by the ``type`` of Vero's webhook."""

BY_DEFAULT = {"sent", "delivered", "opened", "clicked", "unsubscribed", "bounced", "complained"}
"""The types that are selected by default and part of ``tracks``."""

TIMES = {"received_at", "loaded_at", "timestamp", "original_timestamp", "sent_at"}
OBJECTS = {"context", "properties"}
NEVER_NULL = {"id", "received_at", "loaded_at", "timestamp", "event", "event_text"}

TRACKS_COLUMNS = [
    "id",
    "received_at",
    "loaded_at",
    "timestamp",
    "original_timestamp",
    "sent_at",
    "event",
    "event_text",
    "user_id",
    "anonymous_id",
    "context_traits_email",
    "context_ip",
    "context_user_agent",
    "context_channel",
    "context",
]

_EMAIL_COLUMNS = [
    "email_id",
    "email_subject",
    "campaign_id",
    "campaign_name",
    "campaign_type",
    "campaign_trigger_event",
    "campaign_permalink",
    "campaign_variation",
    "campaign_group",
    "campaign_channel",
    "campaign_locale",
    "campaign_tags",
    "campaign_sent_to",
    "campaign_series_title",
    "campaign_template",
]

_OWN_COLUMNS = {
    "email_delivered": ["sender_ip"],
    "email_link_clicked": ["link_id", "link_url"],
    "email_unsubscribed": ["list_id", "list_name"],
    "email_bounced": ["bounce_type", "bounce_code", "bounce_message"],
}

COLUMNS = {
    stream: {*TRACKS_COLUMNS, *_EMAIL_COLUMNS, *_OWN_COLUMNS.get(stream, []), "properties"}
    for stream, _ in VERO_TYPES.values()
}
"""Each stream's columns."""
