"""What may be said of two models that answered the same prompts: better, worse, or nothing.

    found = compare(a, b)      # two Rows: values, strata (categories), clusters (prompts)
    found.verdict              → "better" | "worse" | "no claim at n=36"
    found.difference           → Interval(mean=3.15, low=2.80, high=3.54, n=36), `a` minus `b`

Repeats of a prompt are averaged before anything else: two answers to one prompt are no two witnesses. A claim takes both
the paired permutation test at ALPHA and an interval that leaves zero out; either alone would do on a well-behaved sample,
and where they differ nothing is claimed. A report writes what `verdict` says and nothing beyond it.

ALPHA is 0.03 and not 0.05 on purpose. A test at 0.05 makes a false claim in one of twenty comparisons of a model with
itself; over two hundred such comparisons that is more than 7 % one time in ten, by luck alone. What it costs is a tenth
of the reach: 36 prompts detect 0.52 standard deviations instead of 0.48. Intervals stay at 95 %, so an interval may leave
zero out where no claim is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foundry_pipeline.statistics.effects import Effect, hedges_g_paired
from foundry_pipeline.statistics.intervals import CONFIDENCE, RESAMPLES, Interval, cluster_means, interval
from foundry_pipeline.statistics.power import detectable_difference
from foundry_pipeline.statistics.significance import paired_permutation

ALPHA = 0.03
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True)
class Rows:
    """Scored rows of one side, aligned: one entry an answer. Unscored answers are left out by the caller."""

    values: Sequence[float]
    strata: Sequence[str]
    clusters: Sequence[str]


def verdict_of(difference: Interval, p: float | None, alpha: float = ALPHA) -> str:
    """The verdict on a difference: a claim where p is at most `alpha` and the interval leaves zero out."""
    if p is not None and p <= alpha and difference.low is not None and difference.high is not None:
        if difference.low > 0:
            return BETTER
        if difference.high < 0:
            return WORSE
    return f"no claim at n={difference.n}"


@dataclass(frozen=True)
class Comparison:
    """One comparison over the prompts that both sides have a score for, `a` minus `b`.

    `p` is the permutation test's, `p_corrected` the one the verdict rests on (the same unless several were asked at
    once), `detectable` the smallest difference in points found in four of five samples of this size and spread.
    """

    mean_a: float | None
    mean_b: float | None
    difference: Interval
    p: float | None
    p_corrected: float | None
    effect: Effect | None
    detectable: float | None
    alpha: float

    @property
    def verdict(self) -> str:
        return verdict_of(self.difference, self.p_corrected, self.alpha)

    def corrected(self, p: float | None) -> Comparison:
        """The same with the p value that remains after a correction for several comparisons."""
        return replace(self, p_corrected=p)


def pair_up(a: Rows, b: Rows) -> tuple[list[float], list[float], list[str], list[str]]:
    """Means of `a` and of `b`, strata and clusters, for the clusters that both have, sorted by stratum and name.

    Raises ValueError where rows do not align, a value is not finite, or a cluster lies in two strata.
    """
    sides = [cluster_means(rows.values, rows.strata, rows.clusters) for rows in (a, b)]
    flat = [
        {cluster: (stratum, value) for stratum, m in side.items() for cluster, value in m.items()} for side in sides
    ]
    both = sorted(flat[0].keys() & flat[1].keys(), key=lambda c: (flat[0][c][0], c))
    for cluster in both:
        if flat[0][cluster][0] != flat[1][cluster][0]:
            raise ValueError(f"{cluster!r} lies in two strata: {flat[0][cluster][0]!r} and {flat[1][cluster][0]!r}")
    return (
        [flat[0][c][1] for c in both],
        [flat[1][c][1] for c in both],
        [flat[0][c][0] for c in both],
        both,
    )


def compare(
    a: Rows,
    b: Rows,
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Comparison:
    """Compare two sides prompt by prompt. Equal rows in any order give equal figures for equal seeds."""
    ours, theirs, strata, clusters = pair_up(a, b)
    # Rounded far below any figure shown: equal scores must not differ by the last bit of their means.
    differences = [round(x - y, 12) for x, y in zip(ours, theirs, strict=True)]
    n = len(differences)
    return Comparison(
        mean_a=math.fsum(ours) / n if n else None,
        mean_b=math.fsum(theirs) / n if n else None,
        difference=interval(differences, strata, clusters, resamples=resamples, confidence=confidence, seed=seed),
        p=(p := paired_permutation(differences, seed=seed)),
        p_corrected=p,
        effect=hedges_g_paired(differences, confidence),
        detectable=detectable_difference(differences, alpha=alpha) if n >= 3 else None,
        alpha=alpha,
    )
