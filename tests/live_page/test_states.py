"""Every state of the pages, light and dark, on a phone and on a desktop: by axe, with pictures.

The pictures go into the folder that VERO_SCREENSHOTS names. ``day-desktop-light`` and
``day-phone-dark`` are ``page-light`` and ``page-phone`` in docs/images.
"""

from __future__ import annotations

import io
import json
import os
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image  # comes with what draws the benchmark's chart
from playwright.sync_api import Browser, Page, expect

from tap_vero_segment.collector.live_page.views import MAX_EVENTS
from tests.live_page.test_browser import is_live, log_in, search_for
from tests.support.collector import Collector
from tests.support.demo_day import last_moments, write_day
from tests.support.payloads import documented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Look = Callable[[str], None]

pytestmark = pytest.mark.slow

SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 900}}

PUBLIC = """() => {
    for (const node of document.querySelectorAll("[data-base]")) {
        node.textContent = node.textContent.replaceAll(location.origin, "https://collector.example");
    }
}"""
"""Shows the host of an installation instead of that of the test."""

SMALL = """() => [...document.querySelectorAll("a[href], button, summary, select, input")]
    .filter((node) => node.checkVisibility() && node.type !== "hidden"
        // A link in a sentence is as high as the line.
        && !node.matches("p a, .skip, .for-readers *") && node.getBoundingClientRect().height < 44)
    .map((node) => node.outerHTML)"""
"""The controls that a finger hardly finds."""


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(browser: Browser, scheme: str) -> Iterator[Page]:
    # axe itself makes HTML of text, which the page's policy stops.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # type: ignore[arg-type]
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def look(page: Page, scheme: str) -> Look:
    """Looks for faults, and takes the pictures."""
    folder = os.environ.get("VERO_SCREENSHOTS")

    def looking(name: str) -> None:
        for size, viewport in SIZES.items():
            page.set_viewport_size(viewport)
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in {"serious", "critical"}]
            assert serious == [], json.dumps(serious, indent=2)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert size != "phone" or page.evaluate(SMALL) == []
            if folder:
                page.wait_for_timeout(2_000)  # until what is new looks like the rest
                page.evaluate(PUBLIC)
                picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                few_colours = picture.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=2)
                few_colours.save(Path(folder) / f"{name}-{size}-{scheme}.png", optimize=True)

    return looking


def enter(page: Page, collector: Collector) -> None:
    page.goto(collector.url)
    log_in(page)
    is_live(page)


def test_before_anything_has_come(collector, page, look, scheme):
    page.goto(collector.url)
    look("login")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 60) is (scheme == "dark")
    enter(page, collector)
    look("empty")


def test_a_day(tmp_path, page, look, scheme):
    write_day(f"sqlite:///{tmp_path}/vero-events.db")
    with Collector(tmp_path) as collector:
        enter(page, collector)
        for body in last_moments(scheme):
            collector.post(body)
        expect(page.locator("#events > li")).to_have_count(MAX_EVENTS + len(last_moments(scheme)))
        look("day")
        page.set_viewport_size(SIZES["phone"])
        newest = page.locator("#events > li").first.bounding_box()
        assert newest
        assert newest["y"] + newest["height"] < SIZES["phone"]["height"] / 2

        page.goto(f"{collector.url}/?range=7d")
        is_live(page)
        page.locator(".event summary").first.click()
        for fold in page.locator("details.card, details.more").all():
            fold.locator("summary").first.click()
        page.get_by_text("Show the URL").click()
        expect(page.get_by_role("region", name="track call")).to_contain_text("{")
        look("open")
        page.goto(f"{collector.url}{page.locator('#events a').first.get_attribute('href')}")
        look("event")


def test_dead_letters(collector, page, look):
    collector.post(documented())
    for number in range(60):
        collector.post({"type": "sms_sent", "user": {"id": number}})
    collector.post(b"no JSON")
    collector.post(documented(), token="wrong")
    enter(page, collector)
    expect(page.locator("#refusing")).to_be_visible()
    look("problems")
    for name, path in (
        ("dead-letters", "/dead-letters"),
        ("dead-letter", "/dead-letter/1"),
        ("delete", "/dead-letters/delete?reason=not+JSON"),
        ("error", "/dead-letter/1000"),
    ):
        page.goto(f"{collector.url}{path}")
        look(name)


def test_a_search(collector, page, look):
    collector.post(documented("sent"))
    collector.post(documented("opened"))
    enter(page, collector)
    search_for(page, "steve@getvero.com")
    look("found")
    page.locator(".hits a").first.click()
    for fold in page.locator("details").all():
        fold.locator("summary").click()
    look("found-event")
    page.goto(f"{collector.url}/search?s=0")
    expect(page.get_by_role("alert")).to_contain_text("no longer known")
    look("search-unknown")


def test_millions_and_no_connection(tmp_path, page, look):
    write_day(f"sqlite:///{tmp_path}/vero-events.db")
    with closing(apsw.Connection(f"{tmp_path}/vero-events.db")) as opened:
        opened.execute("UPDATE totals SET events = events % 10 + 12345678")
        opened.execute("UPDATE arrivals SET events = events * 1234")
    with Collector(tmp_path) as collector:
        enter(page, collector)
        expect(page.locator("#figure-events")).to_have_text(re.compile(r"\d\d,\d{3},\d{3}"))
        look("many")
        collector.stop()
        expect(page.locator("#live")).to_contain_text("not connected")
        look("not-connected")
