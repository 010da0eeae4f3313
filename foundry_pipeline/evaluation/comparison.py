"""Two score tables of one suite by one judge, set against each other prompt by prompt.

    compare_scores(adapter_rows, base_rows)["overall"]
    → {"a": 6.16, "b": 3.01, "difference": 3.15, "low": 2.8, "high": 3.54, "n": 36, "p": 0.0002, "g": 2.47, …,
       "detectable": 0.65, "verdict": "better"}

`a` and `b` are rows of `scores.parquet` (columns of SCORES_SCHEMA that are read here: prompt_id, category, overall and
the components), one serving mode each, with any number of answers a prompt. Categories and components are families of
questions asked at once: their p values are corrected (Holm) within each family before a verdict is given. With six
categories at once, one of eight prompts or fewer cannot be claimed by an exact test, however great the difference (the
smallest p there is, 2/2⁸, times six is 0.047); its interval and effect are given all the same. A category is
never compared by a side that has no prompt in it: that is how a missing category once became a regression to zero.

    with_verdicts(summary, scores)["paired"]["adapter"]["verdict"]      → "better"

An evaluation's `summary.json` records differences to the untuned base with their intervals; what may be said of them is
added where they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.declarations.common import CATEGORIES
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.scoring import BASE_MODE, COMPONENTS
from foundry_pipeline.statistics.intervals import Interval
from foundry_pipeline.statistics.proportions import wilson
from foundry_pipeline.statistics.significance import holm, paired_permutation
from foundry_pipeline.statistics.verdict import ALPHA, Comparison, Rows, compare, pair_up, verdict_of

_READ = ["mode", "category", "prompt_id", "overall"]
LOWEST, HIGHEST = 0.0, 10.0  # what an unscored answer could have scored


def compare_scores(
    a: pl.DataFrame,
    b: pl.DataFrame,
    *,
    guarded: Iterable[str] = (),
    alpha: float = ALPHA,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Difference `a` minus `b`: overall, by category, by component, and how often either was above the other.

    Raises FoundryError where either side has no prompt in a guarded category, or in one that the other side has, and
    where no prompt is scored on both sides.
    """
    require_categories({"the first side": a, "the second side": b}, guarded)
    options = {"alpha": alpha, "resamples": resamples, "confidence": confidence, "seed": seed}

    def one(left: pl.DataFrame, right: pl.DataFrame, column: str = "overall") -> Comparison:
        return compare(score_rows(left, column), score_rows(right, column), **options)  # type: ignore[arg-type]

    overall = one(a, b)
    if not overall.difference.n:
        raise FoundryError(
            "no prompt is scored on both sides, so there is nothing to compare",
            where="scores.parquet of the two evaluations",
            mend="foundry scores  # the column of unscored answers says how many there are",
        )
    present = [c for c in CATEGORIES if c in set(a["category"])]
    categories = family({c: one(_in(a, c), _in(b, c)) for c in present})
    components = family({c: one(a, b, c) for c in COMPONENTS})
    return {
        "overall": figures(overall),
        "categories": {name: figures(found) for name, found in categories.items()},
        "components": {name: figures(found) for name, found in components.items()},
        "wins": {
            "overall": _wins(a, b),
            "categories": {c: _wins(_in(a, c), _in(b, c)) for c in present},
        },
        "unscored": {"a": a["overall"].null_count(), "b": b["overall"].null_count(), **_worst_case(a, b)},
        "alpha": alpha,
        "confidence": confidence,
    }


def require_categories(sides: Mapping[str, pl.DataFrame], guarded: Iterable[str]) -> None:
    """Raise FoundryError unless every side has prompts in every guarded category and in every one that another side has."""
    held = {name: set(frame["category"]) for name, frame in sides.items()}
    wanted = sorted(set(guarded).union(*held.values()))
    lacking = {name: [c for c in wanted if c not in categories] for name, categories in held.items()}
    for name, missing in lacking.items():
        if missing:
            raise FoundryError(
                f"{name} has no prompt in the guarded category {', '.join(missing)}; a category that was not asked is "
                "not a score of zero",
                where="the score tables compared",
                mend="judge both with the whole suite: `foundry eval RUN`",
            )


def read_summary(payload: Path) -> dict[str, Any]:
    """`summary.json` of an evaluation's payload, its paired differences with verdicts."""
    summary = json.loads((payload / "summary.json").read_text(encoding="utf-8"))
    return with_verdicts(summary, pl.read_parquet(payload / "scores.parquet", columns=_READ))


def with_verdicts(summary: Mapping[str, Any], scores: pl.DataFrame, *, alpha: float = ALPHA) -> dict[str, Any]:
    """A summary whose paired differences carry `p`, `alpha` and `verdict`, as `compare_scores` gives them.

    `scores` are the rows that the summary was made from. The recorded interval is the one that counts, so that a verdict
    never stands beside bounds that it was not reached by.
    """
    out = dict(summary)
    out["paired"] = {mode: _claimed(scores, mode, found, alpha) for mode, found in summary["paired"].items()}
    return out


def _claimed(scores: pl.DataFrame, mode: str, recorded: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    a, b = (score_rows(scores.filter(pl.col("mode") == name)) for name in (mode, recorded.get("against", BASE_MODE)))
    ours, theirs, _, _ = pair_up(a, b)
    p = paired_permutation([round(x - y, 12) for x, y in zip(ours, theirs, strict=True)])
    bounds = Interval(recorded["difference"], recorded["low"], recorded["high"], recorded["n"])
    return {**recorded, "p": p, "alpha": alpha, "verdict": verdict_of(bounds, p, alpha)}


def _in(frame: pl.DataFrame, category: str) -> pl.DataFrame:
    return frame.filter(pl.col("category") == category)


def score_rows(frame: pl.DataFrame, column: str = "overall") -> Rows:
    """The scored rows of one side under a column; unscored ones are left out."""
    scored = frame.filter(pl.col(column).is_not_null())
    return Rows(scored[column].to_list(), scored["category"].to_list(), scored["prompt_id"].to_list())


def family(found: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Comparisons made at once, each with the p value that Holm's correction leaves it."""
    corrected = holm({name: c.p for name, c in found.items()})
    return {name: c.corrected(corrected[name]) for name, c in found.items()}


def figures(found: Comparison) -> dict[str, Any]:
    """A comparison as plain values; `statistics/stated.py` writes them."""
    effect = found.effect
    return {
        "a": found.mean_a,
        "b": found.mean_b,
        "difference": found.difference.mean,
        "low": found.difference.low,
        "high": found.difference.high,
        "n": found.difference.n,
        "p": found.p,
        "p_corrected": found.p_corrected,
        "g": effect.g if effect else None,
        "g_low": effect.low if effect else None,
        "g_high": effect.high if effect else None,
        "detectable": found.detectable,
        "verdict": found.verdict,
    }


def _wins(a: pl.DataFrame, b: pl.DataFrame) -> dict[str, Any]:
    """Prompts on which the mean score of `a` is above, level with and below that of `b`; a tie counts for half."""
    ours, theirs, _, _ = pair_up(score_rows(a, "overall"), score_rows(b, "overall"))
    gaps = [round(x - y, 9) for x, y in zip(ours, theirs, strict=True)]
    wins, ties = sum(g > 0 for g in gaps), sum(g == 0 for g in gaps)
    rate = wilson(wins + ties / 2, len(gaps))
    return {"wins": wins, "ties": ties, "losses": len(gaps) - wins - ties, **rate.as_dict()}


def _worst_case(a: pl.DataFrame, b: pl.DataFrame) -> dict[str, float | None]:
    """The overall difference if every unscored answer had scored lowest on one side and highest on the other."""
    bounds: dict[str, float | None] = {}
    for name, fill_a, fill_b in (("lowest", LOWEST, HIGHEST), ("highest", HIGHEST, LOWEST)):
        left, right = (t.with_columns(pl.col("overall").fill_null(fill)) for t, fill in ((a, fill_a), (b, fill_b)))
        ours, theirs, _, _ = pair_up(score_rows(left, "overall"), score_rows(right, "overall"))
        bounds[name] = sum(x - y for x, y in zip(ours, theirs, strict=True)) / len(ours) if ours else None
    return bounds
