"""What a table of scores says of the judge that gave them: pure functions on the frame of `scoring.SCORES_SCHEMA`.

    unscored_bounds(scores)     → {"unscored": 2, "low": 5.81, "high": 6.37, "reasons": {"cut off …": 2}}
    mark_audit(scores)          → {"with": {"mean": -0.31, …}, "without": {"mean": -0.02, …}, "difference": …}
    length_correlation(scores)  → {"spearman": 0.12, "low": -0.22, "high": 0.44, "n": 36}

Each answers one question a reader should ask. How far could the mean lie off if every unread reply had been a 0, or a
10? Does the judge dock its own mark for critical failures, beyond what its components say? Does it pay for length?
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from foundry_pipeline.statistics.intervals import interval
from foundry_pipeline.textstats import words


def unscored_bounds(scores: pl.DataFrame) -> dict[str, Any]:
    """How many rows have no score, why, and the mean overall if each of them were worth 0, or 10.

    Repeats of a prompt enter as their mean, as everywhere; both bounds are None for an empty table.
    """
    missing = scores.filter(pl.col("overall").is_null())
    reasons = Counter(str(text).removeprefix("unscored: ") for text in missing["justification"].to_list())
    bounds = {}
    for name, worth in (("low", 0.0), ("high", 10.0)):
        filled = scores.with_columns(pl.col("overall").fill_null(worth))
        means = filled.group_by("prompt_id").agg(pl.col("overall").sort().mean())["overall"].sort()
        bounds[name] = None if means.is_empty() else round(math.fsum(means) / len(means), 9)
    return {"unscored": missing.height, **bounds, "reasons": dict(sorted(reasons.items()))}


def mark_audit(
    scores: pl.DataFrame, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """The judge's own overall mark minus the weighted mean, for answers with and without a critical failure.

    Empty where the judge gives no mark of its own. `difference` is the first mean minus the second: what the presence of
    a critical failure costs beyond the components (the original project's audit found −0.2 to −0.4); None where either
    kind of answer is missing.
    """
    rows = scores.filter(pl.col("overall").is_not_null() & pl.col("raw_overall").is_not_null())
    if rows.is_empty():
        return {}
    rows = rows.with_columns(docked=pl.col("raw_overall") - pl.col("overall"))
    found: dict[str, Any] = {}
    for name, kept in (
        ("with", pl.col("critical_failures").list.len() > 0),
        ("without", pl.col("critical_failures").list.len() == 0),
    ):
        part = rows.filter(kept)
        found[name] = interval(
            part["docked"].to_list(),
            clusters=part["prompt_id"].to_list(),
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        ).as_dict()
    there, other = found["with"]["mean"], found["without"]["mean"]
    found["difference"] = None if there is None or other is None else there - other
    return found


def length_correlation(scores: pl.DataFrame, *, confidence: float = 0.95) -> dict[str, Any]:
    """Spearman's rank correlation of an answer's words with its overall, and its interval.

    The interval is Fisher's, with the variance of Bonett and Wright (2000) for ranks. None where fewer than five rows
    are scored, or where all have one length or one score.
    """
    rows = scores.filter(pl.col("overall").is_not_null())
    lengths = [len(words(answer)) for answer in rows["answer"].to_list()]
    marks = rows["overall"].to_list()
    nothing = {"spearman": None, "low": None, "high": None, "n": len(marks)}
    if len(marks) < 5 or len(set(lengths)) < 2 or len(set(marks)) < 2:
        return nothing
    from scipy.stats import norm, spearmanr

    rho = float(spearmanr(lengths, marks).statistic)
    if abs(rho) >= 1:
        return {**nothing, "spearman": rho, "low": rho, "high": rho}
    reach = float(norm.ppf((1 + confidence) / 2)) * math.sqrt((1 + rho**2 / 2) / (len(marks) - 3))
    middle = math.atanh(rho)
    return {**nothing, "spearman": rho, "low": math.tanh(middle - reach), "high": math.tanh(middle + reach)}


# -- agreement -------------------------------------------------------------------------------------------------------


def quadratic_kappa(first: Sequence[float], second: Sequence[float], *, levels: int = 11) -> float | None:
    """Cohen's kappa with quadratic weights between two ratings of the same answers (Cohen 1968).

    Scores are rounded to whole marks from 0 to `levels` - 1, halves up. None where both give one and the same mark to
    everything: chance alone would explain it. Raises ValueError for unequal lengths and marks out of range.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} ratings do not pair up")
    a, b = (np.floor(np.asarray(side, dtype=float) + 0.5) for side in (first, second))
    if not all(np.all(np.isfinite(side)) and np.all((side >= 0) & (side < levels)) for side in (a, b)):
        raise ValueError(f"a rating lies outside 0 to {levels - 1}")
    if not len(a):
        return None
    observed = float(np.mean((a - b) ** 2))
    expected = float(np.mean((a[:, None] - b[None, :]) ** 2))
    return None if expected == 0 else 1 - observed / expected


def krippendorff_alpha(ratings: Sequence[Sequence[float | None]]) -> float | None:
    """Krippendorff's alpha for interval data: one row a judge (or a repeat), one column an answer, None where unscored.

    None where it is undefined: fewer than two answers that two judges rated, or all ratings equal.
    """
    import krippendorff

    table = np.array([[np.nan if value is None else float(value) for value in row] for row in ratings], dtype=float)
    if table.ndim != 2 or table.size == 0:
        return None
    paired = table[:, np.sum(~np.isnan(table), axis=0) >= 2]
    if paired.shape[1] < 2 or len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="interval"))


def agreement(ratings: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """How far judges, or repeats of one, agree on the same answers: rows are judges, columns answers.

    → {"raters": 3, "answers": 36, "alpha": 0.91, "kappa": 0.88, "mean_spread": 0.4}: alpha as above, `kappa` the mean
    quadratic kappa over pairs of rows, `mean_spread` the mean distance of highest and lowest score of an answer.
    """
    rows = [list(row) for row in ratings]
    if len({len(row) for row in rows}) > 1:
        raise ValueError("every judge has one place for every answer, None where it gave no score")
    kappas = []
    for i, one in enumerate(rows):
        for other in rows[i + 1 :]:
            both = [(x, y) for x, y in zip(one, other, strict=True) if x is not None and y is not None]
            if both and (kappa := quadratic_kappa([x for x, _ in both], [y for _, y in both])) is not None:
                kappas.append(kappa)
    columns = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
    spreads = [max(column) - min(column) for column in columns if len(column) > 1]
    return {
        "raters": len(rows),
        "answers": len(spreads),
        "alpha": krippendorff_alpha(rows) if len(rows) > 1 else None,
        "kappa": math.fsum(kappas) / len(kappas) if kappas else None,
        "mean_spread": math.fsum(spreads) / len(spreads) if spreads else None,
    }


def self_agreement(records: pl.DataFrame) -> dict[str, Any]:
    """`agreement` of a judge with itself over its repeats; empty where it was asked once. `records`: `model_judge.RECORDS`.

    Of each repeat its last attempt counts; one that stayed unscored is left out.
    """
    last = records.sort("attempt").group_by("prompt_id", "answer_hash", "repeat", maintain_order=True).last()
    repeats = sorted(set(last["repeat"].to_list()))
    if len(repeats) < 2:
        return {}
    marks = {
        (row["prompt_id"], row["answer_hash"], row["repeat"]): row["overall"] for row in last.iter_rows(named=True)
    }
    answers = sorted({key[:2] for key in marks})
    return agreement([[marks.get((*answer, repeat)) for answer in answers] for repeat in repeats])
