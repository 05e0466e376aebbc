"""The live page's style, script and icon, which hold nothing secret."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from tap_vero_segment.collector.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

PATH: Final = "/static/"
FILES: Final = {
    "page.css": b"text/css; charset=utf-8",
    "page.js": b"text/javascript; charset=utf-8",
    "icon.svg": b"image/svg+xml",
}

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    # Whoever asks for another content asks for another URL.
    (b"cache-control", b"public, max-age=31536000, immutable"),
)


@cache
def response(name: str) -> Response:
    """Return a file."""
    return Response(200, _content(name), FILES[name], _HEADERS)


@cache
def urls() -> Mapping[str, str]:
    """Return the files' URLs by their names; another content has another URL."""
    return {
        name: f"{PATH}{name}?v={hashlib.sha256(_content(name)).hexdigest()[:12]}" for name in FILES
    }


@cache
def _content(name: str) -> bytes:
    return files("tap_vero_segment.collector.page").joinpath("static", name).read_bytes()
