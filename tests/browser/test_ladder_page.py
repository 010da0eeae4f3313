"""The page of the ladder in a real browser: silent, asks nobody, readable on a phone, in light and in dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from foundry_pipeline.reports.ladder_report import render_ladder
from tests.browser.pages import DESK, FAINT, MARKS, OVERPRINTED, PAST, PHONE, Opened
from tests.unit.reports.ladder_sample import ladder_sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = MARKS


@pytest.fixture(params=[(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone-dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    path = tmp_path / "ladder.html"
    path.write_text(render_ladder(ladder_sample()), encoding="utf-8")
    made = Opened(browser, path, *request.param)
    yield made
    made.context.close()


def test_it_reads_well_wherever_it_is_opened(opened: Opened) -> None:
    page = opened.page
    assert opened.said == []
    assert [url.rsplit("/", 1)[-1] for url in opened.asked if not url.startswith("data:")] == ["ladder.html"]
    assert page.title() == "The ladder · laptop"
    assert page.evaluate(FAINT) == []
    assert page.evaluate(OVERPRINTED) == []
    for details in page.locator("details").all():
        details.evaluate("d => { d.open = true; }")
    wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1]
    assert page.evaluate(PAST) == []
    assert page.locator("figure svg[role=img]").count() == 9
    # The run's name stays in sight while its row scrolls past.
    region = page.get_by_role("region", name="Measured beside reported")
    region.evaluate("r => { r.scrollLeft = r.scrollWidth; }")
    box = region.locator("tbody th").first.bounding_box()
    assert box is not None
    assert box["x"] >= 0
