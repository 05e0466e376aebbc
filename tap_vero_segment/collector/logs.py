"""The collector's log: text for people or JSON for machines, and its lines about the start."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from tap_vero_segment import times
from tap_vero_segment.collection import BY_STREAM
from tap_vero_segment.collector.settings import url_warning, variable

if TYPE_CHECKING:
    from logging import LogRecord

    from pythonjsonlogger.core import LogData

    from tap_vero_segment.collector.committer import Commit
    from tap_vero_segment.collector.settings import Secrets


logger = logging.getLogger("vero-collector")


class LogFormat(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


TEXT: Final = "%(asctime)s %(levelname)s %(message)s"


def configure(log_format: LogFormat = LogFormat.TEXT) -> None:
    """Log to standard error, from INFO on; of the server itself, from WARNING on.

    A second call changes the format of what the first one has set up.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=TEXT)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if log_format is LogFormat.JSON:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_JsonFormatter())


class _JsonFormatter(JsonFormatter):
    """An object a line: timestamp, level, logger, message, and what the line is about."""

    def __init__(self) -> None:
        # The server colours some of its lines in a copy of the message.
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, "color_message"])

    def add_fields(
        self, log_data: LogData, record: LogRecord, message_dict: dict[str, object]
    ) -> None:
        log_data["timestamp"] = times.to_text(int(record.created * times.SECOND))
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        super().add_fields(log_data, record, message_dict)


ENDPOINTS: Final = {
    "webhook_token": "Vero's webhooks (POST /vero/TOKEN)",
    "read_token": "read API (GET /v1/events) and live page (GET /)",
    "write_key": "Tracking API (POST /v1/track, /v1/batch, /v1/import)",
    "segment_secret": "Segment's webhooks (POST /segment)",
}
"""What each secret opens. None is named itself."""


class FirstEvents:
    """Says when the first event of each collection since the start has been stored."""

    def __init__(self) -> None:
        self._missing = set(BY_STREAM)

    def committed(self, commit: Commit) -> None:
        """Look at what a commit has stored."""
        if commit.error is not None or not self._missing:
            return
        came = {event.collection for one in commit.group for event in one.events}
        for collection in sorted(self._missing & came):
            self._missing.remove(collection)
            logger.info(
                "the first %s since the start is stored",
                BY_STREAM[collection].event,
                extra={"collection": collection},
            )


def announce_store(place: str) -> None:
    """Say which version works on which store.

    Args:
        place: Where the store is, without a password.
    """
    release = version("tap-vero-segment")
    about = {"version": release, "store": place}
    logger.info("vero-collector %s, store: %s", release, place, extra=about)


def announce_endpoints(secrets: Secrets) -> None:
    """Say what the secrets open, and what stays shut for want of one."""
    given = secrets._asdict()
    is_open = [endpoint for name, endpoint in ENDPOINTS.items() if given[name]]
    shut = [endpoint for name, endpoint in ENDPOINTS.items() if not given[name]]
    line = f"open: {'; '.join(is_open)}"
    if shut:
        line += f"; shut, having no secret: {'; '.join(shut)}"
    logger.info("%s", line, extra={"open": is_open, "shut": shut})


def announce_address(url: str, public_url: str | None, secrets: Secrets) -> None:
    """Say where it listens, where a browser finds the live page, and what Vero needs.

    Args:
        url: Without a slash at its end.
        public_url: The same, where Vero reaches it; None: not known.
        secrets: The page is there where they have a read token.
    """
    logger.info("listening on %s", url, extra={"url": url})
    if secrets.read_token:
        logger.info("the live page is at %s/", url, extra={"page": f"{url}/"})
    if public_url and secrets.webhook_token:
        # A log is no place for the token.
        pasted = f"{public_url}/vero/TOKEN"
        told = "the URL to paste into Vero is %s, with %s for TOKEN"
        logger.info(told, pasted, variable("webhook_token"), extra={"webhook_url": pasted})
    if public_url and (warning := url_warning(public_url)):
        logger.warning("%s: %s", variable("url"), warning)
