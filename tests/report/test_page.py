"""The page: its figures beside those of plain loops, its size, and what a browser makes of it."""

from __future__ import annotations

import io
import json
import os
import random
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tap_vero_segment import times
from tap_vero_segment.report.funnel import DOMAINS, STEPS, UNKNOWN_DOMAIN, Question, period_before
from tap_vero_segment.report.html import page
from tap_vero_segment.report.warehouse import Report, read_duckdb, read_postgres
from tests.support.browser import running_browser
from tests.support.collector import run_collector
from tests.support.funnel import STEP_OF, DuckDB, PostgreSQL, channel_of, event, first_day, load

AT = 1_795_425_840  # a Monday, 2026-11-23
DAY = 86_400
WEEK = 7 * DAY
KINDS = ("sent", "delivered", "opened", "clicked", "bounced", "unsubscribed", "complained")
MARKS = "document.title = 1"
NAMES = (
    f'<img src=x onerror="{MARKS}"><script>{MARKS}</script>',
    f"</script><script>{MARKS}</script>",
    "<a href='https://evil.example/'>link</a> <b>bold</b> {{ 7 * 7 }}",
    "Autumn & winter",
)


def read(warehouse: DuckDB | PostgreSQL, question: Question) -> Report:
    if isinstance(warehouse, DuckDB):
        return read_duckdb(warehouse.path, "vero", question, detailed=True)
    return read_postgres(warehouse.url, "vero", question, detailed=True)


def found(figures: Any, steps: dict[str, Any]) -> dict[str, int]:
    return {step: figures[step] for step in steps if figures[step]}


def test_days_and_domains_are_those_of_plain_loops(warehouse, records):
    addresses = ("P{}@Domain{}.Example", "odd@name{}@ domain{}.example ", "{}{}", None)
    located = [
        record | {"context_traits_email": address and address.format(number, number % 23)}
        for number, record in enumerate(records)
        for address in (addresses[0 if number % 4 else number // 4 % 4],)
    ]
    load(warehouse, located)
    load(warehouse, located[::3])  # a target that appends
    days: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    people: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for record in located:
        if channel_of(record) != "email":
            continue
        step, address = STEP_OF[record["event"]], record["context_traits_email"]
        day = first_day(record, "day", "America/New_York")
        days[day][step].add(record["id"])
        domain = (
            address.rpartition("@")[2].strip().lower()
            if address and "@" in address
            else UNKNOWN_DOMAIN
        )
        person = record["user_id"] or record["anonymous_id"] or (address and address.lower())
        if person is not None:
            people[domain][step].add(person)

    details = read(warehouse, Question(timezone="America/New_York")).details

    assert details is not None
    assert {(day, step): events for day, step, events in details.days} == {
        (day, step): len(ids) for day, steps in days.items() for step, ids in steps.items()
    }
    assert details.all_domains == len(people) == 24
    assert len(details.domains) == DOMAINS
    bad = [len(people[domain]["bounced"] | people[domain]["spam"]) for domain in people]
    shown = {line.campaign for line in details.domains}
    for line in details.domains:
        steps = people[line.campaign]
        assert found(line.recipients, line.recipients) == {
            step: len(those) for step, those in steps.items() if those
        }
    assert sum(sorted(bad)[-DOMAINS:]) == sum(
        len(people[domain]["bounced"] | people[domain]["spam"]) for domain in shown
    )


@pytest.mark.parametrize(
    ("since", "until", "zone", "begins"),
    [
        ("2026-11-01", "2026-12-01", "UTC", "2026-10-02T00:00"),
        # A day is as long as its hours: in Berlin the clock was set back on 25 October.
        ("2026-10-20T22:00", "2026-11-05T23:00", "Europe/Berlin", "2026-10-04T22:00"),
        # What is still to come is no part of the period.
        ("2026-12-20", "2027-06-01", "UTC", "2026-12-08T12:00"),
        ("2026-12-20", None, "UTC", "2026-12-08T12:00"),
        ("0001-06-01", None, "UTC", None),
        (None, "2026-12-01", "UTC", None),
        ("2028-01-01", None, "UTC", None),
    ],
)
def test_the_period_before_is_as_long(since, until, zone, begins):
    since, until = (text and times.canonical(text) for text in (since, until))
    question = Question(since=since, until=until, timezone=zone, campaign="1")

    before = period_before(question, times.from_text("2026-12-31T12:00:00Z"))

    expected = begins and question._replace(since=times.canonical(begins), until=since)
    assert before == expected


def test_tiles_say_what_was_before_and_the_axis_has_the_whole_period(warehouse):
    def emails(at: int, opened: int) -> list[dict[str, Any]]:
        return [
            event(kind, at, user={"id": number, "email": f"{number}@example.com"})
            for kind, people in (("sent", 10), ("delivered", 10), ("opened", opened))
            for number in range(people)
        ]

    load(warehouse, [*emails(AT, 5), *emails(AT - WEEK, 2), *emails(AT - WEEK, 2)])
    question = Question(since=times.to_text((AT - AT % DAY - 3 * DAY) * times.SECOND))
    question = question._replace(until=times.to_text((AT - AT % DAY + 4 * DAY) * times.SECOND))

    html = page(read(warehouse, question))

    text = " ".join(html.split())
    assert "2026-11-20 to 2026-11-26" in text
    assert "2026-11-13 to 2026-11-19" in text
    assert "before: 20.0%</small> <small>+30.0 points" in text
    assert "before: 10</small> <small>no change" in text
    # Seven days, and the events on the fourth of them.
    assert 'viewBox="0 0 70 40"' in text
    assert text.count('<rect x="31" width="7"') == 2
    assert "2026-11-23: sent 10, delivered 10, opened 5" in text


@pytest.mark.parametrize(
    ("days", "unit", "bars"),
    [(184, "day", ["2020-01-01", "2020-07-02"]), (185, "week", ["week of 2019-12-30"]),
     (1_101, "month", ["2020-01", "2023-01"]), (20_000, "year", ["2020", "2074"])],
)  # fmt: skip
def test_a_bar_is_a_day_a_week_a_month_or_a_year(tmp_path, days, unit, bars):
    first = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, [event("sent", first + day * DAY, user={"id": 1}) for day in (0, days - 1)])

    html = page(read(warehouse, Question()))

    assert f"<h2>By {unit}</h2>" in html
    assert f'viewBox="0 0 {10 * days} 40"' in html
    assert all(f"<title>{bar}: sent 1</title>" in html for bar in bars)


def test_three_hundred_campaigns_are_300_kb_at_most(tmp_path):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    warehouse.run("CREATE SCHEMA vero")
    for place, step in enumerate(STEPS):
        warehouse.run(
            f"CREATE TABLE vero.{step.table} AS SELECT n || '-' || week AS id,"
            " TIMESTAMP '2026-11-23' + week * INTERVAL 7 DAY AS timestamp,"
            " CAST(10000000 + n AS VARCHAR) AS campaign_id,"
            " REPEAT('A long name ', 9) || n AS campaign_name, CAST(n AS VARCHAR) AS user_id,"
            " n || '@domain' || n || '.example' AS context_traits_email"
            f" FROM range(300) AS a(n), range(6) AS b(week) WHERE n % 8 >= {place}"
        )

    html = page(read(warehouse, Question()))

    assert len(html.encode()) <= 300_000
    assert html.count("<details>") == 1 + 1_000 // 6
    assert "These are the 166 campaigns with the most recipients; --csv has all 300" in html
    assert sum(f"({10_000_000 + number})" in html for number in range(300)) == 300


def test_a_period_without_events_says_so(tmp_path):
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, [event("sent", AT, user={"id": 1})])

    done = run_collector(
        *("report", *warehouse.options, "--until", "2020-01-01", "--html", "f.html"), cwd=tmp_path
    )

    advice = "Choose another period, campaign or channel, or load more events."
    html = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert f"No event of a campaign was found. {advice}" in done.stdout
    assert advice in html
    assert "until 2019-12-31" in html
    assert "email_sent" in html
    assert 'class="tiles"' not in html


@pytest.mark.slow
def test_the_page_needs_no_network_and_runs_no_name(tmp_path: Path) -> None:
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(
        warehouse,
        [
            event(
                kind,
                AT + week * WEEK,
                user={"id": person, "email": f"{person}@<b>{number}</b>.example"},
                campaign={"id": number, "name": name},
            )
            for number, name in enumerate(NAMES)
            for kind in KINDS[: 3 + number]
            for week in range(2)
            for person in range(4 - number)
        ],
    )
    done = run_collector("report", *warehouse.options, "--html", "f.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page_url = (tmp_path / "f.html").as_uri()

    with running_browser() as browser:
        shown = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        requests: list[str] = []
        wrong: list[str] = []
        shown.on("request", lambda request: requests.append(request.url))
        shown.on("console", lambda message: wrong.append(message.text))
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.goto(page_url)

        campaigns = shown.get_by_role("region", name="Figures of each campaign", exact=True)
        order = lambda: campaigns.locator("tbody th").all_text_contents()  # noqa: E731
        labels = [f"{name} ({number})" for number, name in enumerate(NAMES)]
        assert order() == labels
        # By keyboard: the most bounces first, then the fewest; a rate of nothing comes last.
        campaigns.get_by_role("button", name="bounced").press("Enter")
        assert order()[:2] == [labels[2], labels[3]]
        campaigns.get_by_role("button", name="bounced").press("Enter")
        assert order()[:2] == labels[:2]
        assert campaigns.get_by_role("columnheader", name="bounced").get_attribute("aria-sort") == (
            "ascending"
        )
        campaigns.get_by_role("button", name="campaign").click()
        assert order() != labels

        weeks = shown.locator("#c1")
        assert weeks.is_hidden()
        campaigns.get_by_role("link", name="(0)").click()
        weeks.wait_for(state="visible")
        assert weeks.locator("tbody tr").count() == 2

        assert shown.locator("main > section script, main a[href^=http], main img").count() == 0
        assert shown.title() == "Campaign funnel"
        assert shown.evaluate("document.documentElement.scrollWidth") == 390
        shown.emulate_media(media="print", color_scheme="dark")
        shown.set_viewport_size({"width": 718, "height": 800})  # paper
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert set(requests) <= {page_url, f"{page_url}#c1"}
        assert wrong == []
        for scheme in ("light", "dark"):
            # axe itself makes HTML of text, which the page's policy stops.
            context = browser.new_context(bypass_csp=True, color_scheme=scheme)
            checked = context.new_page()
            checked.goto(page_url)
            checked.locator("summary").first.click()
            violations = Axe().run(checked).response["violations"]
            assert violations == [], json.dumps(violations, indent=2)
            context.close()


CAMPAIGNS = (
    ("Order confirmation", 12, 1, 0.7), ("Autumn collection", 190, 28, 0.41),
    ("Welcome", 5, 1, 0.6), ("Newsletter", 120, 7, 0.35), ("We miss you", 60, 21, 0.22),
)  # fmt: skip
PROVIDERS = ("gmail.com",) * 6 + ("outlook.com", "outlook.com", "yahoo.com", "icloud.com", "gmx.de")


def autumn() -> list[dict[str, Any]]:
    """Events of some weeks: what is sent daily, and what is sent to many now and then."""
    chance = random.Random(1)
    events = []
    for number, (name, people, every, opened) in enumerate(CAMPAIGNS):
        for day in range(-34, 28, every):
            # Nothing was sent on some days in November.
            for _ in range(0 if 1 < day < 5 else people):
                person = chance.randrange(4_000)
                address = f"{person}@{PROVIDERS[person % len(PROVIDERS)]}"
                kinds = ["sent", "bounced" if chance.random() < 0.02 else "delivered"]
                if kinds[1] == "delivered" and chance.random() < opened:
                    kinds.append("opened")
                    kinds += ["clicked"] * (chance.random() < 0.3)
                    kinds += ["unsubscribed"] * (chance.random() < 0.02)
                    kinds += ["complained"] * (chance.random() < 0.005)
                at = AT - 3 * WEEK + day * DAY
                events += [
                    event(
                        kind,
                        at + later * chance.randrange(9_000),
                        user={"id": person, "email": address},
                        campaign={"id": 20_261 + number, "name": name},
                    )
                    for later, kind in enumerate(kinds)
                ]
    return events


@pytest.mark.slow
@pytest.mark.skipif("VERO_SCREENSHOTS" not in os.environ, reason="takes pictures for docs/images")
def test_pictures(tmp_path):
    """Into the folder that VERO_SCREENSHOTS names."""
    from PIL import Image  # comes with what draws the benchmark's chart

    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(warehouse, autumn())
    options = ("--since", "2026-11-02", "--until", "2026-11-30", "--timezone", "Europe/Berlin")
    run_collector("report", *warehouse.options, *options, "--html", "f.html", cwd=tmp_path)
    with running_browser() as browser:
        shown = browser.new_page(viewport={"width": 1200, "height": 1330})
        shown.goto((tmp_path / "f.html").as_uri())
        picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
    few_colours = picture.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    few_colours.save(Path(os.environ["VERO_SCREENSHOTS"]) / "report.png", optimize=True)
