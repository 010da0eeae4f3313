"""How an overall score came from a judge's reply in the record of the original project, rule by rule.

| phase | what was wrong                                         | the rule from then on                                  |
| ----- | ------------------------------------------------------ | ------------------------------------------------------ |
| 0     |                                                        | the judge's own mark; where it was missing, 0          |
| 1     | a missing mark became 0                                | where it is missing, the mean of the components there are |
| 2     | the judge docked its mark for critical failures again  | always the weighted mean of all five components        |
| 3     | broken JSON became 0                                   | its syntax is mended, then read strictly (`replies.py`) |
| 4     | long replies were cut off at 2,048 tokens              | what could not be read is asked for again, with more room |

    overall_under(0, components, None)   → 0.0
    overall_under(1, components, None)   → 8.7
    overall_under(2, components, None)   → 8.6

Phases 0 and 1 are kept for replaying old results and for nothing else: no new score is made by them. What phases 3 and 4
leave unread is unscored, here as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from foundry_pipeline.evaluation.scoring import COMPONENTS, weighted_overall

Phase = Literal[0, 1, 2]

FIRST_MAX_TOKENS = 2048
"""Of a judge's reply until phase 4."""
REJUDGED_MAX_TOKENS = 4096
"""Of a reply that is asked for again, since phase 4."""


def arithmetic_overall(components: Mapping[str, float]) -> float:
    """The unweighted mean of whatever components there are, in [0, 10].

    Raises ValueError where there is none, and for one that is unknown, not finite or out of range.
    """
    if not components or (unknown := sorted(components.keys() - set(COMPONENTS))):
        raise ValueError(f"no component of a score: {', '.join(unknown) if components else 'none at all'}")
    for name, value in components.items():
        if not math.isfinite(value) or not 0 <= value <= 10:
            raise ValueError(f"{name} is {value!r}, outside [0, 10]")
    return round(math.fsum(components.values()) / len(components), 9)


def overall_under(phase: Phase, components: Mapping[str, float], judge_overall: float | None) -> float:
    """The overall score that a phase's rule gives for a reply with these components and this mark of the judge's own.

    Raises ValueError where the rule gives none: from phase 2 on, for any component that is missing.
    """
    if phase >= 2:
        return weighted_overall(components)
    if judge_overall is not None:
        if not math.isfinite(judge_overall) or not 0 <= judge_overall <= 10:
            raise ValueError(f"the judge's mark is {judge_overall!r}, outside [0, 10]")
        return judge_overall
    return 0.0 if phase == 0 else arithmetic_overall(components)
