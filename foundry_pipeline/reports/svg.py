"""Plots drawn as inline SVG: no script, no font, no request, and colours that follow the page's light or dark scheme.

Every plot is drawn on the same narrow sheet (WIDTH units), so that it needs no second drawing for a phone: labels stand
above what they name instead of in a gutter beside it. Colours and shapes are classes (`m-adapter`, …) that the page's
style sheet defines; a serving mode has its own shape as well, so that nothing is told by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 400
_LEFT, _RIGHT, _TOP = 8, 48, 4
_LABEL, _ROW, _GAP = 18, 14, 9  # heights: a group's label, one mark, the space below a group
_CIRCLE = "circle"
SHAPES = {
    "base": _CIRCLE,
    "adapter": "square",
    "merged": "diamond",
    "f16": "tall",
    "q8_0": "down",
    "q5_k_m": "cross",
    "q4_k_m": "up",
    "told": "diamond",
}


@dataclass(frozen=True)
class Mark:
    """A value with its interval; `series` names its colour and shape. Bounds are None where there is no interval."""

    series: str
    value: float
    low: float | None
    high: float | None
    text: str
    title: str


@dataclass(frozen=True)
class Group:
    """A labelled line of marks."""

    label: str
    marks: tuple[Mark, ...]
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A curve; `dashed` sets it apart from the main one."""

    title: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]; the first is at or below low, the last at or above high."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"no axis can be drawn from {low} to {high}")
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):  # one value, as far as a drawing can tell
        pad = max(1.0, abs(low) * 0.1)
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A tick in its shortest form, with a true minus sign."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def sheet(name: str, title: str, height: float, body: Sequence[str]) -> Markup:
    """A drawing WIDTH wide, with its title for those who hear the page. The pieces of `body` are escaped already."""
    # The parts have been escaped one by one; the whole is markup.
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{escape(name)}-t" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{escape(name)}-t">{escape(title)}</title>{"".join(body)}</svg>'
    )


def marker(series: str, x: float, y: float, r: float = 4.2) -> str:
    """The shape of a series at a place."""
    shape = SHAPES.get(series, _CIRCLE)
    css = f'class="mark m-{escape(series)}"'
    if shape == _CIRCLE:
        return f'<circle {css} cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    paths = {
        "square": f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z",
        "diamond": f"M{x:.1f} {y - r * 1.3:.1f}l{r * 1.3:.1f} {r * 1.3:.1f}l{-r * 1.3:.1f} {r * 1.3:.1f}l{-r * 1.3:.1f} {-r * 1.3:.1f}z",
        "up": f"M{x:.1f} {y - r * 1.2:.1f}l{r * 1.2:.1f} {r * 2.1:.1f}h{-r * 2.4:.1f}z",
        "down": f"M{x:.1f} {y + r * 1.2:.1f}l{r * 1.2:.1f} {-r * 2.1:.1f}h{-r * 2.4:.1f}z",
        "tall": f"M{x - r * 0.6:.1f} {y - r * 1.3:.1f}h{r * 1.2:.1f}v{r * 2.6:.1f}h{-r * 1.2:.1f}z",
        "cross": f"M{x - r:.1f} {y - r:.1f}l{2 * r:.1f} {2 * r:.1f}M{x - r:.1f} {y + r:.1f}l{2 * r:.1f} {-2 * r:.1f}",
    }
    return f'<path {css} d="{paths[shape]}"/>'


def swatch(series: str) -> Markup:
    """The marker of a mode, for legends and tables."""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true" xmlns="http://www.w3.org/2000/svg">{marker(series, 7, 7)}</svg>'
    )


def write(x: float, y: float, text: str, css: str, anchor: str = "start") -> str:
    """A line of text, escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(text)}</text>'


def _grid(ticks: Sequence[float], scale: float, top: float, bottom: float, *, zero: bool = False) -> list[str]:
    out = []
    for tick in ticks:
        x = _LEFT + (tick - ticks[0]) * scale
        css = "grid zero" if zero and tick == 0 else "grid"
        out.append(f'<line class="{css}" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
    return out


def _feet(ticks: Sequence[float], scale: float, y: float, axis: str) -> list[str]:
    numbers = [write(_LEFT + (tick - ticks[0]) * scale, y, number(tick), "tick", "middle") for tick in ticks]
    return [*numbers, write(_LEFT, y + 17, axis, "axis")]


def dot_plot(
    name: str, title: str, groups: Sequence[Group], *, ticks: Sequence[float], axis: str, zero: bool = False
) -> Markup:
    """Marks with whiskers on a common horizontal axis, a labelled group below the other, values at the right edge.

    `ticks` must cover every value and bound; `axis` says what is measured; `zero` draws the line at 0 strongly.
    """
    scale = (WIDTH - _LEFT - _RIGHT) / (ticks[-1] - ticks[0])

    def at(value: float) -> float:
        return _LEFT + (value - ticks[0]) * scale

    body: list[str] = []
    y = float(_TOP)
    for group in groups:
        body.append(write(_LEFT, y + 11, group.label, "label"))
        if group.note:
            body.append(write(WIDTH - 2, y + 11, group.note, "tick", "end"))
        y += _LABEL
        # The grid runs through the marks only, so that no line crosses a label.
        body += _grid(ticks, scale, y, y + _ROW * len(group.marks), zero=zero)
        for mark in group.marks:
            middle = y + _ROW / 2
            whisker = ""
            if mark.low is not None and mark.high is not None:
                whisker = (
                    f'<line class="whisker m-{escape(mark.series)}" x1="{at(mark.low):.1f}" y1="{middle:.1f}" '
                    f'x2="{at(mark.high):.1f}" y2="{middle:.1f}"/>'
                )
            body.append(
                f"<g><title>{escape(mark.title)}</title>{whisker}{marker(mark.series, at(mark.value), middle)}"
                f"{write(WIDTH - 2, middle + 4, mark.text, f'value m-{escape(mark.series)}', 'end')}</g>"
            )
            y += _ROW
        y += _GAP
    body += _feet(ticks, scale, y + 5, axis)
    return sheet(name, title, y + 30, body)


def bar_plot(name: str, title: str, groups: Sequence[Group], *, axis: str) -> Markup:
    """Bars from zero, one a group, values (none below zero) at the right edge."""
    ticks = nice_ticks(0.0, max(m.value for g in groups for m in g.marks), 6)
    scale = (WIDTH - _LEFT - _RIGHT) / (ticks[-1] - ticks[0])
    body: list[str] = []
    y = float(_TOP)
    for group in groups:
        body.append(write(_LEFT, y + 11, group.label, "label"))
        y += _LABEL
        body += _grid(ticks, scale, y - 2, y + _ROW * len(group.marks) + 2)
        for mark in group.marks:
            end = _LEFT + mark.value * scale
            body.append(
                f'<g><title>{escape(mark.title)}</title><rect class="bar m-{escape(mark.series)}" x="{_LEFT}" y="{y:.1f}" '
                f'width="{max(0.5, end - _LEFT):.1f}" height="{_ROW}" rx="2"/>'
                f"{write(WIDTH - 2, y + _ROW - 3, mark.text, f'value m-{escape(mark.series)}', 'end')}</g>"
            )
            y += _ROW
        y += _GAP
    body += _feet(ticks, scale, y + 7, axis)
    return sheet(name, title, y + 32, body)


def line_chart(name: str, title: str, lines: Sequence[Line], *, x: str, y: str, height: int = 230) -> Markup:
    """Curves over a common axis, the last value of each at its end. Each needs two points or more, x ascending."""
    xs = [p[0] for line in lines for p in line.points]
    ys = [p[1] for line in lines for p in line.points]
    across, up = nice_ticks(min(xs), max(xs), 6), nice_ticks(min(ys), max(ys), 5)
    first, last = min(xs), max(xs)
    left, right, top, bottom = 36.0, WIDTH - 40.0, 20.0, height - 38.0

    def place(px: float, py: float) -> tuple[float, float]:
        return (
            left + (px - first) / (last - first) * (right - left),
            bottom - (py - up[0]) / (up[-1] - up[0]) * (bottom - top),
        )

    body = [write(0, 10, y, "axis")]
    for tick in up:
        at = place(first, tick)[1]
        body.append(f'<line class="grid" x1="{left:.1f}" y1="{at:.1f}" x2="{right:.1f}" y2="{at:.1f}"/>')
        body.append(write(left - 6, at + 4, number(tick), "tick", "end"))
    for tick in across:
        if first <= tick <= last:
            body.append(write(place(tick, up[0])[0], bottom + 15, number(tick), "tick", "middle"))
    body.append(write(left, height - 6, x, "axis"))
    taken: list[float] = []
    for line in lines:
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in (place(*p) for p in line.points))
        css = "curve dashed" if line.dashed else "curve"
        body.append(f'<g><title>{escape(line.title)}</title><polyline class="{css}" points="{points}"/></g>')
        end = place(*line.points[-1])
        beside = end[1] + 4
        for other in taken:
            if abs(beside - other) < 12:  # two curves that end together keep both figures legible
                beside = other + (12 if beside >= other else -12)
        taken.append(beside)
        body.append(write(end[0] + 5, beside, f"{line.points[-1][1]:.2f}", "value"))
    return sheet(name, title, float(height), body)


def _short(count: int) -> str:
    """A count that finds room above a narrow bar: 873, 12k, 1.2M."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"


def histogram(
    name: str, title: str, edges: Sequence[float], heights: Sequence[int], *, axis: str, series: str, height: int = 190
) -> Markup:
    """Counts between consecutive `edges` (one more than heights) as upright bars, the count above each that is not 0.

    Edges are equally wide and ascending; at least one height must be above 0.
    """
    left, right, top, bottom = float(_LEFT), WIDTH - 10.0, 16.0, height - 38.0
    wide = (right - left) / len(heights)
    body = [f'<line class="grid" x1="{left:.1f}" y1="{bottom:.1f}" x2="{right:.1f}" y2="{bottom:.1f}"/>']
    for i, count in enumerate(heights):
        if count:
            tall = max(1.0, count / max(heights) * (bottom - top))
            x = left + i * wide
            between = f"{number(edges[i])} to {number(edges[i + 1])}"
            body.append(
                f"<g><title>{escape(between)}: {count:,}</title>"
                f'<rect class="bar m-{escape(series)}" x="{x + 1:.1f}" y="{bottom - tall:.1f}" '
                f'width="{max(1.0, wide - 2):.1f}" height="{tall:.1f}" rx="1.5"/>'
                f"{write(x + wide / 2, bottom - tall - 4, _short(count), 'tick', 'middle')}</g>"
            )
    # As many edges are named as find room beside each other.
    every = max(1, math.ceil(len(edges) / (6 if len(number(edges[0])) > 4 else 8)))
    for i, edge in enumerate(edges):
        if i % every == 0:
            anchor = "start" if i == 0 else "end" if i == len(edges) - 1 else "middle"
            body.append(write(left + i * wide, bottom + 15, number(edge), "tick", anchor))
    body.append(write(left, height - 6, axis, "axis"))
    return sheet(name, title, float(height), body)
