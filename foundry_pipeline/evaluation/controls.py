"""Whether a judge can tell what nobody needs a judge for: planted answers whose right order is known.

    table, summary = judge_controls(control_set, passages, judge)
    summary["fits_over_other"]   → {"component": …, "n": 12, "auc": 1.0, "mean_difference": 6.1, "low": …, "passed": True}

For each control prompt the judge reads a passage of the character's that answers it (`fits`), one that answers another
prompt (`other`), a passage by somebody else (`rival`), and four planted defects. A judge that does not put the first
above the rest, component by component, measures nothing, and its other scores are not to be believed.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from foundry_pipeline.corpus.passages import find_anchor
from foundry_pipeline.declarations.sources import ControlItem, ControlSet, EvaluationPrompt
from foundry_pipeline.evaluation.judges import Judge
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.statistics.intervals import auc, paired_interval
from foundry_pipeline.textstats import words

MIN_AUC = 0.80  # a control pair passes from here …
MIN_LOW = 0.0  # … if the whole interval of its mean paired difference lies above this

# (better, worse, component): what is compared. `other` and `rival` are stately writing, which only content tells apart.
PAIRS: tuple[tuple[str, str, str], ...] = (
    ("fits", "other", "historical"),
    ("fits", "other", "position"),
    ("fits", "rival", "position"),
    ("fits", "archaic_nonsense", "overall"),
    ("fits", "modern_assistant", "overall"),
    ("fits", "as_an_ai", "overall"),
    ("fits", "loop", "overall"),
)
LOOP_WORDS = 160  # length to which the planted loop is said over
_MANY = {pair[:2] for pair in PAIRS if sum(other[:2] == pair[:2] for other in PAIRS) > 1}

TABLE_SCHEMA: dict[str, Any] = {
    "control_id": pl.String,
    "kind": pl.String,
    "answer": pl.String,
    "overall": pl.Float64,
    **dict.fromkeys(COMPONENTS, pl.Float64),
    "critical_failures": pl.List(pl.String),
    "justification": pl.String,
}


def degenerate(text: str, length: int = LOOP_WORDS) -> str:
    """`text` said over and over, to at least `length` words and never fewer than five times."""
    times = max(5, -(-length // max(1, len(words(text)))))
    return " ".join([text.strip()] * times)


def control_answers(item: ControlItem, passages: pl.DataFrame) -> dict[str, str]:
    """kind → answer, for one control prompt. Raises DeclarationError for an anchor that names no passage or several."""
    return {
        "fits": find_anchor(passages, item.fits)["text"],
        "other": find_anchor(passages, item.other)["text"],
        "rival": find_anchor(passages, item.rival)["text"],
        "archaic_nonsense": item.archaic_nonsense,
        "modern_assistant": item.modern_assistant,
        "as_an_ai": item.as_an_ai,
        "loop": degenerate(item.loop),
    }


def planted(control_set: ControlSet, passages: pl.DataFrame) -> list[tuple[EvaluationPrompt, str]]:
    """Every planted answer with its prompt, in the order in which they are judged."""
    return [
        (item.prompt, answer) for item in control_set.controls for answer in control_answers(item, passages).values()
    ]


def judge_controls(
    control_set: ControlSet,
    passages: pl.DataFrame,
    judge: Judge,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[pl.DataFrame, dict[str, dict[str, Any]]]:
    """Judges every planted answer. `passages` holds the primary and the control sources.

    Returns the table of scores (one row an answer) and the summary: "<better>_over_<worse>" → component, n, auc,
    mean_difference, low, high, passed. A pair compared on two components has its component in its key, as in
    "fits_over_other_position". Items that the judge leaves unscored on either side are not compared; a pair with
    fewer than two compared items has no figures and has not passed.
    """
    rows: list[dict[str, Any]] = []
    for item in control_set.controls:
        for kind, answer in control_answers(item, passages).items():
            judgment = judge.judge(item.prompt, answer)
            rows.append(
                {
                    "control_id": item.id,
                    "kind": kind,
                    "answer": answer,
                    "overall": judgment.overall,
                    **{name: judgment.components.get(name) for name in COMPONENTS},
                    "critical_failures": list(judgment.critical_failures),
                    "justification": judgment.justification,
                }
            )
    table = pl.DataFrame(rows, schema=TABLE_SCHEMA, orient="row")
    summary = {}
    for better, worse, component in PAIRS:
        key = f"{better}_over_{worse}" + (f"_{component}" if (better, worse) in _MANY else "")
        summary[key] = _compare(table, better, worse, component, resamples, confidence, seed)
    return table, summary


def _compare(
    table: pl.DataFrame, better: str, worse: str, component: str, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    sides = [table.filter(pl.col("kind") == kind).select("control_id", score=component) for kind in (better, worse)]
    both = sides[0].join(sides[1], on="control_id", suffix="_worse").drop_nulls().sort("control_id")
    above, below = both["score"].to_list(), both["score_worse"].to_list()
    found: dict[str, Any] = {"component": component, "n": len(above)}
    if len(above) < 2:
        return found | {"auc": None, "mean_difference": None, "low": None, "high": None, "passed": False}
    area = auc(above, below)
    difference = paired_interval(above, below, resamples=resamples, confidence=confidence, seed=seed)
    assert difference.low is not None  # two items and more have an interval
    return found | {
        "auc": area,
        "mean_difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "passed": area >= MIN_AUC and difference.low > MIN_LOW,
    }
