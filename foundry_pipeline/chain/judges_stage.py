"""`<run>_judges`: the judges of a run's answers, judged. How far they agree with each other and with themselves, and what
each takes from its own mark for a critical failure.

    agreement.parquet   of        judges                                   score    answers  alpha  kappa  mean_spread
                        judges    [claude:claude-sonnet-5-5, rubric-local]  overall  144      0.41   0.38   2.1
                        repeats   [claude:claude-sonnet-5-5]                overall  144      0.93   0.90   0.4
    audit.parquet       judge     mode  presence  mean  low  high  questions
    judges.json         {"judges": […], "agreement": 0.41, "told": "", "docked": {"claude:…": -0.27}}

Whatever the store holds of this run's evaluations is read, so that a second judge's evaluation makes the asset anew; by
one judge alone there is nothing to agree on, and `told` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import polars as pl

from foundry_pipeline.chain.engine import Materialized
from foundry_pipeline.chain.frames import payload_folder
from foundry_pipeline.chain.judge_views import Judging, agreed, evaluations, judgings, latest_by_judge
from foundry_pipeline.chain.stage import BuildContext, Built, Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import Run
from foundry_pipeline.evaluation.judge_checks import mark_audit, self_agreement
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.launch import read_json, write_json
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.store import Store

AGREEMENT: dict[str, Any] = {
    "of": pl.String,
    "judges": pl.List(pl.String),
    "score": pl.String,
    "raters": pl.Int64,
    "answers": pl.Int64,
    "alpha": pl.Float64,
    "kappa": pl.Float64,
    "mean_spread": pl.Float64,
}
AUDIT: dict[str, Any] = {
    "judge": pl.String,
    "mode": pl.String,
    "presence": pl.String,
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "questions": pl.Int64,
}
ALL_MODES = "all"
LEAST_ALPHA = 0.667
"""Below this no conclusion should rest on the ratings (Krippendorff 2004, *Reliability in Content Analysis*)."""
MOST_DOCKED = 0.1
"""Points by which a judge's own mark may fall short of its components where a failure is named; reported: 0.2 to 0.4."""


def judges_asset(run: str) -> str:
    return f"{run}_judges"


def judged_by(store: Store, run: str) -> dict[str, str]:
    """What the store holds of this run's evaluations, as a fingerprint."""
    held = sorted({record.content_hash for record in evaluations(store, run)})
    return {"evaluations": digest(held)}


def build_judges(ctx: BuildContext, *, run: str) -> Built:
    found = judgings(ctx.store, run)
    latest = latest_by_judge(found)
    rows = _between(latest) + _within(ctx.store, found)
    audits = [row for judge, judging in latest.items() for row in _audit(judge, judging.scores)]
    payload = payload_folder(ctx)
    pl.DataFrame(rows, AGREEMENT, orient="row").write_parquet(payload / "agreement.parquet")
    pl.DataFrame(audits, AUDIT, orient="row").write_parquet(payload / "audit.parquet")
    summary = {
        "judges": list(latest),
        "agreement": next((r["alpha"] for r in rows if r["of"] == "judges" and r["score"] == "overall"), None),
        "told": _told(run, latest, rows),
        "docked": {judge: mark_audit(j.scores).get("difference") for judge, j in latest.items()},
    }
    write_json(payload / "judges.json", summary)
    return Built(payload, {"judges": list(latest), "agreement_rows": len(rows), "told": summary["told"]})


def _between(latest: dict[str, Judging]) -> list[dict[str, Any]]:
    """All judges together, and of three or more every two."""
    groups = [list(latest)] if len(latest) > 1 else []
    names = list(latest)
    if len(names) > 2:
        groups += [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]]
    return [row for group in groups for row in _rows("judges", group, agreed([latest[j].marks for j in group]))]


def _within(store: Store, found: Sequence[Judging]) -> list[dict[str, Any]]:
    """A judge beside itself: its repeats within an evaluation, and evaluations of one version that came to other marks."""
    rows = []
    for judge, judging in latest_by_judge(found).items():
        artifact = store.open(judging.record.content_hash, name=judging.record.name)
        held = artifact.file("judgments.parquet") if "judgments.parquet" in artifact.sizes() else None
        if held is not None and (told := self_agreement(pl.read_parquet(held))):
            rows += [{"of": "repeats", "judges": [judge], "score": "overall", **_figures(told)}]
        again = [other for other in found if (other.judge, other.version) == (judge, judging.version)]
        if len(again) > 1:
            rows += _rows("judged again", [judge], agreed([other.marks for other in again]))
    return rows


def _rows(of: str, judges: Sequence[str], told: dict[str, Any]) -> list[dict[str, Any]]:
    if not told:
        return []
    return [
        {"of": of, "judges": list(judges), "score": score, **_figures(told[score])}
        for score in ("overall", *COMPONENTS)
    ]


def _figures(told: dict[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("raters", "answers", "alpha", "kappa", "mean_spread")}


def _audit(judge: str, scores: pl.DataFrame) -> list[dict[str, Any]]:
    """Raw minus weighted by presence of a critical failure, of all modes and of each; none of a judge without a mark."""
    parts = [
        (ALL_MODES, scores),
        *((str(mode[0]), part) for mode, part in scores.group_by("mode", maintain_order=True)),
    ]
    rows = []
    for mode, part in parts:
        audit = mark_audit(part)
        for presence in ("with", "without"):
            if audit:
                found = audit[presence]
                bounds = {name: found[name] for name in ("mean", "low", "high")}
                rows.append({"judge": judge, "mode": mode, "presence": presence, **bounds, "questions": found["n"]})
    return rows


def _told(run: str, latest: dict[str, Judging], rows: Sequence[dict[str, Any]]) -> str:
    """What is missing, and what would bring it; empty where two judges have read the same answers."""
    if len(latest) < 2:
        itself = "; how far it agrees with itself is in the table" if rows else "; it was asked once about each answer"
        return (
            f"only {', '.join(latest) or 'nobody'} has judged these answers, so there is no agreement between judges{itself}. "
            f"Name another `judge` in the profile, then: foundry eval {run}"
        )
    if not any(row["of"] == "judges" for row in rows):
        return f"{' and '.join(latest)} have judged different answers of this run"
    return ""


def judges_stage(d: Declarations, run: Run, store: Store) -> Stage:
    """The stage of one run. Its evaluation as declared is its input; those by other judges are found in the store."""
    return Stage(
        name=judges_asset(run.run),
        kind="judges",
        inputs=(f"{run.run}_eval",),
        declaration={},
        code=("foundry_pipeline.chain.judges_stage", "foundry_pipeline.evaluation.judge_checks"),
        build=partial(build_judges, run=run.run),
        external=partial(judged_by, store, run.run),
        character=run.character,
        shown={"judge": d.profile.judge},
    )


def judges_summary(done: Materialized) -> dict[str, Any]:
    """The content of `judges.json`."""
    found: dict[str, Any] = read_json(done.artifact.payload / "judges.json")
    return found
