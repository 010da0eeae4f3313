"""The formulas behind figures reported elsewhere, each a pure function of the parts that were told.

>>> round(weighted_mean({"easy": 9.67, "medium": 8.93, "hard": 8.57}, {"easy": 3, "medium": 14, "hard": 19}), 2)
8.8
>>> round(meta_learning_score(0.1, 0.3, 0.2, 0.05), 2)
0.35
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def weighted_mean(parts: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Mean over all prompts from the means of their groups. Raises ValueError unless both name the same groups."""
    if set(parts) != set(sizes) or not sizes:
        raise ValueError(f"parts are of {sorted(parts)}, sizes of {sorted(sizes)}")
    return math.fsum(parts[name] * sizes[name] for name in sizes) / sum(sizes.values())


def meta_learning_score(
    early_improvement: float, late_improvement: float, early_forgetting: float, late_forgetting: float
) -> float:
    """Acceleration of learning: (late − early improvement rate) + (early − late forgetting rate), in [−2, 2].

    Positive where a model gets better at getting better. It says nothing of how good the model is.
    """
    return (late_improvement - early_improvement) + (early_forgetting - late_forgetting)


def change_rate(before: float, after: float, over: float) -> float:
    """Gain a unit of time; ROI in percent points a minute where both are percentages and `over` is minutes."""
    if over <= 0:
        raise ValueError(f"a gain over {over} has no rate")
    return (after - before) / over


def population_variance(values: Sequence[float]) -> float:
    """Mean squared distance from the mean, with n and not n − 1 below. Raises ValueError for no value."""
    if not values:
        raise ValueError("no values")
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values) / len(values)
