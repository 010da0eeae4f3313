"""What finished evaluations say of their judges: agreement on the same answers, and the audit of a judge's own mark.

    agreement_of(chain, "madison_r2")
    → {"run": …, "judges": ["claude:claude-sonnet-5-5", "rubric-local"], "answers": 144,
       "overall": {"raters": 2, "answers": 144, "alpha": 0.41, "kappa": 0.38, …}, "voice": {…}, …}

    audit_of(chain, ["madison_qwen3_v1", "madison_r2"])
    → {"claude:claude-sonnet-5-5": {"runs": […], "answers": 288, "with": {"mean": -0.31, …}, "without": {…}, …}}

Nothing is judged for it. Scores of different judges are never put into one column by it either: agreement is of the
ranks and distances within each, and each judge has an audit of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.evaluation.judge_checks import agreement, mark_audit
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.lineage.artifact import Record
from foundry_pipeline.lineage.named import records_named
from foundry_pipeline.lineage.store import Store

Answer = tuple[str, str, str]
Marks = dict[Answer, dict[str, float | None]]


@dataclass(frozen=True)
class Judging:
    """One evaluation: who judged, in which version, and its table of scores."""

    judge: str
    version: str
    record: Record
    scores: pl.DataFrame

    @property
    def marks(self) -> Marks:
        columns = ("overall", *COMPONENTS)
        return {
            (row["mode"], row["prompt_id"], row["answer"]): {column: row[column] for column in columns}
            for row in self.scores.iter_rows(named=True)
        }


def evaluations(store: Store, run: str) -> list[Record]:
    """Every evaluation of a run that the store has an index line of, oldest first."""
    return [record for record in records_named(store, f"{run}_eval") if record.kind == "eval"]


def judgings(store: Store, run: str) -> list[Judging]:
    """Those evaluations, opened and verified. Raises DamagedArtifact where one was changed; what is gone is left out."""
    out = []
    # Of equal contents the last: an evaluation that came to the same once more is the same evaluation.
    for record in {record.content_hash: record for record in evaluations(store, run)}.values():
        if not store.has(record.content_hash):
            continue
        artifact = store.open(record.content_hash, name=record.name)
        judge = json.loads(artifact.file("summary.json").read_text(encoding="utf-8"))["judge"]
        scores = pl.read_parquet(artifact.file("scores.parquet"))
        out.append(Judging(judge["name"], judge.get("version", ""), record, scores))
    return out


def latest_by_judge(found: Sequence[Judging]) -> dict[str, Judging]:
    """Judge → its latest evaluation, of whatever version; judges by name."""
    latest = {judging.judge: judging for judging in found}
    return dict(sorted(latest.items()))


def agreement_of(chain: Chain, run: str) -> dict[str, Any]:
    """Agreement of every two judges and more, over the overall and each component, on answers that all of them read.

    Of one judge's several versions or attempts the latest evaluation counts. Raises FoundryError where fewer than two
    judges have judged the same answers.
    """
    latest = latest_by_judge(judgings(chain.store, run))
    told = agreed([judging.marks for judging in latest.values()])
    if len(latest) < 2 or not told:
        known = ", ".join(latest) or "nobody"
        raise FoundryError(
            f"two judges have to have judged the same answers of {run}; so far {known} has"
            + ("" if len(latest) < 2 else ", of different answers"),
            where=chain.store.place,
            mend=f"name another `judge` in the profile, then: foundry eval {run}",
        )
    return {"run": run, "judges": list(latest), **told}


def agreed(marks: Sequence[Marks]) -> dict[str, Any]:
    """{"answers", "overall", each component}: agreement on the answers that all of these judged; empty where there is none."""
    shared = sorted(set.intersection(*map(set, marks))) if marks else []
    if not shared:
        return {}
    told = {
        column: agreement([[of[answer][column] for answer in shared] for of in marks])
        for column in ("overall", *COMPONENTS)
    }
    return {"answers": len(shared), **told}


def audit_of(chain: Chain, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Judge → raw minus weighted overall by presence of a critical failure, over all answers of the runs that are evaluated
    for the present declarations. Answers to one question, whichever run and mode gave them, count as one cluster.

    A judge that gives no mark of its own has nothing to audit. Raises FoundryError where no run has an evaluation by one.
    """
    frames: dict[str, list[pl.DataFrame]] = {}
    named: dict[str, list[str]] = {}
    memo: dict[str, Any] = {}
    for run in runs:
        record = chain.resolve(f"{run}_eval", memo).record
        if record is None:
            continue
        payload = chain.store.open(record.content_hash, name=f"{run}_eval").payload
        judge = json.loads((payload / "summary.json").read_text(encoding="utf-8"))["judge"]["name"]
        scores = pl.read_parquet(payload / "scores.parquet")
        if scores["raw_overall"].null_count() < scores.height:
            frames.setdefault(judge, []).append(scores)
            named.setdefault(judge, []).append(run)
    if not frames:
        raise FoundryError(
            "no evaluation holds a judge's own overall mark (rubric-local gives none)",
            where=chain.store.place,
            mend="name a `judge` that is a model in the profile, then: foundry eval RUN",
        )
    out = {}
    for judge, parts in sorted(frames.items()):
        scores = pl.concat(parts)
        audit = mark_audit(scores)
        out[judge] = {"runs": named[judge], "answers": scores["raw_overall"].count(), **audit}
    return out
