"""Where a difference lies: the components of the overall score, compared question by question like the score itself."""

from __future__ import annotations

import polars as pl

from foundry_pipeline.evaluation.comparison import family, score_rows
from foundry_pipeline.evaluation.scoring import COMPONENTS, SCORES_SCHEMA
from foundry_pipeline.reports.data import BASE_MODE, ReportData
from foundry_pipeline.statistics.verdict import Comparison, compare


def component_differences(data: ReportData, mode: str) -> dict[str, Comparison]:
    """Component → comparison of `mode` with the untuned base over the questions that both have a score for.

    Five questions asked at once: the p values behind the verdicts are corrected (Holm), as in `foundry compare`. Empty
    where nothing can be compared.
    """
    scores = pl.DataFrame(data.scores, schema=SCORES_SCHEMA, orient="row")
    here, there = (scores.filter(pl.col("mode") == name) for name in (mode, BASE_MODE))
    found = {
        name: compare(score_rows(here, name), score_rows(there, name), confidence=data.confidence)
        for name in COMPONENTS
    }
    return family({name: c for name, c in found.items() if c.difference.n})
