"""Judge a run's recorded answers from the command line, again if asked to."""

from __future__ import annotations

from typing import Any

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.evaluation_stages import eval_stage
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.scores import record_scores
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.errors import FoundryError, MissingArtifact
from foundry_pipeline.evaluation.comparison import read_summary
from foundry_pipeline.launch import run_script
from foundry_pipeline.settings import Settings


def known_run(d: Declarations, run: str) -> None:
    """Raise FoundryError unless the run is declared."""
    if run not in d.runs:
        raise FoundryError(
            f"no run `{run}` is declared",
            where="assets/runs/",
            mend=f"name one of: {', '.join(sorted(d.runs))}",
        )


def summary(done: Materialized) -> dict[str, Any]:
    """The evaluation's `summary.json`, with the run's name and with what may be said of its differences."""
    return {**read_summary(done.artifact.payload), "run": done.stage.name.removesuffix("_eval")}


def evaluate(settings: Settings, run: str, *, fresh: bool = False) -> tuple[Materialized, int, bool | None]:
    """Scores of a run: the evaluation, how many ledger rows it added, and (with `fresh`) whether they repeat the last.

    Raises MissingArtifact with the command that builds what is missing, and when nothing was ever built.
    """
    d, chain = load_chain(settings)
    known_run(d, run)
    name = f"{run}_eval"
    before = _latest(chain, name)
    if fresh:
        attempt = 1 + sum(r.name == name for r in chain.store.records())
        chain = Chain({**chain.stages, name: eval_stage(d, d.runs[run], attempt=attempt)}, chain.store, settings)
    try:
        done = chain.materialize(name, run_script=run_script, log=print)
    except MissingArtifact as error:
        raise MissingArtifact(
            error.what, where=error.where, mend=f"dagster asset materialize --select '*{name}'"
        ) from None
    added = record_scores(chain, d, done)
    repeated = None if before is None or not fresh else before == done.record.content_hash
    return done, added, repeated


def _latest(chain: Chain, name: str) -> str | None:
    found = chain.resolve(name)
    return found.record.content_hash if found.record else None
