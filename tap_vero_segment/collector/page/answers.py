"""Answers of the live page: HTML that may load nothing but its own style and script."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from tap_vero_segment.collector.page import static
from tap_vero_segment.collector.responses import NO_STORE, HTTPError, Response

if TYPE_CHECKING:
    from tap_vero_segment.collector.responses import Refusal

HTML: Final = b"text/html; charset=utf-8"

_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    # A script that would make HTML of text is stopped.
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
POLICY: Final = "; ".join(f"{name} {value}" for name, value in _POLICY.items())

HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    *NO_STORE,
)

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("tap_vero_segment.collector.page", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_ENVIRONMENT.globals["static"] = static.urls()


def html(name: str, status: int = 200, *headers: tuple[bytes, bytes], **context: Any) -> Response:
    """Return a page.

    Args:
        name: The template.
        status: The HTTP status.
        headers: Further headers.
        context: What the template shows; all of it is text.
    """
    body = _ENVIRONMENT.get_template(name).render(context).encode()
    return Response(status, body, HTML, (*HEADERS, *headers))


@cache
def login_form(*, again: bool) -> Response:
    """Return the form to log in, which everybody may have, so that it must cost nothing.

    Args:
        again: Whether the browser shall come again by itself.
    """
    return html("login.html", message=None, again=again)


def redirect(path: str, *headers: tuple[bytes, bytes]) -> Response:
    """Return the answer to a form that was taken: look there."""
    return Response(303, b"", HTML, (*HEADERS, (b"location", path.encode()), *headers))


class PageError(HTTPError):
    """An answer that ends the handling of a request, as a page that a person can read.

    Args:
        status: The HTTP status.
        message: What went wrong; it repeats nothing of the request.
        headers: Further headers of the answer.
        reason: What the metrics count it as; None: what the status means.
        login: Whether the page asks for the read token.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *headers: tuple[bytes, bytes],
        reason: Refusal | None = None,
        login: bool = False,
    ) -> None:
        super().__init__(status, message, *headers, reason=reason)
        self._login = login

    def response(self) -> Response:
        """Return the page."""
        template = "login.html" if self._login else "error.html"
        return html(template, self.status, *self.headers, message=self.message, again=False)
