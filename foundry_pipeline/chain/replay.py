"""A recorded score computed once more, from what was recorded: is it the same number?

    replay(settings, "f91762fc")                    the recorded judgments, added up again
    replay(settings, "f91762fc", rejudge=True)      the recorded answers, judged again
    replay(settings, "f91762fc", regenerate=True)   the recorded model, asked and judged again

Everything is taken from the build that the ledger names: its answers, its suite, its rubric's declarations, its passages,
its weights, by hash. What is declared now plays no part; the code that is installed now does the work, and where it is
another version than the recorded one the result says so. Nothing is read from a cache or written into one, and neither
store nor ledger is changed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.chain.recorded import Recorded, find_recorded
from foundry_pipeline.chain.replay_again import answers_again, judged_again
from foundry_pipeline.chain.replay_replies import read_again
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.scoring import (
    BASE_MODE,
    COMPONENTS,
    ModeFacts,
    paired_difference,
    summarize_mode,
    weighted_overall,
)
from foundry_pipeline.launch import ScriptRunner
from foundry_pipeline.lineage.opening import open_store
from foundry_pipeline.settings import Settings

# A sum in another order, or a database's last digit: no other number.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Figure:
    """One figure of a score: what the ledger holds and what came out now (both None where there is none)."""

    name: str
    recorded: float | None
    found: float | None

    @property
    def same(self) -> bool:
        if self.recorded is None or self.found is None:
            return self.recorded is None and self.found is None
        return math.isclose(self.recorded, self.found, rel_tol=0.0, abs_tol=TOLERANCE)


@dataclass
class Replay:
    """What came out. `figures[0]` is the overall score; `notes` say what was as it was and what was not."""

    score: dict[str, Any]
    how: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return all(figure.same for figure in self.figures)

    def to_json(self) -> dict[str, Any]:
        figures = [{**asdict(figure), "same": figure.same} for figure in self.figures]
        kept = ("score_id", "run", "mode", "judge", "judge_version", "profile", "recorded_at")
        about = {name: self.score[name] for name in kept}
        return {**about, "how": self.how, "same": self.same, "figures": figures, "notes": self.notes}


def replay(
    settings: Settings,
    score: str,
    *,
    run_script: ScriptRunner,
    rejudge: bool = False,
    regenerate: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> Replay:
    """Compute a score of the ledger once more.

    `score` is the beginning of its id. Raises FoundryError where it cannot be computed: no such score, its evaluation or
    what that needs no longer in the store, or damaged.
    """
    store = open_store(settings)
    recorded = find_recorded(settings, store, score)
    notes: list[str] = []
    frame = recorded.scores
    if not (regenerate or rejudge):
        frame, notes = read_again(recorded)
    else:
        with tempfile.TemporaryDirectory(prefix="foundry-replay-") as folder:
            work = Path(folder)
            if regenerate:
                frame = answers_again(settings, store, recorded, work, run_script, log, notes)
            frame = judged_again(settings, store, recorded, frame, work, run_script, notes, regenerated=regenerate)
    how = "regenerated" if regenerate else "rejudged" if rejudge else "recomputed"
    return Replay(recorded.row, how, _figures(recorded, _weighed(frame)), notes)


def _weighed(scores: pl.DataFrame) -> pl.DataFrame:
    """The table with every overall score made anew from its five components; what is unscored stays so."""
    rows = scores.select("overall", *COMPONENTS).iter_rows(named=True)
    try:
        overall = [
            None if row["overall"] is None else weighted_overall({name: row[name] for name in COMPONENTS})
            for row in rows
        ]
    except ValueError as error:
        raise FoundryError(
            f"a recorded judgment does not add up ({error})",
            where="scores.parquet of the evaluation",
            mend="foundry replay SCORE --rejudge  # judges the recorded answers anew",
        ) from error
    return scores.with_columns(overall=pl.Series(overall, dtype=pl.Float64))


def _figures(recorded: Recorded, scores: pl.DataFrame) -> list[Figure]:
    row, mode, bounds = recorded.row, recorded.mode, recorded.bounds
    mine = summarize_mode(scores.filter(pl.col("mode") == mode), ModeFacts(mode), bounds)
    out = [
        Figure("overall", row["overall"], mine["overall"]["mean"]),
        Figure("overall, low", row["overall_low"], mine["overall"]["low"]),
        Figure("overall, high", row["overall_high"], mine["overall"]["high"]),
        Figure("raw overall", row["raw_overall"], mine["raw_overall"]["mean"]),
    ]
    if mode != BASE_MODE and BASE_MODE in set(scores["mode"].to_list()):
        paired = paired_difference(scores, mode, BASE_MODE, bounds)
        out += [
            Figure("against base", row["paired_difference"], paired["difference"]),
            Figure("against base, low", row["paired_low"], paired["low"]),
            Figure("against base, high", row["paired_high"], paired["high"]),
        ]
    for column in ("categories", "difficulties", "components"):
        if row[column] is not None:  # rows from before layout 2 hold no components
            names = dict.fromkeys([*row[column], *mine[column]])
            out += [Figure(n, row[column].get(n), (mine[column].get(n) or {}).get("mean")) for n in names]
    return [
        *out,
        Figure("critical failures", row["critical_failures"], mine["critical_failures"]),
        Figure("unscored", row["parse_failures"], mine["unscored"]),
    ]
