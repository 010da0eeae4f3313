"""The page of a dataset's checks in a real browser, opened from disk: silent, safe, readable on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from foundry_pipeline.reports.checks_page import render_checks
from tests.browser.pages import DESK, MARKS, PHONE, Opened
from tests.unit.reports.checks_sample import ESCAPES, SCRIPT, failing_data

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = MARKS


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checks") / "keeper_dataset_v1_checks.html"
    path.write_text(render_checks(failing_data()), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone-dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, page_file: Path) -> Iterator[Opened]:
    made = Opened(browser, page_file, *request.param)
    yield made
    made.context.close()


def test_it_is_silent_and_asks_nobody(opened: Opened, page_file: Path) -> None:
    assert opened.said == []
    assert [u for u in opened.asked if not u.startswith("data:")] == [page_file.as_uri()]


def test_the_text_of_a_row_stays_text(opened: Opened) -> None:
    assert opened.page.title() == "keeper_dataset_v1 · data checks"
    assert opened.page.locator("script, iframe, img, object").count() == 0
    shown = opened.page.locator("#failing dd").all_inner_texts()
    assert any(SCRIPT in text for text in shown)
    assert not any(mark in text for text in shown for mark in ("\u202e", "\x1b"))
    assert any("\\u202e" in text for text in shown), ESCAPES


def test_every_expectation_and_every_plot_is_there(opened: Opened) -> None:
    assert opened.page.locator("#expectations tbody tr").count() == 3
    assert opened.page.get_by_text("training is refused").is_visible()
    plots = opened.page.locator("figure svg[role=img]")
    assert plots.count() == 3
    for plot in plots.all():
        box = plot.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert plot.locator(".bar").count() > 1


def test_the_page_itself_never_scrolls_sideways_and_no_plot_is_cut(opened: Opened) -> None:
    wide = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    faults = opened.page.evaluate(
        """() => [...document.querySelectorAll('figure > svg')].flatMap(svg => {
          const sheet = svg.getBoundingClientRect();
          const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
          const out = boxes.filter(([, b]) => b.left < sheet.left - 3 || b.right > sheet.right + 3).map(([t]) => 'cut: ' + t);
          for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
            const [a, b] = [boxes[i][1], boxes[j][1]];
            const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (w > 1 && h > 0.4 * Math.min(a.height, b.height)) out.push('overprinted: ' + boxes[i][0] + ' / ' + boxes[j][0]);
          }
          return out;
        })"""
    )
    assert faults == []


def test_text_stands_out_from_its_ground(opened: Opened) -> None:
    """Contrast of 4.5 to 1 or more (WCAG 2.2, AA) for every piece of text."""
    faint = opened.page.evaluate(
        """() => {
          const rgb = s => { const m = s.match(/[\\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; };
          const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
            return .2126 * r + .7152 * g + .0722 * b; };
          const ground = e => { for (let n = e; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor); if (c) return c; } return [255, 255, 255]; };
          return [...document.querySelectorAll('body *')].filter(e => e.tagName !== 'title' &&
            [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
            const style = getComputedStyle(e);
            const [a, b] = [light(rgb(e.namespaceURI.endsWith('svg') ? style.fill : style.color)), light(ground(e))];
            return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.trim().slice(0, 40)];
          }).filter(([ratio]) => ratio < 4.5);
        }"""
    )
    assert faint == []
