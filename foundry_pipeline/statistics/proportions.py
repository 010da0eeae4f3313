"""Rates with honest intervals: how many of n, and between which bounds the true share may lie.

    >>> found = wilson(10, 13)
    >>> round(found.rate, 2), round(found.low, 2), round(found.high, 2)
    (0.77, 0.5, 0.92)

Wilson's score interval (Wilson 1927), which stays inside [0, 1] and keeps its width at 0 of n and n of n, where the
usual ± of a normal approximation shrinks to nothing.
"""

from __future__ import annotations

import math
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
