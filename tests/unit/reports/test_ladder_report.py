"""The page of the ladder: measured and reported stay apart, equal adapters say so, nothing on it can run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foundry_pipeline.reports.ladder_data import LadderData
from foundry_pipeline.reports.ladder_figures import ladder_figures
from foundry_pipeline.reports.ladder_heat import heat_maps
from foundry_pipeline.reports.ladder_report import findings, render_ladder
from foundry_pipeline.reports.scatter import Point, scatter
from tests.unit.reports.ladder_sample import SCRIPT, ladder_sample
from tests.unit.reports.test_run_report import Page


@pytest.fixture(scope="module")
def data() -> LadderData:
    return ladder_sample()


@pytest.fixture(scope="module")
def page(data: LadderData) -> Page:
    return Page(render_ladder(data))


def test_every_column_of_what_was_told_says_so(page: Page) -> None:
    table = next(t for t, c in zip(page.tables, page.captions, strict=True) if c.startswith("Left of the double line"))
    groups, heads, *rows = table
    assert groups == ["run", "measured here", "reported elsewhere, not measured here"]
    assert [h for h in heads if h.startswith("reported")] == heads[-4:]
    told = {row[0]: row[-3:] for row in rows}
    assert told["madison_first"] == ["3.41", "3.71", "7"]
    assert rows[-1][2].startswith("not built: dagster")
    gaps = {row[0]: row[3] for row in rows}
    assert gaps["madison_first"].endswith("no claim at n=36")
    assert gaps["madison_untold"].endswith("better")


def test_no_drawing_and_no_heat_map_holds_both(data: LadderData) -> None:
    for figure in ladder_figures(data):
        told = "told" in figure.id
        assert ("m-told" in figure.drawing) == told, figure.id
        assert ("elsewhere" in figure.title) == told
        assert ("rubric-local" in figure.caption) <= (not told)
    for heat in heat_maps(data):
        assert ("not measured here" in heat.caption) == heat.told
        assert heat.rows


def test_rows_on_one_adapter_say_so(data: LadderData, page: Page) -> None:
    assert "madison_second and madison_twin stand on one adapter" in " ".join(findings(data))
    hashes = next(t for t in page.tables if t[0][-1] == "the same adapter as")
    assert {row[0]: row[-1] for row in hashes[1:]}["madison_twin"] == "madison_second"
    assert {row[0]: row[-1] for row in hashes[1:]}["madison_first"] == "–"


def test_the_paragraph_is_written_from_the_verdicts(data: LadderData) -> None:
    told = " ".join(findings(data))
    assert "4 of 6 are better, 0 worse, and of 2 nothing may be claimed" in told
    assert (
        "madison_untold, adapter on base; 4 of the other 5 are shown to be worse, and of 1 that may not be said" in told
    )
    nothing = replace(data, rungs=[r for r in data.rungs if r.measured is None])
    assert findings(nothing) == ["Nothing of this ladder is measured yet: make ladder builds and judges every run."]
    assert "Nothing of this ladder" in Page(render_ladder(nothing)).text


def test_text_from_elsewhere_is_text(data: LadderData, page: Page) -> None:
    assert SCRIPT not in render_ladder(data)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "iframe", "object")]
    assert all(not (a.get("href") or "").startswith("http") for _, a in page.tags)
    assert render_ladder(data) == render_ladder(ladder_sample())


def test_points_are_placed_in_order_and_names_never_overlap() -> None:
    points = [Point("adapter", 10.0**-i, i, i - 0.5, i + 0.5, f"point {i}", f"t{i}") for i in range(1, 6)]
    crowd = [Point("adapter", 1e-3, 3.0, None, None, f"in the crowd {i}", "t") for i in range(40)]
    drawn = scatter("s", "S", [*points, *crowd], x="x", y="y", log_x=True)
    assert drawn.count('class="mark') == 45
    assert drawn.count("in the crowd") < 40, "a name without room is left out"
    assert scatter("s", "S", points[:1], x="x", y="y", log_x=True).count('class="mark') == 1
    assert scatter("s", "S", [replace(points[0], x=0.0)], x="x", y="y").count('class="mark') == 1
