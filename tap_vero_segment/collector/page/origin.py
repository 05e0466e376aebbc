"""Where a request comes from, by what a browser says of it, and where it went to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tap_vero_segment.collector.request import Request

_HOST: Final = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}))(?::[0-9]{1,5})?"
)

UNKNOWN_HOST: Final = "collector.example"
"""Stands in a URL where the request names no host that could."""


def is_own(request: Request) -> bool:
    """Return whether a request was made by a page of this collector, or by no page at all.

    A browser says so in ``Sec-Fetch-Site``, or, where it does not trust the connection, in
    ``Origin``. What says neither is no browser of today, and has no session of one's.
    """
    site = request.header(b"sec-fetch-site")
    if site is not None:
        return site in {b"same-origin", b"none"}
    origin = request.header(b"origin")
    if origin is None:
        return True
    try:
        netloc = urlsplit(origin.decode("ascii")).netloc
    except ValueError:
        return False
    return netloc.lower() == (_host(request) or "").lower() != ""


def base_url(request: Request) -> str:
    """Return the collector's URL as the client has it, without a slash at its end."""
    return f"{request.scheme}://{_host(request) or UNKNOWN_HOST}"


def _host(request: Request) -> str | None:
    given = (request.header(b"host") or b"").decode("latin-1")
    return given if _HOST.fullmatch(given) else None
