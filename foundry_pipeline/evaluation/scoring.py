"""From judgments to the figures of a report: pure functions on polars frames.

    scores  one row per (mode, prompt, repeat); `overall` null where unscored   → SCORES_SCHEMA
    summarize(scores, …)  → the dictionary written as summary.json

`overall` is computed here from the five components and from nothing else, so that it means the same under every judge.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.evaluation.judge_checks import length_correlation, mark_audit, unscored_bounds
from foundry_pipeline.statistics.intervals import interval, paired_interval
from foundry_pipeline.textstats import words

if TYPE_CHECKING:
    from foundry_pipeline.evaluation.judges import Judgment
    from foundry_pipeline.evaluation.overlap import Overlap

# A deterministic weighted mean in the place of a judge's ad-hoc overall mark, which wanders by 0.2 to 0.4 points.
WEIGHTS: dict[str, float] = {
    "voice": 0.25,
    "rhetorical": 0.20,
    "historical": 0.20,
    "position": 0.20,
    "integrity": 0.15,
}
COMPONENTS: tuple[str, ...] = tuple(WEIGHTS)
BASE_MODE = "base"

SCORES_SCHEMA: dict[str, Any] = {
    "mode": pl.String,
    "prompt_id": pl.String,
    "category": pl.String,
    "difficulty": pl.String,
    "answer": pl.String,
    "overall": pl.Float64,
    "raw_overall": pl.Float64,
    **dict.fromkeys(COMPONENTS, pl.Float64),
    "critical_failures": pl.List(pl.String),
    "justification": pl.String,
    "longest_overlap_words": pl.Int64,
    "overlap_passage_id": pl.String,
    "finish_reason": pl.String,
    "request_hash": pl.String,
}


def weighted_overall(components: Mapping[str, float]) -> float:
    """The overall score in [0, 10] of five components in [0, 10].

    Raises ValueError where one is missing, unknown, not finite or out of range: a gap is never taken for a zero.
    """
    if set(components) != set(WEIGHTS):
        raise ValueError(
            f"expected the components {', '.join(COMPONENTS)}; got {', '.join(sorted(components)) or 'none'}"
        )
    for name, value in components.items():
        if not math.isfinite(value) or not 0 <= value <= 10:
            raise ValueError(f"{name} is {value!r}, outside [0, 10]")
    # Rounded far below any figure shown, so that sums do not differ in their last bit between machines.
    return round(math.fsum(WEIGHTS[name] * components[name] for name in COMPONENTS), 9)


def score_row(
    mode: str,
    prompt: EvaluationPrompt,
    answer: str,
    judgment: Judgment,
    overlap: Overlap,
    *,
    finish_reason: str,
    request_hash: str,
) -> dict[str, Any]:
    """One row of the scores table."""
    return {
        "mode": mode,
        "prompt_id": prompt.id,
        "category": prompt.category,
        "difficulty": prompt.difficulty,
        "answer": answer,
        "overall": judgment.overall,
        "raw_overall": judgment.raw_overall,
        **{name: judgment.components.get(name) for name in COMPONENTS},
        "critical_failures": list(judgment.critical_failures),
        "justification": judgment.justification,
        "longest_overlap_words": overlap.words,
        "overlap_passage_id": overlap.passage_id,
        "finish_reason": finish_reason,
        "request_hash": request_hash,
    }


def scores_frame(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows in the order given, with the declared columns and types even where there are none."""
    return pl.DataFrame(list(rows), schema=SCORES_SCHEMA, orient="row")


@dataclass(frozen=True)
class Bounds:
    """How intervals are drawn: resamples, confidence and seed of the bootstrap."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


def mean_of(scores: pl.DataFrame, column: str, bounds: Bounds) -> dict[str, float | int | None]:
    """{mean, low, high, n} of a column over prompts; rows without a score are left out, never counted as 0."""
    rows = scores.filter(pl.col(column).is_not_null())
    return interval(
        rows[column].to_list(),
        rows["category"].to_list(),
        rows["prompt_id"].to_list(),
        resamples=bounds.resamples,
        confidence=bounds.confidence,
        seed=bounds.seed,
    ).as_dict()


def _groups(scores: pl.DataFrame, key: str, names: Iterable[str], bounds: Bounds) -> dict[str, Any]:
    present = set(scores[key].to_list())
    return {name: mean_of(scores.filter(pl.col(key) == name), "overall", bounds) for name in names if name in present}


@dataclass(frozen=True)
class ModeFacts:
    """What the scores table does not hold about one serving mode."""

    model: str
    nats_per_token: float | None = None
    heldout_tokens: int = 0
    nats_per_token_in_context: float | None = None
    seconds: float = 0.0


def summarize_mode(scores: pl.DataFrame, facts: ModeFacts, bounds: Bounds) -> dict[str, Any]:
    """The summary of one mode's rows."""
    longest = scores.sort(["longest_overlap_words", "prompt_id"], descending=[True, False]).row(0, named=True)
    lengths = [len(words(answer)) for answer in scores["answer"].to_list()]
    return {
        "model": facts.model,
        "overall": mean_of(scores, "overall", bounds),
        "raw_overall": mean_of(scores, "raw_overall", bounds),
        "categories": _groups(scores, "category", CATEGORIES, bounds),
        "difficulties": _groups(scores, "difficulty", DIFFICULTIES, bounds),
        "components": {name: mean_of(scores, name, bounds) for name in COMPONENTS},
        "critical_failures": int(scores["critical_failures"].list.len().gt(0).sum()),
        "unscored": scores["overall"].null_count(),
        "unscored_bounds": unscored_bounds(scores),
        "mark_audit": mark_audit(scores, resamples=bounds.resamples, confidence=bounds.confidence, seed=bounds.seed),
        "length_correlation": length_correlation(scores, confidence=bounds.confidence),
        "nats_per_token": facts.nats_per_token,
        "heldout_tokens": facts.heldout_tokens,
        "nats_per_token_in_context": facts.nats_per_token_in_context,
        "longest_overlap": {
            "max_words": longest["longest_overlap_words"],
            "median_words": float(statistics.median(scores["longest_overlap_words"].to_list())),
            "answer": longest["prompt_id"],
            "passage_id": longest["overlap_passage_id"],
        },
        "answers": {
            "truncated": int((scores["finish_reason"] == "length").sum()),
            "mean_words": statistics.fmean(lengths),
        },
        "seconds": facts.seconds,
    }


def paired_difference(scores: pl.DataFrame, mode: str, against: str, bounds: Bounds) -> dict[str, Any]:
    """Mean overall of `mode` minus that of `against`, prompt by prompt, over prompts that both have a score for.

    Repeats of a prompt are averaged first; n is the number of prompts compared.
    """
    means = (
        scores.filter(pl.col("overall").is_not_null())
        .group_by("mode", "category", "prompt_id")
        .agg(pl.col("overall").sort().mean())
    )
    here, there = (means.filter(pl.col("mode") == name).drop("mode") for name in (mode, against))
    both = here.join(there, on=["category", "prompt_id"], suffix="_against").sort("prompt_id")
    found = paired_interval(
        both["overall"].to_list(),
        both["overall_against"].to_list(),
        both["category"].to_list(),
        both["prompt_id"].to_list(),
        resamples=bounds.resamples,
        confidence=bounds.confidence,
        seed=bounds.seed,
    )
    return {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n, "against": against}


def summarize(
    scores: pl.DataFrame,
    modes: Mapping[str, ModeFacts],
    *,
    run: str,
    profile: str,
    judge_name: str,
    judge_version: str,
    suite_hash: str,
    controls: Mapping[str, Any],
    bounds: Bounds | None = None,
) -> dict[str, Any]:
    """Everything that summary.json holds. Modes come in the order of `modes`; each is compared with `base` where there is one.

    Raises ValueError where the table and `modes` do not name the same modes, so that no mode is dropped in silence.
    """
    bounds = bounds or Bounds()
    present = set(scores["mode"].to_list())
    if present != set(modes):
        raise ValueError(f"scores are of the modes {sorted(present)}, facts of {sorted(modes)}")
    return {
        "run": run,
        "profile": profile,
        "judge": {"name": judge_name, "version": judge_version},
        "suite_hash": suite_hash,
        "prompts": scores["prompt_id"].n_unique(),
        "modes": {
            mode: summarize_mode(scores.filter(pl.col("mode") == mode), facts, bounds) for mode, facts in modes.items()
        },
        "paired": {
            mode: paired_difference(scores, mode, BASE_MODE, bounds)
            for mode in modes
            if BASE_MODE in modes and mode != BASE_MODE
        },
        "controls": dict(controls),
    }
