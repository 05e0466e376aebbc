"""The page, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.browser import running_browser
from tests.support.collector import run_collector
from tests.support.funnel import DuckDB, event, load

if TYPE_CHECKING:
    from pathlib import Path

AT = 1_795_425_840
WEEK = 7 * 86_400
MARKS = "document.title = 'taken'"
NAMES = (
    f'<img src=x onerror="{MARKS}"><script>{MARKS}</script>',
    f"</script><script>{MARKS}</script>",
    "<a href='https://evil.example/'>link</a> <b>bold</b> %{x} $x^2$",
    "Autumn & winter",
)


@pytest.mark.slow
def test_the_page_draws_its_charts_alone_and_runs_no_name(tmp_path: Path) -> None:
    warehouse = DuckDB(tmp_path / "warehouse.duckdb")
    load(
        warehouse,
        [
            event(
                kind,
                AT + week * WEEK,
                user={"id": person, "email": f"{person}@example.com"},
                campaign={"id": number, "name": name},
            )
            for number, name in enumerate(NAMES)
            for kind in ("sent", "delivered", "opened")
            for week in range(2)
            for person in range(4 - number)
        ],
    )
    done = run_collector("report", *warehouse.options, "--html", "f.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page_url = (tmp_path / "f.html").as_uri()

    with running_browser() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        requests: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(page_url)
        for chart in ("chart-steps", "chart-sent", "chart-opened"):
            page.wait_for_selector(f"#{chart} .main-svg")

        bars = page.locator("#chart-steps .bars .point path")
        assert bars.count() == 4 * len(NAMES)
        assert page.locator("#chart-sent .bars .point").count() == 2 * len(NAMES)
        assert page.locator("#chart-opened .scatterlayer .point").count() == 2 * len(NAMES)
        for number, name in enumerate(NAMES):
            bars.nth(number).hover(force=True)
            label = page.locator("#chart-steps .hoverlayer").filter(has_text=f"({number})")
            label.wait_for(state="attached")
            assert name in (label.text_content() or "")

        weeks = page.locator("#part-1")
        assert weeks.is_hidden()
        page.get_by_role("button", name="2 weeks").first.click()
        assert weeks.locator("tr").count() == 2
        assert weeks.is_visible()

        # Two weeks apart there is a gap, and none is drawn upon another.
        assert page.evaluate("document.getElementById('chart-sent').layout.xaxis.type") == "date"
        assert page.evaluate("document.getElementById('chart-sent').layout.barmode") == "group"

        shown = page.locator("#chart-steps .yaxislayer-above").text_content() or ""
        legend = page.locator("#chart-opened .legend").text_content() or ""
        for name in NAMES:
            assert name[:20] in shown
            assert name[:20] in legend
            assert page.get_by_role("rowheader", name=name).count() == 1
        assert (
            page.locator("main script + script, main a[href^=http], main img, svg a").count() == 0
        )
        assert page.title() == "Campaign funnel"
        assert requests == [page_url]
        assert wrong == []
