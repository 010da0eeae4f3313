"""How often a model would be called better or worse than itself.

    self_claims(rows, comparisons=200)   → {"comparisons": 200, "claims": 5, "rate": 0.025, "low": 0.01, "high": 0.06}

`rows` hold several answers to each prompt, drawn under several sampling seeds. Each comparison deals every prompt's
answers out at random, `each` to either side, none to both, and asks `verdict.compare`. Both sides are then the same model,
and every claim is a false one. Comparisons share answers, so that the interval is a little narrower than it ought to be.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from foundry_pipeline.statistics.intervals import RESAMPLES
from foundry_pipeline.statistics.proportions import wilson
from foundry_pipeline.statistics.verdict import ALPHA, BETTER, WORSE, Rows, compare


def self_claims(
    rows: Rows,
    *,
    comparisons: int = 200,
    each: int = 1,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """Share of false claims with its interval. Raises ValueError for a prompt with fewer than 2 × `each` answers."""
    by_prompt: dict[tuple[str, str], list[float]] = defaultdict(list)
    for value, stratum, cluster in zip(rows.values, rows.strata, rows.clusters, strict=True):
        by_prompt[stratum, cluster].append(value)
    for (_, cluster), found in sorted(by_prompt.items()):
        if len(found) < 2 * each:
            raise ValueError(f"{cluster} has {len(found)} answers; {_number(each)} on either side need {2 * each}")
    rng = np.random.default_rng(seed)
    claims = 0
    for _ in range(comparisons):
        sides: tuple[list[tuple[float, str, str]], ...] = ([], [])
        for (stratum, cluster), found in sorted(by_prompt.items()):
            dealt = rng.permutation(sorted(found))[: 2 * each]
            for side, values in zip(sides, (dealt[:each], dealt[each:]), strict=True):
                side.extend((float(v), stratum, cluster) for v in values)
        a, b = (Rows(*map(list, zip(*side, strict=True))) for side in sides)
        claims += compare(a, b, alpha=alpha, resamples=resamples, seed=seed).verdict in (BETTER, WORSE)
    found_rate = wilson(claims, comparisons)
    return {
        "comparisons": comparisons,
        "claims": claims,
        "rate": found_rate.rate,
        "low": found_rate.low,
        "high": found_rate.high,
    }


def _number(each: int) -> str:
    return {1: "one", 2: "two"}.get(each, str(each))
