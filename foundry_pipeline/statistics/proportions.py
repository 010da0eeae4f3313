"""Rates with honest intervals: how many of n, and between which bounds the true share may lie.

    >>> found = wilson(10, 13)
    >>> round(found.rate, 2), round(found.low, 2), round(found.high, 2)
    (0.77, 0.5, 0.92)

Wilson's score interval (Wilson 1927), which stays inside [0, 1] and keeps its width at 0 of n and n of n, where the
usual ± of a normal approximation shrinks to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Proportion:
    """`count` of `n`; rate and bounds are None where n is 0: nothing asked is not a rate of zero."""

    count: float
    n: int
    rate: float | None
    low: float | None
    high: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        return {"count": self.count, "n": self.n, "rate": self.rate, "low": self.low, "high": self.high}


def wilson(count: float, n: int, confidence: float = CONFIDENCE) -> Proportion:
    """A proportion and its interval. `count` may be a half where a tie counts for half.

    Raises ValueError for a count outside [0, n], or one that is not finite.
    """
    from statsmodels.stats.proportion import proportion_confint

    if not math.isfinite(count) or n < 0 or not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no proportion")
    if n == 0:
        return Proportion(count, 0, None, None, None)
    low, high = proportion_confint(count, n, alpha=1 - confidence, method="wilson")
    # At either end the formula gives the end itself but for the last bit of a float.
    rate = count / n
    return Proportion(count, n, rate, min(max(0.0, float(low)), rate), max(min(1.0, float(high)), rate))


def clustered(counts: Sequence[tuple[int, int]], confidence: float = CONFIDENCE) -> Proportion:
    """The proportion over several clusters of (count, n) each, with an interval that allows for their likeness.

    Wilson's interval with the effective number in the place of n (Korn and Graubard 1998): n divided by how much more
    the clusters' rates differ than single draws would make them. `n` of the result is the number of draws. Clusters
    without a draw are left out; one cluster is Wilson's interval itself.
    """
    held = [(count, n) for count, n in counts if n]
    count, n = sum(c for c, _ in held), sum(n for _, n in held)
    plain = wilson(count, n, confidence)
    if len(held) < 2 or plain.rate in (None, 0.0, 1.0):
        return plain
    rate, k = count / n, len(held)
    between = k / (k - 1) * sum((c - rate * m) ** 2 for c, m in held) / n**2
    by_draw = rate * (1 - rate) / n
    # Never fewer than the clusters themselves: that much is independent.
    effective = max(float(k), n / max(1.0, between / by_draw))
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(rate * effective, effective, alpha=1 - confidence, method="wilson")
    return Proportion(count, n, rate, float(low), float(high))


def difference(a: tuple[int, int], b: tuple[int, int], confidence: float = CONFIDENCE) -> dict[str, float | None]:
    """Rate of `a` minus that of `b`, each (count, n), with Newcombe's score interval (Newcombe 1998, method 10).

    All three are None where either n is 0.
    """
    one, other = wilson(*a, confidence), wilson(*b, confidence)
    if one.rate is None or other.rate is None:
        return {"difference": None, "low": None, "high": None}
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(*a, *b, method="newcomb", compare="diff", alpha=1 - confidence)
    # The bounds of certain rates lie on -1 and 1, and rounding takes them past it.
    low, high = max(-1.0, float(low)), min(1.0, float(high))
    return {"difference": one.rate - other.rate, "low": low, "high": high}


def fisher(a: tuple[int, int], b: tuple[int, int]) -> float | None:
    """Two-sided p value of Fisher's exact test of two rates, each (count, n); None where either n is 0."""
    if not a[1] or not b[1]:
        return None
    from scipy import stats

    table = [[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]
    return min(1.0, float(stats.fisher_exact(table).pvalue))
