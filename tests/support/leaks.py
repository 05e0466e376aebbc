"""What no log, no message and no metric may tell."""

from __future__ import annotations

from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN

FRAGMENT = "fragment-of-a-body"
"""For tests to put into what they send."""


def assert_tells_nothing(text: str) -> None:
    """No secret, no address, nothing of a body, and no traceback that could hold them."""
    for secret in (WEBHOOK_TOKEN, READ_TOKEN, FRAGMENT, "@", "Traceback"):
        assert secret not in text
