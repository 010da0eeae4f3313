"""What is to be known of the judge beside its controls, in sentences written from the numbers.

judge_notes(data)[0]   → "The same content in period and in modern dress, 14 times: the dress moves voice by +6.10 …"
"""

from __future__ import annotations

from typing import Any

from foundry_pipeline.reports.data import ReportData, mode_title
from foundry_pipeline.reports.wording import listed, many, number, span


def judge_notes(data: ReportData) -> list[str]:
    """Style probe, unread replies and their bounds, length, the judge's own mark, agreement with itself.

    Only what was measured is told; an evaluation from before a measure existed has no sentence of it.
    """
    summary = data.summary
    said = _style(summary.get("style_probe"))
    for mode, found in summary["modes"].items():
        said += _unscored(mode_title(mode), found)
    said += _length(summary["modes"])
    said += _audit(summary["modes"])
    return said + _itself(summary["judge"].get("self_agreement"))


def _style(probe: dict[str, Any] | None) -> list[str]:
    if not probe:
        return []
    voice, historical = probe["voice"], probe["historical"]
    if voice["difference"] is None:
        return ["The style probe could not be judged."]

    def moved(found: dict[str, Any]) -> str:
        bounds = span(found["low"], found["high"], sign=True)
        return number(found["difference"], sign=True) + (f" ({bounds})" if bounds else "")

    outcome = "it tells dress from matter" if probe["passed"] else "it does not tell dress from matter as it should"
    return [
        f"The same content in period and in modern dress, {many(voice['n'], 'time')}: the dress moves voice by "
        f"{moved(voice)} and historical grounding by {moved(historical)}; {outcome}."
    ]


def _unscored(title: str, found: dict[str, Any]) -> list[str]:
    bounds = found.get("unscored_bounds")
    if not bounds or not bounds["unscored"]:
        return []
    reasons = listed([f"{reason} ({count})" for reason, count in bounds["reasons"].items()])
    return [
        f"{title}: {many(bounds['unscored'], 'answer')} unscored, {reasons}; had each been worth 0 the overall would be "
        f"{number(bounds['low'])}, had each been worth 10 {number(bounds['high'])}."
    ]


def _length(modes: dict[str, Any]) -> list[str]:
    found = {mode: m.get("length_correlation") or {} for mode, m in modes.items()}
    told = [
        f"{mode_title(mode)} {number(c['spearman'], sign=True)} ({span(c['low'], c['high'], sign=True)})"
        for mode, c in found.items()
        if c.get("spearman") is not None
    ]
    return [f"Rank correlation of an answer's length with its score: {listed(told)}."] if told else []


def _audit(modes: dict[str, Any]) -> list[str]:
    told = [
        f"{mode_title(mode)} {number(audit['difference'], sign=True)}"
        for mode, m in modes.items()
        if (audit := m.get("mark_audit")) and audit["difference"] is not None
    ]
    if not told:
        return []
    return [
        "What a critical failure takes from the judge's own overall mark beyond its components, which is why the mark is "
        f"kept aside: {listed(told)}."
    ]


def _itself(found: dict[str, Any] | None) -> list[str]:
    if not found or found["alpha"] is None:
        return []
    return [
        f"Asked {many(found['raters'], 'time')} about the same {many(found['answers'], 'answer')}, it agrees with itself "
        f"to a Krippendorff's alpha of {number(found['alpha'], 3)}; highest and lowest mark of an answer lie "
        f"{number(found['mean_spread'])} apart on average."
    ]
