"""Whether a difference could be chance: a paired test that assumes no distribution, t tests for samples known only by
their figures, and a correction for asking several times.

    >>> found = student(Sample(4.097, 0.339, 10), Sample(3.657, 0.173, 10))
    >>> round(found.t, 2), found.df, round(found.p, 4)
    (3.66, 18.0, 0.0018)
    >>> holm({"voice": 0.01, "position": 0.04, "integrity": 0.03})
    {'voice': 0.03, 'position': 0.06, 'integrity': 0.06}

The paired test exchanges the two sides of a prompt at random (Fisher 1935): if one model answered under both names, every
such exchange was as likely as what was seen. It is exact where all exchanges can be tried, and otherwise a Monte Carlo
test that counts the draw itself and so is never below its level (Phipson and Smyth 2010).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from foundry_pipeline.statistics.effects import Sample, pooled_sd

EXCHANGES = 9999


@dataclass(frozen=True)
class TTest:
    """t, its degrees of freedom and the two-sided p value; t and p are None where neither sample varies."""

    t: float | None
    df: float
    p: float | None


def student(a: Sample, b: Sample) -> TTest:
    """Student's t for two independent samples with a common variance."""
    return _t(a.mean - b.mean, pooled_sd(a, b) * math.sqrt(1 / a.n + 1 / b.n), a.n + b.n - 2)


def welch(a: Sample, b: Sample) -> TTest:
    """Welch's t, which assumes no common variance; degrees of freedom after Satterthwaite."""
    va, vb = a.sd**2 / a.n, b.sd**2 / b.n
    if va + vb == 0:
        return TTest(None, a.n + b.n - 2, None)
    # By shares of the sum, so that no square of a very small variance comes down to zero.
    share = va / (va + vb)
    return _t(a.mean - b.mean, math.sqrt(va + vb), 1 / (share**2 / (a.n - 1) + (1 - share) ** 2 / (b.n - 1)))


def _t(difference: float, error: float, df: float) -> TTest:
    from scipy import stats

    if error == 0:
        return TTest(None, df, None)
    t = difference / error
    return TTest(t, df, float(2 * stats.t.sf(abs(t), df)))


def t_interval(sample: Sample, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean."""
    from scipy import stats

    half = float(stats.t.ppf((1 + confidence) / 2, sample.n - 1)) * sample.sd / math.sqrt(sample.n)
    return sample.mean - half, sample.mean + half


def paired_permutation(differences: Sequence[float], *, exchanges: int = EXCHANGES, seed: int = 0) -> float | None:
    """Two-sided p value of the mean of paired differences, one a prompt, under exchange of the two sides.

    Exact up to 13 prompts, Monte Carlo with `exchanges` draws beyond. None without a difference; 1.0 where all are
    zero. Raises ValueError for a difference that is not finite.
    """
    values = sorted(float(d) for d in differences)  # sorted: equal for any order of the rows
    if not all(map(math.isfinite, values)):
        raise ValueError("a difference is not finite; leave unscored prompts out")
    if not values:
        return None
    if len(values) == 1 or not any(values):
        return 1.0  # one exchange gives the same size with the other sign: both are as far out
    return _permutation(tuple(values), exchanges, seed)


@lru_cache(maxsize=256)
def _permutation(sorted_values: tuple[float, ...], exchanges: int, seed: int) -> float:
    """Kept, because a report states each difference in several places, and its p value every time."""
    import numpy as np
    from scipy import stats

    values = np.asarray(sorted_values)
    found = stats.permutation_test(
        (values, np.zeros_like(values)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=exchanges,
        batch=2000,
        rng=np.random.default_rng(seed),
    )
    return min(1.0, float(found.pvalue))


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """p values corrected for their number (Holm 1979); those that are None stay so and are not counted.

    Raises ValueError for one outside [0, 1].
    """
    from statsmodels.stats.multitest import multipletests

    known = {name: p for name, p in p_values.items() if p is not None}
    if any(not 0 <= p <= 1 for p in known.values()):
        raise ValueError(f"not p values: {sorted(known.values())}")
    corrected = multipletests(list(known.values()), method="holm")[1] if known else []
    by_name = {name: float(p) for name, p in zip(known, corrected, strict=True)}
    return {name: by_name.get(name) for name in p_values}
