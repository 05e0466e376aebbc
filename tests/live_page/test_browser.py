"""The live page in a real browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tap_vero_segment import times
from tap_vero_segment.stores.base import DeadLetter
from tap_vero_segment.stores.open import open_writer
from tests.support.collector import READ_TOKEN, WEBHOOK_TOKEN, Collector
from tests.support.events import read_events
from tests.support.payloads import documented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Open = Callable[..., Page]

pytestmark = pytest.mark.slow

PHONE = {"width": 360, "height": 740}
MARKUP = "</pre><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>\"&\u202e"

expect.set_options(timeout=20_000)


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
    cells = page.locator(".rows tr", has=page.get_by_role("rowheader", name=name)).locator("td")
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


def test_the_list_stands_still_while_somebody_reads_it(collector, open_page):
    """A pointer over it, the focus in it, an open event and a pause each hold it."""
    number = 0

    def post() -> None:
        nonlocal number
        number += 1
        collector.post(documented("opened") | {"user": {"id": number}})

    post()
    page = open_page()
    is_live(page)
    shown, fresh = page.locator("#events > li"), page.locator("#fresh")
    title = page.get_by_role("heading", name="Latest events")
    pause = page.get_by_role("button", name="Pause")

    def holds(begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        before = shown.count()
        begin()
        for several in (1, 2):
            post()
            expect(fresh).to_have_text(f"{several} new")
        assert shown.count() == before
        end()
        expect(shown).to_have_count(before + 2)
        expect(fresh).to_be_hidden()

    summary = shown.first.locator("summary")
    holds(summary.hover, title.hover)
    holds(summary.focus, title.focus)
    holds(summary.click, lambda: (title.hover(), summary.click(), title.hover(), title.focus()))
    holds(pause.click, page.get_by_role("button", name="Resume").click)
    # The button lets go, and what is open stays so.
    title.hover()
    holds(lambda: (shown.last.locator("summary").click(), title.hover()), fresh.click)
    expect(title).to_be_focused()
    expect(shown.last.get_by_role("region", name="track call")).to_be_visible()


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
    assert page.url == f"{collector.url}/"
    letters.filter(has_text="an old fault").get_by_role("link", name="Show").click()
    expect(page.locator("pre")).to_contain_text('"type": "opened"')
    expect(page.get_by_role("button", name="Copy the body")).to_be_visible()
    page.get_by_role("button", name="Replay").click()

    expect(page.locator("#done")).to_have_text("The dead letter is an event now.")
    expect(page.locator("#done")).to_be_focused()
    assert page.url == f"{collector.url}/dead-letters"
    page.get_by_role("link", name="Live page").click()
    expect(letters).to_have_count(1)
    expect(page.locator("#events > li")).to_contain_text("Email Opened")


def test_many_dead_letters_are_replayed_and_deleted(collector, open_page):
    for number in range(60):
        quarantine(collector, json.dumps(documented("sent") | {"user": {"id": number}}).encode())
        quarantine(collector, b"no JSON %d" % number, "not JSON")
    page = open_page()
    page.get_by_role("link", name="120", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dead letters: 120")
    page.get_by_role("link", name="Older").click()
    page.get_by_role("link", name="Older").click()
    expect(page.locator(".letters > li")).to_have_count(20)
    page.get_by_role("link", name="List: not JSON").click()
    expect(page.locator(".letters > li")).to_have_count(50)
    expect(page.locator(".letters > li").first).to_contain_text("not JSON")

    page.get_by_role("button", name="Replay all: an old fault").click()
    expect(page.locator("#progress")).to_contain_text("New events: 60")
    page.get_by_role("link", name="Delete all: all").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Delete 60 dead letters?")
    page.get_by_role("link", name="Keep").click()
    page.get_by_role("link", name="Delete dead letter 120").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("#done")).to_have_text("The dead letter was deleted.")
    page.get_by_role("link", name="Delete all: not JSON").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator("#progress")).to_have_text("Dead letters deleted: 59")
    expect(page.get_by_text("There are no dead letters")).to_be_visible()


def quarantine(collector: Collector, body: bytes, reason: str = "an old fault") -> None:
    """As an older release would have, which did not know better."""
    writer = open_writer(collector.store_url, "store")
    writer.write([], [DeadLetter(times.now(), "vero", reason, body)])
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
    page.get_by_text("Connect Vero").click()
    page.get_by_text("Show the URL").click()
    expect(page.locator("#webhook-url")).to_have_text(f"{collector.url}/vero/{WEBHOOK_TOKEN}")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status").first).to_contain_text("still cannot be mapped")
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("img", name="2 events in the last 7 days")).to_be_visible()
    page.locator("#figure-letters").click()
    page.get_by_role("link", name="Delete all: not JSON").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("status").first).to_contain_text("Dead letters deleted: 1")


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
