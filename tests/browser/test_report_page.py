"""The report in a real browser, opened from disk: it asks nobody, runs nothing, and can be read on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from foundry_pipeline.reports.run_report import render_report
from tests.browser.pages import DESK, FAINT, MARKS, OVERPRINTED, PAST, PHONE, Opened
from tests.unit.reports.report_sample import SCRIPT, sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = MARKS


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "madison_r2.html"
    path.write_text(render_report(sample()), encoding="utf-8")
    return path


@pytest.fixture(params=[(DESK, "light"), (PHONE, "light"), (PHONE, "dark")], ids=["desk", "phone", "phone-dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[Opened]:
    size, scheme = request.param
    made = Opened(browser, report, size, scheme)
    yield made
    made.context.close()


def test_it_is_silent_and_asks_nobody(opened: Opened, report: Path) -> None:
    assert opened.said == []
    assert [u for u in opened.asked if not u.startswith("data:")] == [report.as_uri()]


def test_an_answer_with_a_script_stays_text(opened: Opened) -> None:
    assert opened.page.title() == "madison_r2 · run report"
    assert SCRIPT in opened.page.locator("blockquote").all_inner_texts()
    assert opened.page.locator("script, iframe, img, object").count() == 0


def test_the_page_itself_never_scrolls_sideways(opened: Opened) -> None:
    for details in opened.page.locator("details").all():
        details.evaluate("d => { d.open = true; }")
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    past = opened.page.evaluate(PAST)
    assert past == []


def test_every_plot_is_drawn_and_its_text_is_large_enough(opened: Opened) -> None:
    plots = opened.page.locator("figure svg[role=img]")
    assert plots.count() == 7
    for plot in plots.all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 80
        assert plot.evaluate("s => [...s.querySelectorAll('.mark, .bar, .curve')].length") > 0
        smallest = plot.evaluate(
            "s => Math.min(...[...s.querySelectorAll('text')].map(t => "
            "parseFloat(getComputedStyle(t).fontSize) * s.getBoundingClientRect().width / s.viewBox.baseVal.width))"
        )
        assert smallest >= 9.5, f"text of {smallest:.1f} px"


def test_no_text_of_a_plot_is_cut_off_or_overprinted(opened: Opened) -> None:
    faults = opened.page.evaluate(OVERPRINTED)
    assert faults == []


def test_the_table_can_be_read(opened: Opened) -> None:
    """The serving mode stays in sight while the table scrolls, and the last column can be reached."""
    region = opened.page.get_by_role("region", name="Scores by serving mode")
    table = region.locator("table")
    assert table.locator("tbody tr").count() == 4
    region.evaluate("r => { r.scrollLeft = r.scrollWidth; }")
    size = opened.page.viewport_size
    assert size is not None
    head = table.locator("tbody th").first.bounding_box()
    last = table.locator("tbody tr").first.locator("td").last.bounding_box()
    assert head is not None
    assert last is not None
    assert head["x"] >= 0
    assert head["x"] + head["width"] < size["width"]
    assert last["x"] + last["width"] <= size["width"] + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, report: Path, scheme: str) -> None:
    """Contrast of 4.5 to 1 or more (WCAG 2.2, AA) for every piece of text, in both colour schemes."""
    made = Opened(browser, report, DESK, scheme)
    faint = made.page.evaluate(FAINT)
    made.context.close()
    assert faint == []


def test_the_ground_follows_the_scheme(browser: Browser, report: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        made = Opened(browser, report, DESK, scheme)
        grounds.append(made.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        made.context.close()
    assert grounds[0] != grounds[1]
