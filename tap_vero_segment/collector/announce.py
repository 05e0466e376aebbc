"""What the log says of a collector that starts: what it is, on which store, and what is open."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tap_vero_segment.collector.settings import Secrets

logger = logging.getLogger("vero-collector")

DOORS: Final = {
    "webhook_token": "Vero's webhooks (POST /vero/TOKEN)",
    "read_token": "read API (GET /v1/events) and live page (GET /)",
    "write_key": "Tracking API (POST /v1/track, /v1/batch, /v1/import)",
    "segment_secret": "Segment's webhooks (POST /segment)",
}
"""What each secret opens. None is named itself."""


def announce_store(place: str) -> None:
    """Say which version works on which store.

    Args:
        place: Where the store is, without a password.
    """
    release = version("tap-vero-segment")
    about = {"version": release, "store": place}
    logger.info("vero-collector %s, store: %s", release, place, extra=about)


def announce_doors(secrets: Secrets) -> None:
    """Say what the secrets open, and what stays shut for want of one."""
    given = secrets._asdict()
    is_open = [door for name, door in DOORS.items() if given[name]]
    shut = [door for name, door in DOORS.items() if not given[name]]
    line = f"open: {'; '.join(is_open)}"
    if shut:
        line += f"; shut, having no secret: {'; '.join(shut)}"
    logger.info("%s", line, extra={"open": is_open, "shut": shut})


def announce_address(url: str, secrets: Secrets) -> None:
    """Say where it listens, and where a browser finds the live page.

    Args:
        url: Without a slash at its end.
        secrets: The page is there where they have a read token.
    """
    logger.info("listening on %s", url, extra={"url": url})
    if secrets.read_token:
        logger.info("the live page is at %s/", url, extra={"page": f"{url}/"})
