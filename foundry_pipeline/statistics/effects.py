"""How large a difference is, in standard deviations: Hedges' g with an exact interval.

    >>> found = hedges_g(Sample(4.097, 0.339, 10), Sample(3.657, 0.173, 10))
    >>> round(found.g, 3), round(found.low, 2), round(found.high, 2)
    (1.566, 0.59, 2.64)

g is Cohen's d times the exact correction for small samples, J(df) = Γ(df/2) / (√(df/2) Γ((df−1)/2)) (Hedges 1981), not
its usual approximation. The interval is of the effect in the population: the t that was seen is noncentral t around
that effect, and the two noncentralities under which it would lie at either tail are found by bisection (Steiger and
Fouladi 1997). No normal approximation is made anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
# The noncentral t of scipy loses its digits far out; effects there are beyond any doubt, and are given without bounds.
_LARGEST_T = 36.0


@dataclass(frozen=True)
class Sample:
    """A sample by its figures: mean, standard deviation with n − 1 below, size.

    Raises ValueError for a figure that is not finite, a negative deviation, or fewer than two values.
    """

    mean: float
    sd: float
    n: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sd)) or self.sd < 0 or self.n < 2:
            raise ValueError(f"mean {self.mean}, deviation {self.sd}, n {self.n} are not those of a sample")

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """The figures of values. Raises ValueError for fewer than two, or for one that is not finite."""
        if len(values) < 2:
            raise ValueError(f"{len(values)} values have no standard deviation")
        mean = math.fsum(values) / len(values)
        return cls(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), len(values))


@dataclass(frozen=True)
class Effect:
    """Hedges' g, Cohen's d it was corrected from, and the interval of the effect in the population.

    Bounds are None where t lies too far out to be inverted (beyond 36 either way).
    """

    g: float
    d: float
    low: float | None
    high: float | None
    df: int


def hedges_correction(df: int) -> float:
    """J(df), what d is multiplied by to be free of bias: 0.9576 at 18. Raises ValueError below df = 2."""
    if df < 2:
        raise ValueError(f"the correction needs two degrees of freedom and more, not {df}")
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def pooled_sd(a: Sample, b: Sample) -> float:
    """The common standard deviation of two samples, as Student's t takes it."""
    return math.sqrt(((a.n - 1) * a.sd**2 + (b.n - 1) * b.sd**2) / (a.n + b.n - 2))


def noncentral_interval(t: float, df: int, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """The noncentralities under which t lies at its upper and lower tail; None where they cannot be found exactly."""
    from scipy import optimize, special

    if not math.isfinite(t) or abs(t) > _LARGEST_T:
        return None
    tail = (1 - confidence) / 2

    def solve(level: float) -> float | None:
        # The distribution function falls from 1 to 0 as the noncentrality rises. The way out from t is taken in short
        # steps, because far beyond the answer the function is not a number.
        def off(nc: float) -> float:
            return float(special.nctdtr(df, nc, t)) - level

        step = math.copysign(0.5 + abs(t) / 8, off(t))
        near, far = t, t + step
        while off(near) * off(far) > 0:
            near, far = far, far + step
        if not math.isfinite(off(far)):
            return None
        return float(optimize.brentq(off, min(near, far), max(near, far), xtol=1e-10))

    low, high = solve(1 - tail), solve(tail)
    return None if low is None or high is None else (low, high)


def hedges_g(a: Sample, b: Sample, confidence: float = CONFIDENCE) -> Effect | None:
    """Effect of `a` over `b`, two independent samples. None where neither varies: no unit to measure by."""
    spread = pooled_sd(a, b)
    if spread == 0:
        return None
    scale = math.sqrt(1 / a.n + 1 / b.n)
    return _effect((a.mean - b.mean) / spread, scale, a.n + b.n - 2, confidence)


def hedges_g_paired(differences: Sequence[float], confidence: float = CONFIDENCE) -> Effect | None:
    """Effect of paired differences in units of *their* standard deviation (d_z of the literature, corrected).

    None for fewer than three differences, or where they do not vary.
    """
    if len(differences) < 3:
        return None
    sample = Sample.of(differences)
    if sample.sd <= 1e-12 * max(1.0, abs(sample.mean)):
        return None
    return _effect(sample.mean / sample.sd, 1 / math.sqrt(sample.n), sample.n - 1, confidence)


def _effect(d: float, scale: float, df: int, confidence: float) -> Effect:
    bounds = noncentral_interval(d / scale, df, confidence)
    low, high = (bounds[0] * scale, bounds[1] * scale) if bounds else (None, None)
    return Effect(d * hedges_correction(df), d, low, high, df)
