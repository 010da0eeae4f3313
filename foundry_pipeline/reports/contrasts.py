"""Where a difference lies: the components of the overall score, compared question by question like the score itself."""

from __future__ import annotations

import math
from collections import defaultdict

from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.reports.data import BASE_MODE, ReportData
from foundry_pipeline.statistics.intervals import Interval, paired_interval


def component_differences(data: ReportData, mode: str) -> dict[str, Interval]:
    """Component → mean of `mode` minus the untuned base over questions that both have a score for, with its interval.

    Repeats of a question are averaged first, questions are drawn anew within their categories, as for the overall
    difference in the summary. Empty where nothing can be compared.
    """
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    category = {row["prompt_id"]: row["category"] for row in data.scores}
    for row in data.scores:
        for name in COMPONENTS:
            if row[name] is not None:
                values[name, row["mode"]][row["prompt_id"]].append(row[name])
    found = {}
    for name in COMPONENTS:
        here, there = values[name, mode], values[name, BASE_MODE]
        both = sorted(here.keys() & there.keys())
        if both:
            found[name] = paired_interval(
                [math.fsum(here[p]) / len(here[p]) for p in both],
                [math.fsum(there[p]) / len(there[p]) for p in both],
                [category[p] for p in both],
                both,
                confidence=data.confidence,
            )
    return found
