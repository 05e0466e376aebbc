"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = (
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """Where Chromium is; skip the test where there is none.

    With ``VERO_TESTS_NEED_CHROMIUM`` set, as in CI, that is a failure.
    """
    found = shutil.which("chromium")
    if found:
        return found
    if os.environ.get("VERO_TESTS_NEED_CHROMIUM"):
        pytest.fail("no Chromium is installed")
    pytest.skip("needs Chromium: apt-get install chromium")


@contextmanager
def running_browser() -> Iterator[Browser]:
    executable = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()
