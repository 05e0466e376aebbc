"""The live page in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tap_vero_segment import times
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.open import open_writer
from tests.support.browser import running_browser
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, Collector
from tests.support.demo_day import last_moments, write_day
from tests.support.events import read_events
from tests.support.payloads import documented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[..., Page]

pytestmark = pytest.mark.slow

MARKUP = "</pre><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\"&\u202e"
PHONE = {"width": 360, "height": 740}

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Not for longer: while Playwright is there, no other test could run an event loop.
    with running_browser() as running:
        yield running


@pytest.fixture
def complaints() -> list[str]:
    """What a browser has said that a page without faults gives no reason to."""
    return []


@pytest.fixture
def open_page(browser: Browser, collector: Collector, complaints: list[str]) -> Iterator[Open]:
    """Opens the collector's page in a fresh browser; all it asks for must be the collector's."""
    contexts: list[BrowserContext] = []

    def opening(*, logged_in: bool = True, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: said.type in {"error", "warning"} and note(said.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.on("dialog", lambda dialog: note(dialog.message))
        page.on("request", lambda asked: asked.url.startswith(collector.url) or note(asked.url))
        page.goto(collector.url)
        if logged_in:
            log_in(page)
        return page

    def note(text: str) -> None:
        complaints.append(text)

    yield opening
    for context in contexts:
        context.close()
    assert complaints == []


def log_in(page: Page) -> None:
    page.get_by_label("Read token").fill(READ_TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def is_live(page: Page) -> None:
    expect(page.locator("#live")).to_have_text("live")


def search_for(page: Page, text: str) -> None:
    page.locator("header").get_by_role("link", name="Search").click()
    page.get_by_label("Search for").fill(text)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#results")).to_be_visible()


def row(page: Page, name: str) -> list[str]:
    cells = page.locator("#rows tr", has=page.get_by_role("rowheader", name=name)).locator("td")
    return [text.strip() for text in cells.all_inner_texts()][:3]


def test_a_collector_that_is_gone_receives_nothing(collector, open_page):
    collector.post(documented("opened"))
    page = open_page()
    is_live(page)
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("Events are arriving", use_inner_text=True)
    collector.stop()
    expect(title).to_have_text("Not connected to the collector", use_inner_text=True)


def test_events_show_as_they_come(collector, open_page):
    page = open_page()
    is_live(page)
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("Nothing has arrived yet", use_inner_text=True)

    collector.post(documented("opened"))
    expect(title).to_have_text("Events are arriving", use_inner_text=True)
    expect(page.locator("#events > li")).to_have_count(1)
    assert row(page, "Email Opened")[:2] == ["1", "1"]
    assert page.get_by_role("img", name="1 in the last 24 hours").count() == 1
    for number in range(30):  # more than a message holds
        collector.post(documented("sent") | {"user": {"id": number, "email": "a@example.com"}})
    expect(page.locator("#figure-events")).to_have_text("31")
    assert row(page, "Email Sent")[:2] == ["30", "30"]
    expect(page.locator("#events > li").first).to_contain_text("a@example.com")

    opened = page.locator(".event", has_text="Email Opened")
    opened.locator("summary").click()
    expect(opened.get_by_role("region", name="track call")).to_contain_text(
        '"event": "Email Opened"'
    )
    [event] = [one for one in read_events(collector) if one["event"] == "Email Opened"]
    assert json.loads(opened.locator("pre").inner_text()) == event
    opened.get_by_role("link", name="Open on its own page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Email Opened")
    assert json.loads(page.locator("#call").inner_text()) == event

    page.get_by_role("link", name="Live page").click()
    page.get_by_label("Show").select_option("Email Opened")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#events > li")).to_have_count(1)
    is_live(page)
    collector.post(documented("clicked"))
    collector.post(documented("opened") | {"user": {"id": 2, "email": "second@example.com"}})
    expect(page.locator("#events > li")).to_have_count(2)
    expect(page.locator("#events > li").first).to_contain_text("second@example.com")

    page.get_by_role("button", name="Pause").click()
    collector.post(documented("opened") | {"user": {"id": 3}})
    expect(page.get_by_role("button", name="Resume (1 more)")).to_be_visible()
    assert page.locator("#events > li").count() == 2
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#events > li")).to_have_count(3)


def test_a_dead_letter_is_replayed_and_goes(collector, open_page):
    page = open_page()
    is_live(page)
    expect(page.get_by_role("heading", name="Dead letters")).to_be_hidden()
    collector.post(b"no JSON")
    letters = page.locator("#letters > li")
    expect(letters).to_have_count(1)
    quarantine(collector, json.dumps(documented("opened")).encode())
    expect(letters).to_have_count(2)

    letters.filter(has_text="not JSON").get_by_role("button", name="Replay").click()
    expect(page.locator("#done")).to_contain_text("still cannot be mapped, and stays")
    letters.filter(has_text="an old fault").get_by_role("link", name="Show").click()
    expect(page.locator("pre")).to_contain_text('"type": "opened"')
    page.get_by_role("button", name="Replay").click()

    expect(page.locator("#done")).to_have_text("The dead letter is an event now.")
    expect(page.locator("#done")).to_be_focused()
    expect(letters).to_have_count(1)
    expect(page.locator("#events > li")).to_contain_text("Email Opened")


def quarantine(collector: Collector, body: bytes) -> None:
    """As an older release would have, which did not know better."""
    writer = open_writer(collector.store_url, "store")
    writer.write([], [DeadLetter(times.now(), "vero", "an old fault", body)])
    writer.close()


def test_the_buttons_do_what_they_say(collector, open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    url = f"{collector.url}/vero/{WEBHOOK_TOKEN}"

    page.get_by_role("button", name="Copy the URL").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == url
    expect(page.get_by_text(url)).to_be_hidden()  # as long as nobody asks for it
    page.get_by_text("Show the URL").click()
    expect(page.get_by_text(url)).to_be_visible()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.locator("[data-copy=command]")).to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    assert f"TAP_VERO_SEGMENT_SOURCE={collector.url}\n" in command
    assert READ_TOKEN not in command

    page.get_by_role("button", name="Send a test event").click()
    expect(page.get_by_role("status").first).to_contain_text("A test event was sent")
    expect(page.locator("#events > li")).to_have_count(1)
    expect(page.locator("#events > li")).to_contain_text("Test event of the live page")
    assert page.url == f"{collector.url}/"  # so that a reload says nothing of it
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Read token")).to_be_visible()


def test_without_a_clipboard_the_old_way_is_taken(open_page):
    page = open_page(logged_in=False)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    log_in(page)
    page.get_by_role("button", name="Copy the URL").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()


def test_a_link_on_another_site_leads_to_the_page(collector, open_page, complaints):
    """Though the browser brings no cookie then."""
    page = open_page()
    another = collector.url.replace("127.0.0.1", "localhost")
    page.goto(another)
    expect(page.get_by_label("Read token")).to_be_visible()
    page.evaluate("url => { location = url; }", collector.url)
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    assert all(said.startswith(another) for said in complaints)
    complaints.clear()


def test_markup_shows_as_text_and_runs_nothing(collector, open_page):
    hostile = documented("opened") | {"user_agent": MARKUP, MARKUP: {MARKUP: [MARKUP]}}
    hostile["user"] = {"id": MARKUP, "email": MARKUP, MARKUP: MARKUP}
    hostile["campaign"] = dict.fromkeys((*hostile["campaign"], MARKUP), MARKUP)
    page = open_page()
    is_live(page)
    for number in range(2):  # one made by the script, one by the server
        collector.post(hostile | {"number": number})
        collector.post(f"{MARKUP} {number}".encode())
        expect(page.locator("#events > li")).to_have_count(number + 1)
        expect(page.locator("#letters > li")).to_have_count(number + 1)
        page.reload()
        is_live(page)
    expect(page.locator(".who").first).to_have_text(MARKUP)
    for event in page.locator(".event").all():
        event.locator("summary").click()
        expect(event.locator("pre")).to_contain_text("<script>")
    pages = [link.get_attribute("href") for link in page.locator("#events a, #letters a").all()]
    assert len(pages) == 4
    for path in pages:
        assert page.evaluate("window.ran") is None
        assert page.locator("main script, main img").count() == 0
        page.goto(f"{collector.url}{path}")
        expect(page.locator("pre").first).to_contain_text("<script>")
    search_for(page, MARKUP)
    expect(page.locator(".hits bdi").first).to_have_text(MARKUP)
    assert page.evaluate("window.ran") is None


def test_a_keyboard_is_enough(collector, open_page):
    collector.post(documented("opened"))
    page = open_page(logged_in=False)

    expect(page.get_by_label("Read token")).to_be_focused()
    page.keyboard.type(READ_TOKEN)
    page.keyboard.press("Enter")
    is_live(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    summary = page.locator(".event summary")
    for _ in range(60):
        if summary.evaluate("node => node === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="track call")).to_contain_text("Email Opened")


def test_it_goes_on_after_a_restart(collector, open_page, complaints):
    page = open_page()
    is_live(page)
    collector.kill()
    expect(page.locator("#live")).to_contain_text("not connected")
    collector.start()
    collector.post(documented("opened"))  # before the page is back
    # A session of before the start is not believed: it could have been logged out.
    expect(page.locator("#live")).to_contain_text("logged out")
    page.reload()
    log_in(page)
    expect(page.locator("#events > li")).to_have_count(1)
    is_live(page)
    assert all("ERR_" in said or "401" in said for said in complaints)
    complaints.clear()


def test_without_scripts_only_the_liveness_is_missing(collector, open_page):
    collector.post(documented("opened"))
    collector.post(documented("sent"))
    collector.post(b"no JSON")
    page = open_page(java_script_enabled=False)
    page.get_by_role("link", name="Email Opened").click()
    expect(page.locator("#events > li")).to_have_count(1)
    page.locator(".event summary").click()
    page.get_by_role("link", name="Open on its own page").click()
    expect(page.locator("#call")).to_contain_text('"event": "Email Opened"')
    page.get_by_text("Read it with cURL").click()
    expect(page.locator("#read")).to_contain_text(f"{collector.url}/v1/events/search?id=")
    search_for(page, "STEVE@getvero.com")
    expect(page.locator(".hits tbody tr")).to_have_count(2)
    page.get_by_role("link", name="Live page").click()
    page.get_by_text("Show the URL").click()
    expect(page.locator("#webhook-url")).to_have_text(f"{collector.url}/vero/{WEBHOOK_TOKEN}")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status").first).to_contain_text("still cannot be mapped")


def test_an_event_is_found_opened_and_copied(collector, open_page):
    for vero_type in ("sent", "opened"):
        collector.post(documented(vero_type))
    sent, opened = read_events(collector)
    page = open_page(permissions=["clipboard-read", "clipboard-write"], viewport=PHONE)

    def copied(name: str, what: str) -> str:
        page.locator(f"[data-copy={name}]").click()
        expect(page.locator(f"[data-copy={name}]")).to_have_text("Copied")
        text: str = page.evaluate("navigator.clipboard.readText()")
        assert text.startswith(what)
        return text

    search_for(page, "steve@getvero.com")
    page.locator(".hits").get_by_role("link", name="Email Sent").click()
    assert json.loads(copied("call", "{")) == sent
    assert collector.url in copied("read", "curl ")
    assert f"{collector.url}/vero/" in copied("post", "curl ")
    page.locator(".story").first.get_by_role("link", name="Email Opened").click()
    expect(page).to_have_url(f"{collector.url}/event/{opened['loadedAt']}")
    # Back is back at what was found, though nothing of it is in the URL.
    page.go_back()
    page.go_back()
    expect(page.locator(".hits tbody tr")).to_have_count(2)
    page.reload()
    expect(page.get_by_label("Search for")).to_have_value("steve@getvero.com")
    page.locator(".hits").get_by_role("link", name="Email Opened").click()
    page.locator(".card", has_text="This recipient").get_by_role("button", name="Show all").click()
    expect(page.locator("#results")).to_contain_text("Recipient: steve@getvero.com")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(collector, open_page, scheme):
    # axe itself makes HTML of text, which the page's policy stops.
    page = open_page(logged_in=False, color_scheme=scheme, bypass_csp=True, viewport=PHONE)
    check(page)
    log_in(page)
    check(page)
    collector.post(documented("opened"))
    collector.post(documented("bounced"))
    collector.post(b"no JSON")
    page.get_by_role("button", name="Send a test event").click()
    is_live(page)
    page.locator(".event summary").first.click()
    page.get_by_text("Show the URL").click()
    expect(page.get_by_role("region", name="track call")).to_contain_text("{")
    check(page)
    page.set_viewport_size({"width": 1280, "height": 900})
    check(page)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 60) is (scheme == "dark")
    page.set_viewport_size(PHONE)
    links = [page.locator(f"{each} a").first for each in ("#events", "#letters")]
    for path in [link.get_attribute("href") for link in links]:
        page.goto(f"{collector.url}{path}")
        check(page)
    search_for(page, "steve@getvero.com")
    check(page)
    page.set_viewport_size({"width": 1280, "height": 900})
    check(page)
    page.locator(".hits a").first.click()
    for details in page.locator("details").all():
        details.locator("summary").click()
    check(page)
    page.goto(f"{collector.url}/search?s=0")
    expect(page.get_by_role("alert")).to_contain_text("no longer known")
    check(page)


def check(page: Page) -> None:
    """No serious fault, and nothing that sticks out to the side."""
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    assert serious == [], json.dumps(serious, indent=2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif("VERO_SCREENSHOTS" not in os.environ, reason="takes pictures for docs/images")
def test_pictures(tmp_path, browser):
    """Into the folder that VERO_SCREENSHOTS names."""
    from PIL import Image  # comes with what draws the benchmark's chart

    folder = Path(os.environ["VERO_SCREENSHOTS"])
    write_day(f"sqlite:///{tmp_path}/vero-events.db")
    with Collector(tmp_path) as collector:
        collector.post({"type": "sms_sent", "user": {"id": 7}})
        for scheme in ("light", "dark"):
            context = browser.new_context(
                color_scheme=scheme, viewport={"width": 1200, "height": 1080}
            )
            page = context.new_page()
            page.goto(collector.url)
            log_in(page)
            is_live(page)
            before = page.locator("#events > li").count()
            for body in last_moments(scheme):
                collector.post(body)
            expect(page.locator("#events > li")).to_have_count(before + len(last_moments(scheme)))
            page.wait_for_timeout(2_000)  # until what is new looks like the rest
            page.evaluate(PUBLIC, collector.url)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            few_colours = picture.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=2)
            few_colours.save(folder / f"page-{scheme}.png", optimize=True)
            context.close()


PUBLIC = """(own) => {
    for (const node of document.querySelectorAll("[data-base]")) {
        node.textContent = node.textContent.replaceAll(own, "https://collector.example");
    }
}"""
"""Shows the host of an installation instead of that of the test."""
