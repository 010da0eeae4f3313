"""The plots of a report, each with its caption and the table of the numbers it draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.evaluation.scoring import WEIGHTS
from foundry_pipeline.reports import svg
from foundry_pipeline.reports.data import BASE_MODE, ReportData, label, mode_title
from foundry_pipeline.reports.wording import held_out_change, number, percent, span
from foundry_pipeline.statistics.stated import stated

SCALE = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)  # scores lie in [0, 10]; a cut axis would enlarge differences
_CURVES = ("loss", "nll")  # drawn, where the trainer wrote them; everything it wrote is in its artifact
MOST_ROWS = 40  # of the loss curve's table


@dataclass(frozen=True)
class Figure:
    """One plot. `modes` are those it draws (for its legend, empty where labels name them)."""

    id: str
    title: str
    caption: str
    drawing: Markup
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    modes: tuple[str, ...] = ()


def figures(data: ReportData) -> list[Figure]:
    """Every plot that the run's numbers allow, in the order of the page."""
    judged = f"Scored by {data.judge}; whiskers are {percent(data.confidence, 0)} intervals over questions."
    made = [
        _scores(
            data,
            "fig-categories",
            "Scores by category",
            f"Overall score of every serving mode in each category. {judged}",
            {"all questions": "overall"} | {c: c for c in CATEGORIES},
        ),
        _paired(data),
        _scores(
            data,
            "fig-components",
            "The five components",
            f"What the overall score is the weighted mean of; the weight stands at the right. {judged}",
            WEIGHTS,
        ),
        _loss(data),
        _held_out(data),
        _scores(
            data,
            "fig-difficulty",
            "Scores by difficulty",
            f"Overall score by the difficulty of the question. {judged}",
            DIFFICULTIES,
        ),
    ]
    return [figure for figure in made if figure is not None]


def _cell(data: ReportData, mode: str, name: str) -> dict[str, Any] | None:
    """The interval of one mode under a category, component or difficulty; None where nothing was scored."""
    m = data.summary["modes"][mode]
    if name == "all questions":
        found = m["overall"]
    else:
        found = next(
            (m[group][name] for group in ("categories", "components", "difficulties") if name in m[group]), None
        )
    return None if found is None or found["mean"] is None else found


def _scores(data: ReportData, name: str, title: str, caption: str, parts: Iterable[str]) -> Figure | None:
    groups, rows = [], []
    for part in parts:
        marks, asked = [], 0
        for mode in data.modes:
            found = _cell(data, mode, part)
            if found is None:
                continue
            asked = max(asked, int(found["n"]))
            bounds = span(found["low"], found["high"])
            marks.append(
                svg.Mark(
                    mode,
                    found["mean"],
                    found["low"],
                    found["high"],
                    number(found["mean"]),
                    f"{mode_title(mode)}, {label(part)}: {number(found['mean'])}" + (f" ({bounds})" if bounds else ""),
                )
            )
            rows.append((label(part), mode_title(mode), number(found["mean"]), bounds, str(found["n"])))
        if marks:
            note = percent(WEIGHTS[part], 0) if part in WEIGHTS else f"n = {asked}"
            groups.append(svg.Group(label(part), tuple(marks), note))
    if not groups:
        return None
    drawing = svg.dot_plot(name, title, groups, ticks=SCALE, axis=f"score by {data.judge}, 0 to 10")
    head = ("of", "serving mode", "score", "interval", "questions")
    return Figure(name, title, caption, drawing, head, tuple(rows), tuple(data.modes))


def _paired(data: ReportData) -> Figure | None:
    paired: Mapping[str, Any] = data.summary["paired"]
    found = {m: paired[m] for m in data.tuned if m in paired and paired[m]["difference"] is not None}
    if not found:
        return None
    groups = []
    for mode, p in found.items():
        text = number(p["difference"], sign=True)
        mark = svg.Mark(mode, p["difference"], p["low"], p["high"], text, f"{mode_title(mode)}: {stated(p)}")
        groups.append(svg.Group(mode_title(mode), (mark,), p["verdict"]))
    ends = [v for p in found.values() for v in (p["difference"], p["low"], p["high"]) if v is not None]
    title = "Difference from the untuned base"
    drawing = svg.dot_plot(
        "fig-paired", title, groups, ticks=svg.nice_ticks(min(0.0, *ends), max(0.0, *ends), 5),
        axis=f"difference in score by {data.judge}", zero=True,
    )  # fmt: skip
    return Figure(
        "fig-paired",
        title,
        f"Mean difference of each question's score from the base's to the same question, with its "
        f"{percent(data.confidence, 0)} interval. “Better” or “worse” takes a permutation test besides an interval without zero. "
        f"Scored by {data.judge}.",
        drawing,
        ("serving mode", "difference", "interval", "questions", "verdict"),
        tuple(
            (
                mode_title(m),
                number(p["difference"], sign=True),
                span(p["low"], p["high"], sign=True),
                str(p["n"]),
                p["verdict"],
            )
            for m, p in found.items()
        ),
    )


def _loss(data: ReportData) -> Figure | None:
    history = data.training.history if data.training else []
    series = {
        key: tuple((float(h["step"]), float(h[key])) for h in history if key in h and math.isfinite(h[key]))
        for key in _CURVES
    }
    drawn = {key: points for key, points in series.items() if len(points) > 1}
    if "loss" not in drawn:
        return None
    lines = [svg.Line(label(key), points, dashed=key != "loss") for key, points in drawn.items()]
    title = "Training loss"
    every = max(1, math.ceil(len(history) / MOST_ROWS))
    shown = [h for i, h in enumerate(history) if i % every == 0 or i == len(history) - 1]
    dashed = " The dashed line is its likelihood part alone (nll loss)." if len(drawn) > 1 else ""
    left_out = f" The table shows one step in {every}." if every > 1 else ""
    return Figure(
        "fig-loss",
        title,
        f"Loss of each optimizer step.{dashed}{left_out}",
        svg.line_chart("fig-loss", title, lines, x="optimizer step", y="loss"),
        ("step", *(label(key) for key in drawn)),
        tuple((str(h["step"]), *(number(h.get(key), 4) for key in drawn)) for h in shown),
    )


def _held_out(data: ReportData) -> Figure | None:
    modes = data.summary["modes"]
    found = {m: modes[m]["nats_per_token"] for m in data.modes if modes[m].get("nats_per_token") is not None}
    if not found:
        return None
    groups, rows = [], []
    for mode, nats in found.items():
        change = held_out_change(data, mode) if mode != BASE_MODE else None
        moved = "" if change is None else percent(-change[2], 1, sign=True)
        groups.append(
            svg.Group(
                mode_title(mode),
                (svg.Mark(mode, nats, None, None, number(nats, 3), f"{mode_title(mode)}: {nats:.3f}"),),
            )
        )
        compared = (moved,) if data.tuned else ()
        rows.append((mode_title(mode), number(nats, 4), *compared, f"{modes[mode]['heldout_tokens']:,}"))
    title = "Loss on held-out text"
    return Figure(
        "fig-heldout",
        title,
        "Nats per token on documents of the character's that no pair was made from; lower is nearer to the character's "
        "own words. No judge has a part in it.",
        svg.bar_plot("fig-heldout", title, groups, axis="nats per token, from 0"),
        ("serving mode", "nats per token", *(("against base",) if data.tuned else ()), "tokens"),
        tuple(rows),
    )
