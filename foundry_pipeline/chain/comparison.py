"""`foundry compare`: find the score tables that two names stand for, and refuse what cannot stand in one column.

find_side(d, chain, "madison_r2:base")   → Side("madison_r2:base", …, 36 rows)
find_side(d, chain, "madison_r2")        → its adapter on the base, where that is served
find_side(d, chain, "3fa9c1d2")          → the row of the ledger whose score begins so
compare_sides(d, one, other)             → what `foundry compare --json` prints
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.evaluate import known_run
from foundry_pipeline.chain.scores import find_record
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.comparison import compare_scores
from foundry_pipeline.lineage.ledger import read_scores
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.statistics.verdict import ALPHA

_SCORE_DIGITS = 8  # hexadecimal digits from which a name is looked up as a score


@dataclass(frozen=True)
class Side:
    """One side of a comparison: which rows, by which judge, of which suite, from which artifact."""

    name: str
    run: str
    mode: str
    rows: pl.DataFrame
    judge: str
    judge_version: str
    suite_hash: str
    artifact_hash: str
    current: bool

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "rows"} | {"answers": self.rows.height}


def find_side(d: Declarations, chain: Chain, target: str) -> Side:
    """The score table of `run`, `run:mode` or a score id.

    The evaluation as declared now is taken; where that is not built, the run's last one, marked as not current. Raises
    FoundryError for a run, mode or score that there is none of, MissingArtifact for a run that was never judged.
    """
    run, _, mode = target.partition(":")
    if run not in d.runs and not mode and len(run) >= _SCORE_DIGITS:
        row = next((r for r in read_scores(chain.settings.ledger_url) if r["score_id"].startswith(run)), None)
        if row is not None:
            record = chain.store.record(row["input_hash"])
            if record is None:
                raise FoundryError(
                    f"the evaluation behind the score {run} is not in this store",
                    where=chain.store.place,
                    mend="foundry scores  # choose a score whose run is built here",
                )
            return _side(d, chain, f"{row['run']}:{row['mode']}", row["run"], row["mode"], record)
    known_run(d, run)
    return _side(d, chain, target, run, mode, find_record(chain, f"{run}_eval"))


def find_modes(d: Declarations, chain: Chain, target: str) -> list[Side]:
    """Every serving mode of a run that was judged, or the one that `run:mode` names. Raises as `find_side` does."""
    first = find_side(d, chain, target)
    if ":" in target or target not in d.runs:
        return [first]
    record = find_record(chain, f"{target}_eval")
    artifact = chain.store.open(record.content_hash, name=f"{target}_eval")
    modes = json.loads(artifact.file("summary.json").read_text(encoding="utf-8"))["modes"]
    return [_side(d, chain, f"{target}:{mode}", target, mode, record) for mode in modes]


def _side(d: Declarations, chain: Chain, target: str, run: str, mode: str, record: Record) -> Side:
    artifact = chain.store.open(record.content_hash, name=f"{run}_eval")
    summary = json.loads(artifact.file("summary.json").read_text(encoding="utf-8"))
    modes = list(summary["modes"])
    mode = mode or next((m for m in ("adapter", *modes) if m in modes and m != "base"), "base")
    if mode not in modes:
        raise FoundryError(
            f"{run} was not judged in the mode `{mode}`",
            where=f"{run}_eval {record.content_hash[:12]}",
            mend=f"name one of: {', '.join(f'{run}:{m}' for m in modes)}",
        )
    scores = pl.read_parquet(artifact.file("scores.parquet"))
    name = f"{run}_eval"
    now = chain.resolve(name).record if name in chain.stages else None
    return Side(
        name=target if ":" in target else f"{run}:{mode}",
        run=run,
        mode=mode,
        rows=scores.filter(pl.col("mode") == mode),
        judge=summary["judge"]["name"],
        judge_version=summary["judge"]["version"],
        suite_hash=summary["suite_hash"],
        artifact_hash=record.content_hash,
        current=now is not None and now.content_hash == record.content_hash,
    )


def compare_sides(d: Declarations, a: Side, b: Side, *, alpha: float = ALPHA) -> dict[str, Any]:
    """The comparison of two sides, with what each of them is.

    Raises FoundryError where judge, its version or the suite differ, or a guarded category is missing.
    """
    require_comparable(a, b)
    evaluation = d.evaluations[d.runs[a.run].evaluation] if a.run in d.runs else None
    guarded = d.characters[evaluation.character].suite.guarded_categories if evaluation and a.current else ()
    options = {"resamples": evaluation.bootstrap_resamples, "confidence": evaluation.confidence} if evaluation else {}
    found = compare_scores(a.rows, b.rows, guarded=guarded, alpha=alpha, **options)  # type: ignore[arg-type]
    same = (a.artifact_hash, a.mode) == (b.artifact_hash, b.mode)
    return {"a": a.as_dict(), "b": b.as_dict(), "same_answers": same or _same_answers(a.rows, b.rows), **found}


def require_comparable(a: Side, b: Side, held: Sequence[str] = ("judge", "judge version", "suite")) -> None:
    """Raise FoundryError, naming the first, where the two sides differ in one of these."""
    told = {
        "judge": (a.judge, b.judge),
        "judge version": (a.judge_version, b.judge_version),
        "suite": (a.suite_hash[:12], b.suite_hash[:12]),
    }
    for what in held:
        one, other = told[what]
        if one != other:
            raise FoundryError(
                f"{a.name} and {b.name} differ in {what} ({one} and {other}): they do not stand in one column",
                where=f"evaluations {a.artifact_hash[:12]} and {b.artifact_hash[:12]}",
                mend=_mend(a, b),
            )


def _mend(a: Side, b: Side) -> str:
    stale = [side for side in (a, b) if not side.current]
    runs = dict.fromkeys(side.run for side in stale or (a, b))
    return " && ".join(f"dagster asset materialize --select '*{run}_eval'" for run in runs)


def _same_answers(a: pl.DataFrame, b: pl.DataFrame) -> bool:
    """Whether both sides are the very same answers (one base judged in two runs): then equality says nothing."""
    keys = ["prompt_id", "answer"]
    return a.select(keys).sort(keys).equals(b.select(keys).sort(keys))
