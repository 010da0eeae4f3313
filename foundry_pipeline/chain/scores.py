"""From a finished evaluation to its rows in the ledger, and the question which data a name stands for."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from typing import Any

from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.modes import CHECKPOINT, adapter_of
from foundry_pipeline.chain.staleness import Reason, look_up, why_stale
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import HubModel
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.lineage.ledger import append_scores, find_score, read_scores
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.lineage.trace import Trace, forward_scores, trace_record
from foundry_pipeline.lineage.walk import Walker
from foundry_pipeline.plain import plain

_HASH = re.compile(r"[0-9a-f]{64}")


def _interval(summary: dict[str, Any] | None, key: str) -> float | None:
    return None if summary is None else summary.get(key)


def score_rows(chain: Chain, d: Declarations, done: Materialized) -> list[dict[str, Any]]:
    """Ledger rows of one evaluation, a row for each serving mode."""
    run = d.runs[done.stage.name.removesuffix("_eval")]
    name, _ = d.run_and_partition(run.run)
    summary = json.loads(done.artifact.file("summary.json").read_text(encoding="utf-8"))
    # By the chain, not by the names in the record: an equal evaluation may have been built under a twin's name.
    adapter = chain.resolve(f"{run.run}_adapter").record
    dataset = chain.resolve(run.dataset).record
    model = d.profile.models[d.base_model(run.base)]
    responses = next((way for name, way in done.record.inputs.items() if name.endswith("_responses")), None)
    answered = chain.store.record(responses["input"]) if responses else None
    sampling_seed = (answered.declaration.get("sampling") or {}).get("seed") if answered else None
    rows = []
    for mode, m in summary["modes"].items():
        paired = summary["paired"].get(mode)
        rows.append(
            {
                "score_id": digest({"input": done.record.input_hash, "run": run.run, "mode": mode}),
                "recorded_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
                "run": name,
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
                "prompts": summary["prompts"],
                "components": {c: v["mean"] for c, v in m["components"].items()},
                "intervals": {group: m[group] for group in ("categories", "difficulties", "components")},
                "responses_hash": responses["content"] if responses else "",
                "training_seed": None if mode == "base" or adapter is None else adapter.declaration.get("seed"),
                "sampling_seed": sampling_seed,
                "judge_repeat": done.record.declaration.get("attempt", 0),
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

    An asset that was built, but not for the declarations as they are now, gives its last build: the trace then says
    what has changed since.
    """
    if target in chain.stages:
        found = look_up(chain, target, {})
        if found.record is not None:
            return found.record
        built = [r for r in chain.store.records() if r.name == target]
        if built:
            return max(built, key=lambda r: str(r.facts.get("built_at", "")))
        return chain.require(target).record
    score = find_score(chain.settings.ledger_url, target) if len(target) >= 8 else None
    if score is not None:
        record = Walker(chain.store).of_score(score)
        if record is None:
            raise FoundryError(
                f"the evaluation behind score {target} ({score['run']}, {score['mode']}) is no longer in the store",
                where=str(chain.store.folder(score["artifact_hash"])),
                mend=f"dagster asset materialize --select '*{score['run']}_eval'",
            )
        return record
    record = chain.store.record(target) if _HASH.fullmatch(target) else None
    if record is None:
        raise FoundryError(
            f"`{plain(target, 80)}` is neither an asset, nor a score, nor an input hash of this store",
            where=chain.store.place,
            mend="foundry scores  # lists scores; `dagster asset list` lists assets",
        )
    return record


def current_contents(chain: Chain) -> dict[str, str]:
    """Asset name → content hash, for everything that is built for the present declarations."""
    memo: dict[str, Any] = {}
    resolved = {name: look_up(chain, name, memo) for name in chain.stages}
    return {name: r.record.content_hash for name, r in resolved.items() if r.record is not None}


class _Chains:
    """The chain of each profile that scores were measured under: a score is stale by its own profile's declarations."""

    def __init__(self, chain: Chain) -> None:
        self._made: dict[str, Chain | None] = {chain.settings.profile: chain}
        self._memo: dict[str, dict[str, Any]] = {}
        self._why: dict[tuple[str, str, str], list[Reason]] = {}
        self._walker = Walker(chain.store)
        self._settings = chain.settings

    def of(self, profile: str) -> Chain | None:
        """None where the profile cannot be used any more."""
        if profile not in self._made:
            try:
                self._made[profile] = load_chain(replace(self._settings, profile=profile))[1]
            except FoundryError:
                self._made[profile] = None
        return self._made[profile]

    def why(self, record: Record, profile: str) -> list[Reason]:
        key = (profile, record.input_hash, record.content_hash)
        if key not in self._why:
            chain = self.of(profile)
            self._why[key] = (
                [Reason(f"profile {profile}", "undeclared")]
                if chain is None
                else why_stale(chain, record, memo=self._memo.setdefault(profile, {}), walker=self._walker)
            )
        return self._why[key]


def trace(chain: Chain, target: str, *, verify: bool = False) -> Trace:
    """Trace back from an asset, a score or an input hash to its documents, and say what has changed since.

    What was scored under another profile than the present one is compared with that profile's declarations.
    """
    record = find_record(chain, target)
    scores = read_scores(chain.settings.ledger_url)
    profiles = {s["profile"] for s in scores if s["input_hash"] == record.input_hash}
    mine = chain.settings.profile
    profile = mine if mine in profiles or not profiles else min(profiles)
    chains = _Chains(chain)
    present = chains.of(profile)
    found = trace_record(
        chain.store, record, scores=scores, current=current_contents(present) if present else {}, verify=verify
    )
    found.stale = [reason.to_json() for reason in chains.why(record, profile)]
    for score in found.scores:
        score["stale"] = [reason.told() for reason in chains.why(record, score["profile"])]
    return found


def trace_forward(chain: Chain, source: str) -> list[dict[str, Any]]:
    """Every recorded score that a source document touched, and why it is stale where it is."""
    chains, walker = _Chains(chain), Walker(chain.store)
    rows = forward_scores(chain.store, source, read_scores(chain.settings.ledger_url))
    for row in rows:
        record = walker.of_score(row)
        row["stale"] = [reason.told() for reason in chains.why(record, row["profile"])] if record else []
    return rows
