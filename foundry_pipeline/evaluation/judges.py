"""What a judge is and what it says about one answer.

    judgment = judge.judge(prompt, answer)
    judgment.components   → {"voice": 7.9, "rhetorical": 8.4, "historical": 6.1, "position": 7.0, "integrity": 10.0}
    judgment.overall      → their weighted mean, never the judge's own overall mark
    judgment.unscored     → None, or why there is no score

A judge's own overall mark is kept as `raw_overall` and shown beside the weighted mean, because judges dock it for
critical failures beyond what their components say. A reply that cannot be read leaves the answer *unscored*: it is
counted, never taken for a zero, which would move every mean below it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from foundry_pipeline.declarations.sources import EvaluationPrompt
from foundry_pipeline.evaluation.scoring import COMPONENTS, weighted_overall


@dataclass(frozen=True)
class Judgment:
    """One judge's verdict on one answer: five components in [0, 10], or the reason why there are none.

    Raises ValueError for a component outside [0, 10], for a score with parts missing, and for an unscored answer that
    carries scores.
    """

    voice: float | None
    rhetorical: float | None
    historical: float | None
    position: float | None
    integrity: float | None
    raw_overall: float | None = None
    critical_failures: tuple[str, ...] = ()
    justification: str = ""
    unscored: str | None = None

    def __post_init__(self) -> None:
        values = [getattr(self, name) for name in COMPONENTS]
        if self.unscored is not None:
            if any(value is not None for value in [*values, self.raw_overall]):
                raise ValueError("an unscored answer carries no scores")
            return
        for name, value in zip(COMPONENTS, values, strict=True):
            if value is None or not math.isfinite(value) or not 0 <= value <= 10:
                raise ValueError(f"{name} is {value!r}; a scored answer has five components in [0, 10]")

    @property
    def components(self) -> dict[str, float]:
        """Component → score; empty where the answer is unscored."""
        return {} if self.unscored is not None else {name: getattr(self, name) for name in COMPONENTS}

    @property
    def overall(self) -> float | None:
        return None if self.unscored is not None else weighted_overall(self.components)


def unscored(reason: str) -> Judgment:
    """The judgment of an answer that no score could be read for."""
    return Judgment(None, None, None, None, None, unscored=reason, justification=f"unscored: {reason}")


@runtime_checkable
class Judge(Protocol):
    """Anything that reads one answer to one prompt.

    `name` is shown beside every score; `version` changes whenever the same answer could be judged differently. Scores
    of different (name, version) never stand in one column.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def judge(self, prompt: EvaluationPrompt, answer: str) -> Judgment: ...
