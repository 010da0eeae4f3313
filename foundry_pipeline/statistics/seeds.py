"""Two trainings under several seeds each: is one better than the other, beyond what the seed alone does?

    found = compare_seeds(Sample(4.097, 0.339, 10), Sample(3.657, 0.173, 10))
    found.verdict, round(found.welch.p, 4), round(found.effect.g, 3)      → ("better", 0.0028, 1.566)

Here the unit is a seed and its value the overall score of a whole evaluation. Seeds of one training and of another have
nothing in common that could be paired, and no reason to scatter alike: Welch's t decides, Student's is given beside it.
"better" means higher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from foundry_pipeline.statistics.effects import CONFIDENCE, Effect, Sample, hedges_g, pooled_sd
from foundry_pipeline.statistics.power import POWER
from foundry_pipeline.statistics.significance import TTest, student, welch
from foundry_pipeline.statistics.verdict import ALPHA, BETTER, WORSE


@dataclass(frozen=True)
class SeedComparison:
    """`a` against `b`; `detectable` is the smallest difference found in four of five such comparisons."""

    a: Sample
    b: Sample
    welch: TTest
    student: TTest
    effect: Effect | None
    detectable: float | None
    alpha: float

    @property
    def difference(self) -> float:
        return self.a.mean - self.b.mean

    @property
    def verdict(self) -> str:
        if self.welch.p is not None and self.welch.p <= self.alpha:
            return BETTER if self.difference > 0 else WORSE
        return f"no claim at n={self.a.n}+{self.b.n}"


def mean_interval(sample: Sample, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the mean by Student's t.

    >>> low, high = mean_interval(Sample(4.097, 0.339, 10))
    >>> round(low, 3), round(high, 3)
    (3.854, 4.34)
    """
    from scipy import stats

    half = float(stats.t.ppf((1 + confidence) / 2, sample.n - 1)) * sample.sd / math.sqrt(sample.n)
    return sample.mean - half, sample.mean + half


def compare_seeds(a: Sample, b: Sample, *, alpha: float = ALPHA, power: float = POWER) -> SeedComparison:
    """Compare two samples of seeds. Where neither varies there is no test, and no claim."""
    from statsmodels.stats.power import TTestIndPower

    spread = pooled_sd(a, b)
    effect = (
        TTestIndPower().solve_power(nobs1=a.n, ratio=b.n / a.n, alpha=alpha, power=power) if a.n + b.n > 4 else None
    )
    return SeedComparison(
        a=a,
        b=b,
        welch=welch(a, b),
        student=student(a, b),
        effect=hedges_g(a, b),
        detectable=float(effect) * spread if effect is not None and spread else None,
        alpha=alpha,
    )
