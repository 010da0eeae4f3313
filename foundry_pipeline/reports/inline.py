"""Small plots as data URIs, for places that show an image but load nothing: the Dagster UI's Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence


def line_plot(
    points: Sequence[tuple[float, float]], *, title: str, x: str, y: str, width: int = 560, height: int = 220
) -> str:
    """An SVG line plot as a `data:` URI. `points` are (x, y) in ascending x; at least one is needed."""
    left, right, top, bottom = 48, 12, 26, 34
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = min(ys), max(ys)
    span_x, span_y = (max(xs) - min(xs)) or 1.0, (high - low) or 1.0

    def place(px: float, py: float) -> str:
        at = left + (px - min(xs)) / span_x * (width - left - right)
        up = top + (high - py) / span_y * (height - top - bottom)
        return f"{at:.1f},{up:.1f}"

    path = " ".join(place(px, py) for px, py in points)
    marks = "".join(
        f'<text x="{left - 6}" y="{top + (high - v) / span_y * (height - top - bottom) + 4:.1f}" '
        f'text-anchor="end" font-size="11">{v:.3g}</text>'
        for v in (low, (low + high) / 2, high)
    )
    ends = "".join(
        f'<text x="{place(v, low).split(",")[0]}" y="{height - 16}" text-anchor="middle" font-size="11">{v:g}</text>'
        for v in (min(xs), max(xs))
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" fill="#555">'
        f'<text x="{left}" y="16" font-size="12">{html.escape(title)}</text>'
        f'<polyline points="{path}" fill="none" stroke="#4f6bd8" stroke-width="1.6"/>{marks}{ends}'
        f'<text x="{width / 2}" y="{height - 3}" text-anchor="middle" font-size="11">{html.escape(x)}</text>'
        f'<text x="8" y="{height / 2}" font-size="11" transform="rotate(-90 12 {height / 2})">{html.escape(y)}</text></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
