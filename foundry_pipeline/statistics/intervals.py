"""Means with honest intervals, for scores that come in strata and clusters.

    >>> interval([8.0, 6.0, 7.0, 5.0], strata=["a", "a", "b", "b"], clusters=["p", "q", "r", "s"], seed=1).mean
    6.5

A *cluster* is a prompt: repeated answers to it are not independent and enter as their mean. A *stratum* is a category
of the suite: the categories are fixed by design and too few to be drawn at random themselves, so prompts are drawn
anew within each (Miller, arXiv 2411.00640). Nothing here leans on a normal approximation, which is too narrow at the
few dozen prompts of a suite (arXiv 2503.01747): intervals are bias-corrected and accelerated bootstraps (Efron 1987).
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over `n` clusters and its bounds; bounds are None where one cluster or none leaves them unknowable."""

    mean: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def cluster_means(
    values: Sequence[float], strata: Sequence[str], clusters: Sequence[str]
) -> dict[str, dict[str, float]]:
    """stratum → cluster → mean of its values, both sorted by name; equal for any order of the rows.

    Raises ValueError for rows of unequal length, a value that is not finite, or a cluster that lies in two strata.
    """
    if not len(values) == len(strata) == len(clusters):
        raise ValueError(f"{len(values)} values, {len(strata)} strata and {len(clusters)} clusters do not pair up")
    rows: dict[tuple[str, str], list[float]] = defaultdict(list)
    home: dict[str, str] = {}
    for value, stratum, cluster in zip(values, strata, clusters, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"the value of {cluster!r} is {value}; leave unscored rows out")
        if home.setdefault(cluster, stratum) != stratum:
            raise ValueError(f"{cluster!r} lies in two strata: {home[cluster]!r} and {stratum!r}")
        rows[stratum, cluster].append(float(value))
    means: dict[str, dict[str, float]] = defaultdict(dict)
    for (stratum, cluster), found in sorted(rows.items()):
        means[stratum][cluster] = math.fsum(found) / len(found)
    return dict(means)


def _samples(means: dict[str, dict[str, float]]) -> list[np.ndarray]:
    """One array a stratum. A stratum with a single cluster cannot be drawn from: such strata are pooled.

    If the pool is itself a single cluster it joins the smallest other stratum, so that its spread is not taken for zero.
    """
    full = [np.array(sorted(m.values())) for m in means.values() if len(m) > 1]
    single = [value for m in means.values() if len(m) == 1 for value in m.values()]
    if len(single) == 1 and full:
        smallest = min(range(len(full)), key=lambda i: (len(full[i]), i))
        full[smallest] = np.sort(np.append(full[smallest], single))
    elif single:
        full.append(np.array(sorted(single)))
    return full


def interval(
    values: Sequence[float],
    strata: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean over clusters, every cluster with equal weight, and its stratified BCa bootstrap interval.

    `values`, `strata` and `clusters` are aligned, one entry a scored row; without strata there is one, without clusters
    every row is its own. Where BCa is undefined (the mean lies outside every resample) the percentile bounds are given.
    Equal rows in any order give equal bounds for equal seeds.
    """
    strata = ["all"] * len(values) if strata is None else strata
    clusters = [f"{i:09d}" for i in range(len(values))] if clusters is None else clusters
    means = cluster_means(values, strata, clusters)
    flat = [value for m in means.values() for value in m.values()]
    if not flat:
        return Interval(None, None, None, 0)
    mean = math.fsum(flat) / len(flat)
    if len(flat) == 1:
        return Interval(mean, None, None, 1)
    samples = _samples(means)
    if all(np.ptp(sample) == 0 for sample in samples):
        return Interval(mean, mean, mean, len(flat))
    low, high = _bootstrap(samples, resamples, confidence, seed)
    return Interval(mean, low, high, len(flat))


def _bootstrap(samples: list[np.ndarray], resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    from scipy import stats

    weights = np.array([len(sample) for sample in samples]) / sum(len(sample) for sample in samples)

    def stratified_mean(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return sum(w * np.mean(d, axis=axis) for w, d in zip(weights, drawn, strict=True))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where BCa is undefined; that case is handled below
        result = stats.bootstrap(
            samples,
            stratified_mean,
            n_resamples=resamples,
            confidence_level=confidence,
            vectorized=True,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = result.confidence_interval
    if not (math.isfinite(low) and math.isfinite(high)):
        tail = (1 - confidence) / 2
        low, high = np.quantile(result.bootstrap_distribution, [tail, 1 - tail])
    return float(low), float(high)


def paired_interval(
    values: Sequence[float],
    against: Sequence[float],
    strata: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean of `values − against`, row by row, with its interval: what the prompts share cancels out."""
    if len(values) != len(against):
        raise ValueError(f"{len(values)} values cannot be paired with {len(against)}")
    differences = [a - b for a, b in zip(values, against, strict=True)]
    return interval(differences, strata, clusters, resamples=resamples, confidence=confidence, seed=seed)


def auc(better: Sequence[float], worse: Sequence[float]) -> float:
    """Probability that a draw of `better` is above a draw of `worse`, ties counting one half.

    This is the area under the ROC curve, Mann and Whitney's U over the number of pairs. Raises ValueError for an empty
    or non-finite sample, of which no such probability exists.
    """
    from scipy import stats

    if not len(better) or not len(worse):
        raise ValueError("an AUC needs at least one value on either side")
    a, b = np.asarray(better, dtype=float), np.asarray(worse, dtype=float)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("an AUC needs finite values")
    u = stats.mannwhitneyu(a, b, method="asymptotic").statistic
    return float(u / (len(a) * len(b)))
