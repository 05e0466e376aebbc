"""The one table of collections and of their columns.

The names of columns, tables and events are those that Segment gives the events of its Vero Source
in a warehouse, so that SQL and dbt models written for it go on working.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Column(NamedTuple):
    """A column of a stream.

    Attributes:
        name: The column's name in records and in tables.
        kind: ``time`` is fixed-width UTC text, ``object`` a JSON object.
        title: A short name for people.
        description: What the column holds.
        nullable: Whether a record may hold null there.
    """

    name: str
    kind: Literal["string", "time", "object"]
    title: str
    description: str
    nullable: bool = True


class Collection(NamedTuple):
    """A kind of event, and the stream that holds it.

    Attributes:
        stream: The stream's, the table's and the event's slug: ``email_sent``.
        event: The event's name in a track call: ``Email Sent``.
        vero_type: The ``type`` of Vero's webhook: ``sent``.
        description: What has happened, for the stream's schema.
        columns: Columns beyond those that every collection has.
        email: One of the seven email collections: selected by default, and part of ``tracks``.
    """

    stream: str
    event: str
    vero_type: str
    description: str
    columns: tuple[Column, ...] = ()
    email: bool = True


def _text(name: str, title: str, description: str) -> Column:
    return Column(name, "string", title, description)


COMMON_COLUMNS: Final = (
    Column("id", "string", "Id", "The track call's messageId; the primary key.", nullable=False),
    Column(
        "received_at",
        "time",
        "Received at",
        "When the first server received the event.",
        nullable=False,
    ),
    Column(
        "loaded_at",
        "time",
        "Loaded at",
        "When the event became readable at the source; the replication key.",
        nullable=False,
    ),
    Column("timestamp", "time", "Timestamp", "When the event happened.", nullable=False),
    Column("original_timestamp", "time", "Original timestamp", "The time as the sender had it."),
    Column("sent_at", "time", "Sent at", "When the sender sent the track call."),
    Column("event", "string", "Event", "The event's slug, such as email_sent.", nullable=False),
    Column(
        "event_text",
        "string",
        "Event text",
        "The event's name, such as Email Sent.",
        nullable=False,
    ),
    _text("user_id", "User id", "Vero's id of the user, as text."),
    _text("anonymous_id", "Anonymous id", "The email address, where Vero has no user id."),
    _text("context_traits_email", "Email address", "The recipient's email address."),
    _text("context_ip", "IP address", "The IP address in the track call's context."),
    _text("context_user_agent", "User agent", "The user agent in the track call's context."),
    _text("context_channel", "Channel", "The campaign's channel: email, push or sms."),
    Column("context", "object", "Context", "Every other key of the track call's context."),
)

SEGMENT_COLUMNS: Final = (
    Column("uuid_ts", "time", "Loaded by Segment", "The same as loaded_at."),
    _text("context_library_name", "Library", "The name of the library that sent the call."),
    _text("context_library_version", "Library version", "The version of that library."),
    _text("context_integration_name", "Integration", "The integration that sent the call."),
    _text("context_integration_version", "Integration version", "The version of it."),
)
"""Further columns that Segment's warehouses have in all tables: see the setting of that name."""

EMAIL_COLUMNS: Final = (
    _text("email_id", "Email id", "The message's id, shared by all of its events."),
    _text("email_subject", "Subject", "The message's subject."),
    _text("campaign_id", "Campaign id", "Vero's id of the campaign, as text."),
    _text("campaign_name", "Campaign", "The campaign's name."),
    _text("campaign_type", "Campaign type", "Such as transactional or newsletter."),
    _text("campaign_trigger_event", "Trigger event", "The event that triggered the campaign."),
    _text("campaign_permalink", "Permalink", "Where the message can be viewed."),
    _text("campaign_variation", "Variation", "The variation that was sent."),
    _text("campaign_group", "Campaign group", "The group or workflow of the campaign."),
    _text("campaign_channel", "Channel", "Such as email or push."),
    _text("campaign_locale", "Locale", "The locale of the message, such as en-US."),
    _text("campaign_tags", "Tags", "The campaign's tags, joined by commas."),
    _text("campaign_sent_to", "Sent to", "The address, number or device the message went to."),
    _text("campaign_series_title", "Series", "The title of the series that it is part of."),
    _text("campaign_template", "Template", "The template that the message was made with."),
)

PROPERTIES_COLUMN: Final = Column(
    "properties",
    "object",
    "Properties",
    "Every property of the track call that has no column of its own.",
)

COLLECTIONS: Final = (
    Collection("email_sent", "Email Sent", "sent", "Vero has sent an email."),
    Collection(
        "email_delivered",
        "Email Delivered",
        "delivered",
        "The recipient's mail server has accepted an email.",
        (_text("sender_ip", "Sender IP", "The IP address that the email was sent from."),),
    ),
    Collection("email_opened", "Email Opened", "opened", "A recipient has opened an email."),
    Collection(
        "email_link_clicked",
        "Email Link Clicked",
        "clicked",
        "A recipient has clicked a link in an email.",
        (
            _text("link_id", "Link id", "The id of the link that was clicked."),
            _text("link_url", "Link URL", "The URL that was clicked; Vero's webhooks have none."),
        ),
    ),
    Collection(
        "email_unsubscribed",
        "Email Unsubscribed",
        "unsubscribed",
        "A recipient has unsubscribed.",
        (
            _text("list_id", "List id", "The id of the list that the recipient left."),
            _text("list_name", "List", "The name of that list."),
        ),
    ),
    Collection(
        "email_bounced",
        "Email Bounced",
        "bounced",
        "The recipient's mail server has refused an email.",
        (
            _text("bounce_type", "Bounce type", "hard or soft."),
            _text("bounce_code", "Bounce code", "The mail server's code, as text."),
            _text("bounce_message", "Bounce message", "What the mail server said."),
        ),
    ),
    Collection(
        "email_marked_as_spam",
        "Email Marked as Spam",
        "complained",
        "A recipient has marked an email as spam.",
    ),
    Collection(
        "email_failed", "Email Failed", "failed", "Vero could not send an email.", email=False
    ),
    Collection(
        "email_converted",
        "Email Converted",
        "converted",
        "A recipient has converted on a campaign.",
        email=False,
    ),
    Collection(
        "email_resubscribed",
        "Email Resubscribed",
        "resubscribed",
        "A recipient has subscribed again.",
        email=False,
    ),
    Collection(
        "user_created", "User Created", "user_created", "A user was created in Vero.", email=False
    ),
    Collection(
        "user_updated", "User Updated", "user_updated", "A user was changed in Vero.", email=False
    ),
)

TRACKS: Final = "tracks"
"""The stream of every event of the seven email collections, with the common columns only."""

ERASURES: Final = "erasures"
"""The stream of the ids of events that were erased, so that a warehouse can delete them."""

ERASURE_COLUMNS: Final = (
    Column("id", "string", "Id", "The id of an event that was erased.", nullable=False),
    Column("erased_at", "time", "Erased at", "When the event was erased.", nullable=False),
    Column(
        "loaded_at",
        "time",
        "Loaded at",
        "When the erasure became readable; the replication key.",
        nullable=False,
    ),
)

BY_EVENT: Final = {collection.event: collection for collection in COLLECTIONS}
BY_STREAM: Final = {collection.stream: collection for collection in COLLECTIONS}
BY_VERO_TYPE: Final = {collection.vero_type: collection for collection in COLLECTIONS}


def columns(collection: Collection, *, segment_columns: bool = False) -> tuple[Column, ...]:
    """Return all columns of a collection's stream, in order.

    Args:
        collection: The collection.
        segment_columns: Whether :data:`SEGMENT_COLUMNS` are among them.
    """
    common = common_columns(segment_columns=segment_columns)
    return (*common, *EMAIL_COLUMNS, *collection.columns, PROPERTIES_COLUMN)


def common_columns(*, segment_columns: bool = False) -> tuple[Column, ...]:
    """Return the columns of ``tracks``, in order; the argument is as for :func:`columns`."""
    return (*COMMON_COLUMNS, *SEGMENT_COLUMNS) if segment_columns else COMMON_COLUMNS
