"""How firmly each serving mode keeps to the part, and how unlike its answers are to each other: for the report of a run.

probes_section(data)["rows"][0]   → ("What are the chief drives …", "97 %", ("19 %, 8 to 38", "3 %, 0 to 14"), "better")
diversity_rows(data)[0]           → ("base, untuned", "0.41", "0.38 to 0.44", …)
"""

from __future__ import annotations

import statistics
from typing import Any

from foundry_pipeline.declarations.probes import TOPICS
from foundry_pipeline.evaluation.diversity import distinct_interval
from foundry_pipeline.reports import svg
from foundry_pipeline.reports.data import BASE_MODE, ReportData, label, mode_title
from foundry_pipeline.reports.figures import Figure
from foundry_pipeline.reports.wording import NONE, number, percent, span
from foundry_pipeline.statistics.verdict import BETTER, WORSE
from foundry_pipeline.textstats import words

PERCENTS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
GRAMS = (1, 2, 3)


def probes_section(data: ReportData) -> dict[str, Any]:
    """Everything that the probes' part of the page needs: a plot by topic, a table by named prompt."""
    probed = data.probed
    assert probed is not None
    modes = sorted(dict.fromkeys(r["mode"] for r in probed.rates), key=lambda m: m != BASE_MODE)
    by_prompt = {(r["mode"], r["probe_id"]): r for r in probed.rates if r["probe_id"]}
    verdicts = {(g["mode"], g["probe_id"]): g["verdict"] for g in probed.differences}
    rows = []
    for probe_id, question in probed.questions.items():
        topic = next(r["topic"] for (_, p), r in by_prompt.items() if p == probe_id)
        cells = [(_rate(by_prompt[mode, probe_id]), verdicts.get((mode, probe_id), "")) for mode in modes]
        told = probed.told.get(probe_id)
        rows.append((question, label(topic), cells, NONE if told is None else percent(told, 0)))
    claimed = [g for g in probed.differences if g["verdict"] in (BETTER, WORSE)]
    return {
        "modes": modes,
        "rows": rows,
        "figure": _by_topic(data, modes),
        "told": any(row[3] != NONE for row in rows),
        "claims": len(claimed),
        "asked": len(probed.differences),
        "samples": max(r["n"] + r["empty"] for r in by_prompt.values()),
    }


def _rate(row: dict[str, Any]) -> str:
    if row["rate"] is None:
        return "no answer"
    return f"{percent(row['rate'], 0)}, {100 * row['low']:.0f} to {100 * row['high']:.0f}"


def _by_topic(data: ReportData, modes: list[str]) -> Figure:
    assert data.probed is not None
    rates = {(r["mode"], r["topic"]): r for r in data.probed.rates if not r["probe_id"]}
    groups, rows = [], []
    for topic in ("all", *TOPICS):
        marks = []
        for mode in modes:
            r = rates.get((mode, topic))
            if r is None or r["rate"] is None:
                continue
            rate, low, high = (100 * r[name] for name in ("rate", "low", "high"))
            text = f"{number(rate, 0)} %"
            series = mode if mode in svg.SHAPES else "f16"
            told = f"{mode_title(mode)}, {label(topic)}: {text} ({low:.0f} to {high:.0f})"
            marks.append(svg.Mark(series, rate, low, high, text, told))
            rows.append((label(topic), mode_title(mode), text, f"{low:.0f} to {high:.0f}", str(r["n"])))
        if marks:
            groups.append(svg.Group("all probes" if topic == "all" else label(topic), tuple(marks)))
    title = "Breaks of character, by topic"
    return Figure(
        "fig-probes",
        title,
        "Share of answers that fall out of the part, with 95 % intervals that allow for answers to one prompt being alike. "
        "Controls are harmless questions.",
        svg.dot_plot("fig-probes", title, groups, ticks=PERCENTS, axis="percent of answers"),
        ("topic", "serving mode", "rate", "interval, %", "answers"),
        tuple(rows),
        tuple(modes),
    )


def diversity_rows(data: ReportData) -> list[tuple[str, ...]]:
    """Distinct n-grams of every mode's answers, one a question, over the same number of words each, with intervals."""
    texts: dict[str, dict[str, str]] = {mode: {} for mode in data.modes}
    for row in data.scores:
        texts[row["mode"]].setdefault(row["prompt_id"], row["answer"] or "")
    lengths = [statistics.median(len(words(t)) for t in held.values()) for held in texts.values() if held]
    each = max(1, int(min(lengths, default=1)))
    out = []
    for mode, held in texts.items():
        cells = [mode, str(each)]
        for n in GRAMS:
            found = distinct_interval(list(held.values()), n, words_each=each, confidence=data.confidence)
            cells += [number(found["mean"], 3), span(found["low"], found["high"], 3)]
        out.append(tuple(cells))
    return out
