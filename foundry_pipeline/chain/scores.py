"""From a finished evaluation to its rows in the ledger, and the question which data a name stands for."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.modes import CHECKPOINT, adapter_of
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import HubModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import append_scores, read_scores
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.lineage.trace import Trace, forward_scores, trace_record


def _interval(summary: dict[str, Any] | None, key: str) -> float | None:
    return None if summary is None else summary.get(key)


def score_rows(chain: Chain, d: Declarations, done: Materialized) -> list[dict[str, Any]]:
    """Ledger rows of one evaluation, a row for each serving mode."""
    run = d.runs[done.stage.name.removesuffix("_eval")]
    summary = json.loads((done.artifact.payload / "summary.json").read_text(encoding="utf-8"))
    # By the chain, not by the names in the record: an equal evaluation may have been built under a twin's name.
    adapter = chain.resolve(f"{run.run}_adapter").record
    dataset = chain.resolve(run.dataset).record
    model = d.profile.models[d.base_model(run.base)]
    rows = []
    for mode, m in summary["modes"].items():
        paired = summary["paired"].get(mode)
        rows.append(
            {
                "score_id": digest({"input": done.record.input_hash, "run": run.run, "mode": mode}),
                "recorded_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "run": run.run,
                "mode": mode,
                "profile": d.profile.profile,
                "judge": summary["judge"]["name"],
                "judge_version": summary["judge"]["version"],
                "suite_hash": summary["suite_hash"],
                "dataset": run.dataset,
                "dataset_hash": dataset.content_hash if dataset else "",
                "adapter_hash": adapter_hash(chain, adapter, mode),
                "artifact_hash": done.artifact.content_hash,
                "input_hash": done.record.input_hash,
                "base_model": model.title,
                "base_revision": model.revision if isinstance(model, HubModel) else f"{model.package} {model.version}",
                "raw_overall": _interval(m.get("raw_overall"), "mean"),
                "raw_low": _interval(m.get("raw_overall"), "low"),
                "raw_high": _interval(m.get("raw_overall"), "high"),
                "overall": m["overall"]["mean"],
                "overall_low": m["overall"]["low"],
                "overall_high": m["overall"]["high"],
                "paired_difference": _interval(paired, "difference"),
                "paired_low": _interval(paired, "low"),
                "paired_high": _interval(paired, "high"),
                "categories": {c: v["mean"] for c, v in m["categories"].items()},
                "difficulties": {c: v["mean"] for c, v in m["difficulties"].items()},
                "critical_failures": m["critical_failures"],
                "parse_failures": m["unscored"],
                "nats_per_token": m.get("nats_per_token"),
                "cost_usd": float(done.artifact.manifest.get("cost_usd", 0.0)),
                "seconds": float(m.get("seconds") or 0.0),
                "code_version": done.record.code_version,
            }
        )
    return rows


def adapter_hash(chain: Chain, adapter: Record | None, mode: str) -> str:
    """Hash of the adapter behind a row; that of a kept checkpoint is its own, not the finished adapter's."""
    if adapter is None:
        return ""
    return (
        adapter_of(chain.store.open(adapter.content_hash), mode)[1]
        if mode.startswith(CHECKPOINT)
        else adapter.content_hash
    )


def record_scores(chain: Chain, d: Declarations, done: Materialized) -> int:
    """Append an evaluation's rows to the ledger, once; how many were new."""
    return append_scores(chain.settings.ledger_url, score_rows(chain, d, done))


def find_record(chain: Chain, target: str) -> Record:
    """The build that an asset name (as declared now), a score id (8 characters or more) or an input hash stands for.

    An asset that was built, but not for the declarations as they are now, gives its last build: the trace then marks
    it as not current.
    """
    if target in chain.stages:
        found = chain.resolve(target)
        if found.record is not None:
            return found.record
        built = [r for r in chain.store.records() if r.name == target]
        if built:
            return max(built, key=lambda r: str(r.facts.get("built_at", "")))
        return chain.require(target).record
    scores = read_scores(chain.settings.ledger_url) if len(target) >= 8 else []
    for score in scores:
        if score["score_id"].startswith(target):
            record = chain.store.record(score["input_hash"])
            if record is not None:
                return record
    record = chain.store.record(target)
    if record is None:
        raise FoundryError(
            f"`{target}` is neither an asset, nor a score, nor an input hash of this store",
            where=str(chain.store.root),
            mend="foundry scores  # lists scores; `dagster asset list` lists assets",
        )
    return record


def current_contents(chain: Chain) -> dict[str, str]:
    """Asset name → content hash, for everything that is built for the present declarations."""
    memo: dict[str, Any] = {}
    resolved = {name: chain.resolve(name, memo) for name in chain.stages}
    return {name: r.record.content_hash for name, r in resolved.items() if r.record is not None}


def trace(chain: Chain, target: str) -> Trace:
    """Trace back from an asset, a score or an input hash to its documents."""
    scores = read_scores(chain.settings.ledger_url)
    return trace_record(chain.store, find_record(chain, target), scores=scores, current=current_contents(chain))


def trace_forward(chain: Chain, source: str) -> list[dict[str, Any]]:
    """Every recorded score that a source document touched."""
    return forward_scores(chain.store, source, read_scores(chain.settings.ledger_url))
