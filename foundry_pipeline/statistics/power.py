"""What a comparison of this size could have seen at all.

    >>> round(detectable_effect(36), 2), round(detectable_effect(216), 2)
    (0.48, 0.19)

The smallest paired effect, in standard deviations of the differences, that a two-sided paired t test finds in `power`
of all samples of n prompts (`statsmodels`' TTestPower). The permutation test in use differs little from it at the sizes
of a suite. A difference below it that "was not found" says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from foundry_pipeline.statistics.effects import Sample

POWER = 0.80
ALPHA = 0.05


@cache
def detectable_effect(n: int, *, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """In standard deviations; None below three pairs, where no effect of sensible size is found.

    Raises ValueError for power or alpha outside (0, 1), or a power not above alpha.
    """
    from statsmodels.stats.power import TTestPower

    if not 0 < alpha < power < 1:
        raise ValueError(f"power {power} and alpha {alpha} must satisfy 0 < alpha < power < 1")
    if n < 3:
        return None
    return float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided"))


def detectable_difference(differences: Sequence[float], *, power: float = POWER, alpha: float = ALPHA) -> float | None:
    """The same in points of the score, by the spread of the differences at hand."""
    effect = detectable_effect(len(differences), power=power, alpha=alpha)
    if effect is None:
        return None
    found = effect * Sample.of(differences).sd
    return found if math.isfinite(found) else None
