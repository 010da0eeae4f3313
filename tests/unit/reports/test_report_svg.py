"""The plots: axes that cover what they show, marks where their values are, markup that holds."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.reports import svg
from foundry_pipeline.reports.wording import MINUS, duration, listed, number, span

NUMBERS = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)
SVG = "{http://www.w3.org/2000/svg}"


@given(a=NUMBERS, b=NUMBERS, count=st.integers(2, 10))
def test_ticks_are_even_and_cover_the_range(a: float, b: float, count: int) -> None:
    low, high = min(a, b), max(a, b)
    ticks = svg.nice_ticks(low, high, count)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 2 * count + 3
    steps = {round((y - x) / (ticks[1] - ticks[0]), 3) for x, y in zip(ticks, ticks[1:], strict=False)}
    assert steps == {1.0}


def test_an_axis_without_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="no axis"):
        svg.nice_ticks(float("nan"), 1.0)


def mark(value: float, low: float | None, high: float | None, series: str = "adapter") -> svg.Mark:
    return svg.Mark(series, value, low, high, f"{value:.2f}", f"it is {value}")


@given(values=st.lists(st.floats(0, 10), min_size=3, max_size=3).map(sorted))
def test_marks_stand_where_their_values_are(values: list[float]) -> None:
    low, value, high = values
    drawing = svg.dot_plot("f", "t", [svg.Group("g", (mark(value, low, high, "base"),))], ticks=(0, 5, 10), axis="x")
    root = ET.fromstring(str(drawing))
    grid = sorted(float(e.get("x1", "")) for e in root.iter(f"{SVG}line") if "grid" in e.get("class", ""))
    whisker = next(e for e in root.iter(f"{SVG}line") if "whisker" in e.get("class", ""))
    circle = next(root.iter(f"{SVG}circle"))

    def at(score: float) -> float:
        return grid[0] + (grid[-1] - grid[0]) * score / 10

    assert float(circle.get("cx", "")) == pytest.approx(at(value), abs=0.11)
    assert float(whisker.get("x1", "")) == pytest.approx(at(low), abs=0.11)
    assert float(whisker.get("x2", "")) == pytest.approx(at(high), abs=0.11)


def test_without_bounds_there_is_no_whisker() -> None:
    drawing = svg.dot_plot("f", "t", [svg.Group("g", (mark(3, None, None),))], ticks=(0, 10), axis="x")
    assert "whisker" not in drawing


def test_bars_start_at_zero_and_keep_proportion() -> None:
    groups = [svg.Group(s, (mark(v, None, None, s),)) for s, v in (("base", 4.0), ("adapter", 3.0))]
    root = ET.fromstring(str(svg.bar_plot("f", "t", groups, axis="x")))
    bars = [(float(e.get("x", "")), float(e.get("width", ""))) for e in root.iter(f"{SVG}rect")]
    assert bars[0][0] == bars[1][0]
    assert bars[1][1] / bars[0][1] == pytest.approx(0.75, abs=0.002)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(-50, 50)), min_size=2, max_size=60, unique_by=lambda p: p[0]))
def test_a_curve_stays_on_its_sheet(points: list[tuple[int, float]]) -> None:
    line = svg.Line("loss", tuple(sorted((float(x), y) for x, y in points)))
    root = ET.fromstring(str(svg.line_chart("f", "t", [line], x="step", y="loss")))
    height = float(root.get("viewBox", "").split()[3])
    drawn = next(root.iter(f"{SVG}polyline")).get("points", "").split()
    assert len(drawn) == len(points)
    for point in drawn:
        x, y = map(float, point.split(","))
        assert 0 <= x <= svg.WIDTH
        assert 0 <= y <= height


def test_labels_are_text() -> None:
    nasty = '"><script>alert(1)</script>&'
    group = svg.Group(nasty, (svg.Mark("base", 1, None, None, nasty, nasty),), nasty)
    for drawing in (
        svg.dot_plot("f", nasty, [group], ticks=(0, 10), axis=nasty),
        svg.bar_plot("f", nasty, [group], axis=nasty),
        svg.line_chart("f", nasty, [svg.Line(nasty, ((0, 0), (1, 1)))], x=nasty, y=nasty),
    ):
        root = ET.fromstring(str(drawing))
        assert not list(root.iter(f"{SVG}script"))
        assert nasty in {e.text for e in root.iter()}


def test_numbers_are_written_as_people_write_them() -> None:
    assert number(-1.005, 1) == f"{MINUS}1.0"
    assert number(-0.001) == number(0.0, sign=True) == "0.00"
    assert number(None) == "–"
    assert number(0.5, sign=True) == "+0.50"
    assert span(None, 2.0) == ""
    assert span(-0.0004, 1.0, sign=True) == f"{MINUS}0.0004 to +1.0000"
    assert [duration(s) for s in (0.02, 2.25, 41.2, 312.4, 7500)] == [
        "under 0.1 s",
        "2.2 s",
        "41 s",
        "5 min 12 s",
        "2 h 05 min",
    ]
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
