"""Points in two directions, as inline SVG like `svg.py`: each with its interval, its shape, and a name where there is room.

scatter("fig-rate", "Scores by learning rate", [Point("adapter", 2e-4, 6.35, 6.1, 6.6, "r2", "r2: 6.35 at 0.0002")],
        x="learning rate", y="score", log_x=True, up=(0, 2, 4, 6, 8, 10))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from foundry_pipeline.reports.svg import WIDTH, marker, nice_ticks, number, sheet, write

_LEFT, _RIGHT, _TOP, _FOOT = 36.0, 14.0, 22.0, 40.0
_LETTER, _LINE = 5.9, 12.0  # size of a name in units of the sheet; a phone's are a fifth larger
_PHONE = 1.25


@dataclass(frozen=True)
class Point:
    """`series` names colour and shape; bounds are of y and None where there is no interval."""

    series: str
    x: float
    y: float
    low: float | None
    high: float | None
    name: str
    title: str


Box = tuple[float, float, float, float]


def scatter(
    name: str,
    title: str,
    points: Sequence[Point],
    *,
    x: str,
    y: str,
    up: Sequence[float] | None = None,
    log_x: bool = False,
    zero: bool = False,
    height: int = 300,
) -> Markup:
    """A drawing of the points; at least one is needed, and on a logarithmic axis every x above 0.

    `up` are the ticks of the vertical axis where it is fixed. A name that finds no free place beside its point is left
    out: hovering says it, and so does the table that goes with the figure.
    """
    ends = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    ticks_y = list(up) if up is not None else nice_ticks(min([0.0, *ends] if zero else ends), max(ends), 6)
    values = [math.log10(p.x) if log_x else p.x for p in points]
    first, last = min(values), max(values)
    pad = (last - first) * 0.08 or (0.5 if log_x else max(1.0, abs(last) * 0.2))
    first, last = first - pad, last + pad
    bottom, right = height - _FOOT, WIDTH - _RIGHT

    def across(value: float) -> float:
        return _LEFT + (value - first) / (last - first) * (right - _LEFT)

    def upward(value: float) -> float:
        return bottom - (value - ticks_y[0]) / (ticks_y[-1] - ticks_y[0]) * (bottom - _TOP)

    body = [write(0, 10, y, "axis")]
    for tick in ticks_y:
        at = upward(tick)
        css = "grid zero" if zero and tick == 0 else "grid"
        body.append(f'<line class="{css}" x1="{_LEFT:.1f}" y1="{at:.1f}" x2="{right:.1f}" y2="{at:.1f}"/>')
        body.append(write(_LEFT - 6, at + 4, number(tick), "tick", "end"))
    taken: list[Box] = []
    reach = -math.inf
    for place, text in _ticks(values, first, last, log_x):
        at = across(place)
        wide = len(text) * _LETTER * _PHONE / 2
        if at - wide > reach + 4 and at + wide <= WIDTH:
            body.append(write(at, bottom + 15, text, "tick", "middle"))
            reach = at + wide
    body.append(write(_LEFT, height - 6, x, "axis"))
    placed = [(p, across(v), upward(p.y)) for p, v in zip(points, values, strict=True)]
    taken += [(px - 6, py - 6, px + 6, py + 6) for _, px, py in placed]
    for p, px, py in placed:
        whisker = ""
        if p.low is not None and p.high is not None:
            whisker = (
                f'<line class="whisker m-{escape(p.series)}" x1="{px:.1f}" y1="{upward(p.low):.1f}" x2="{px:.1f}" '
                f'y2="{upward(p.high):.1f}"/>'
            )
        beside = _beside(p.name, px, py, taken, bottom)
        body.append(f"<g><title>{escape(p.title)}</title>{whisker}{marker(p.series, px, py)}{beside}</g>")
    return sheet(name, title, float(height), body)


def _ticks(values: Sequence[float], first: float, last: float, log_x: bool) -> list[tuple[float, str]]:
    """Where the horizontal axis is marked: on a logarithmic one at the values themselves, which are declared ones."""
    if log_x:
        return [(v, f"{10**v:.3g}") for v in sorted(set(values))]
    return [(t, number(t)) for t in nice_ticks(first, last, 5) if first <= t <= last]


def _beside(name: str, x: float, y: float, taken: list[Box], bottom: float) -> str:
    """The name at the first of some places around a point that is free; nothing where none is."""
    wide, high = len(name) * _LETTER * _PHONE, _LINE * _PHONE
    for left, base, anchor in (
        (x + 8, y + 4, "start"), (x - 8 - wide, y + 4, "end"), (x - wide / 2, y - 9, "middle"),
        (x - wide / 2, y + 8 + high * 0.8, "middle"), (x + 8, y - 8, "start"), (x + 8, y + 16, "start"),
        (x - 8 - wide, y - 8, "end"), (x - 8 - wide, y + 16, "end"),
    ):  # fmt: skip
        box = (left, base - high * 0.8, left + wide, base + high * 0.2)
        if box[0] < _LEFT or box[2] > WIDTH or box[1] < 14 or box[3] > bottom:
            continue
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            continue
        taken.append(box)
        at = {"start": left, "end": left + wide, "middle": left + wide / 2}[anchor]
        return write(at, base, name, "tick", anchor)
    return ""
