"""Whether a judge tells dress from matter: the same content in the character's manner and in today's.

    table, summary = judge_style(probes, prompts, judge)
    summary["voice"]        → {"difference": 6.1, "low": 5.4, "high": 6.8, "n": 14}     period minus modern
    summary["historical"]   → {"difference": 0.2, "low": -0.1, "high": 0.5, "n": 14}
    summary["passed"]       → True

Judges are swayed by style where substance is asked for (arXiv 2604.23178). The dress should change `voice`, and leave
`historical` grounding where it was: the whole interval of the first lies above 0, and that of the second within half a
point of 0 on either side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from foundry_pipeline.declarations.sources import EvaluationPrompt, StyleProbe
from foundry_pipeline.evaluation.judges import Judge
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.statistics.intervals import paired_interval

DRESSES = ("period", "modern")
WITHIN = 0.5  # points by which historical grounding may move with the dress
TABLE: dict[str, Any] = {
    "prompt_id": pl.String,
    "dress": pl.String,
    "answer": pl.String,
    "overall": pl.Float64,
    **dict.fromkeys(COMPONENTS, pl.Float64),
    "justification": pl.String,
}


def dressed(
    probes: Sequence[StyleProbe], prompts: Mapping[str, EvaluationPrompt]
) -> list[tuple[EvaluationPrompt, str]]:
    """Every text of the probe with its question, in the order in which they are judged."""
    return [(prompts[probe.prompt], getattr(probe, dress)) for probe in probes for dress in DRESSES]


def judge_style(
    probes: Sequence[StyleProbe],
    prompts: Mapping[str, EvaluationPrompt],
    judge: Judge,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The table of scores, two rows a probe, and for each component the paired difference of the dresses.

    Probes that the judge leaves unscored in either dress are not compared. Fewer than two compared: no figures, and
    `passed` is False.
    """
    rows = []
    for probe in probes:
        for dress in DRESSES:
            answer = getattr(probe, dress)
            judgment = judge.judge(prompts[probe.prompt], answer)
            scores = {name: judgment.components.get(name) for name in COMPONENTS}
            told = {"overall": judgment.overall, **scores, "justification": judgment.justification}
            rows.append({"prompt_id": probe.prompt, "dress": dress, "answer": answer, **told})
    table = pl.DataFrame(rows, schema=TABLE, orient="row")
    period, modern = (table.filter(pl.col("dress") == dress) for dress in DRESSES)
    both = period["overall"].is_not_null() & modern["overall"].is_not_null()
    period, modern = period.filter(both), modern.filter(both)
    summary: dict[str, Any] = {}
    for name in COMPONENTS:
        found = paired_interval(
            period[name].to_list(), modern[name].to_list(), resamples=resamples, confidence=confidence, seed=seed
        )
        summary[name] = {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n}
    voice, historical = summary["voice"], summary["historical"]
    known = voice["low"] is not None and historical["low"] is not None
    passed = known and voice["low"] > 0 and historical["low"] >= -WITHIN and historical["high"] <= WITHIN
    return table, {**summary, "passed": bool(passed)}
