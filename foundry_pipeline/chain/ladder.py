"""Every declared run beside what was reported of it: `foundry ladder`.

    ladder(d, chain)["rows"][2]
    → {"run": "madison_orpo_v4", "mode": "q4_k_m", "state": "measured", "measured": {"overall": 5.9, …},
       "reported": {"row": "orpo-v4-ollama", "raw": 1.74, …}, "notes": […], "mend": ""}

One row for each reported score, set beside the serving mode that its file names, and one for each run that nothing was
reported of. What was measured is read from the evaluations of the present declarations; a row that is not built says
so, with the command. A collapsed training is told as such and has no score, and a run that needs one waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from foundry_pipeline.chain.collapses import collapse_of, collapsed_stage, run_of
from foundry_pipeline.chain.engine import Chain, Resolved
from foundry_pipeline.chain.modes import serving_modes
from foundry_pipeline.chain.scores import adapter_hash
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.declarations.assets import PypiModel, Run
from foundry_pipeline.evaluation.comparison import read_summary
from foundry_pipeline.evaluation.scoring import BASE_MODE
from foundry_pipeline.lineage.store import Artifact

# what a run declares beside its training
_NOT_TRAINED = {"run", "description", "reported", "seeds", "resources", "modes", "checkpoints", "evaluation"}


def selection(runs: Iterable[str]) -> str:
    """What Dagster has to be asked for: the evaluations of these runs with everything they need."""
    return " or ".join(f'+key:"{run}_eval"' for run in runs)


def ladder(d: Declarations, chain: Chain) -> dict[str, Any]:
    """All rows, in the order of the record, and what they have in common; plain data."""
    memo: dict[str, Resolved] = {}
    told = [(row, run) for run in d.declared_runs.values() for row in _reported_of(d, run)]
    order = {row.row: i for c in d.characters.values() for i, row in enumerate(c.reported_scores)}
    told.sort(key=lambda pair: (pair[1].character, order[pair[0].row]))
    rows = [_row(d, chain, run, row.measured_as, row.model_dump(mode="json"), memo) for row, run in told]
    rows += [
        _row(d, chain, run, _first_tuned(d, run), None, memo) for run in d.declared_runs.values() if not run.reported
    ]
    _note_twins(d, rows)
    judges = {r["measured"]["judge"] for r in rows if r["measured"]}
    return {
        "profile": d.profile.profile,
        "judge": d.profile.judge if not judges else ", ".join(sorted(judges)),
        "reported_judges": _reported_judges(d),
        "runs": len(d.declared_runs),
        "complete": all(r["state"] in ("measured", "collapsed", "waits") for r in rows),
        "build_seconds": _build_seconds(chain, d.declared_runs, memo),
        "rows": rows,
    }


def _reported_of(d: Declarations, run: Run) -> list[Any]:
    return [row for row in d.characters[run.character].reported_scores if row.row in run.reported]


def _first_tuned(d: Declarations, run: Run) -> str:
    modes = serving_modes(run, d.evaluations[run.evaluation])
    return next((mode for mode in modes if mode != "base"), "base")


def _row(
    d: Declarations, chain: Chain, run: Run, mode: str, reported: dict[str, Any] | None, memo: dict[str, Resolved]
) -> dict[str, Any]:
    model = d.profile.models[d.base_model(run.base)]
    out: dict[str, Any] = {
        "run": run.run,
        "mode": mode,
        "dataset": run.dataset,
        "method": run.method,
        "declared_learning_rate": run.learning_rate,
        "base": run.base,
        "base_title": model.title,
        "stand_in": isinstance(model, PypiModel),
        "state": "not built",
        "measured": None,
        "reported": reported,
        "notes": [],
        "mend": "",
    }
    found = chain.resolve(f"{run.run}_eval", memo).record
    if found is None:
        collapsed = collapse_of(chain, run.run)
        behind = [other for other in _behind(chain, f"{run.run}_eval", memo) if other != run.run]
        if collapsed is not None:
            out |= {"state": "collapsed", "mend": f"foundry retry {run.run}"}
            out["notes"].append(f"collapsed at step {collapsed['step']} ({collapsed['rule']})")
        elif behind:
            out |= {"state": "waits", "mend": f"foundry retry {behind[0]}"}
            out["notes"].append(f"waits for {behind[0]}, which collapsed")
        else:
            out["mend"] = f"dagster asset materialize --select '*{run.run}_eval'"
        return out
    done = chain.store.open(found.content_hash, name=f"{run.run}_eval")
    return out | {"state": "measured", "measured": _measured(d, chain, run, mode, done, memo)}


def _behind(chain: Chain, name: str, memo: dict[str, Resolved]) -> list[str]:
    """Collapsed runs whose adapters an asset needs, directly or not."""
    seen, waiting, found = set(), [name], []
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        resolved = chain.resolve(one, memo)
        if collapsed_stage(chain, resolved) is not None:
            found.append(run_of(resolved.stage))
        waiting += resolved.stage.inputs
    return sorted(found)


def _measured(
    d: Declarations, chain: Chain, run: Run, mode: str, done: Artifact, memo: dict[str, Resolved]
) -> dict[str, Any]:
    summary = read_summary(done.payload)
    judged, paired = summary["modes"][mode], summary["paired"].get(mode) or {}
    adapter = chain.resolve(f"{run.run}_adapter", memo).record
    dataset = chain.resolve(run.dataset, memo).record
    facts = adapter.facts if adapter else {}
    return {
        "judge": summary["judge"]["name"],
        "judge_version": summary["judge"]["version"],
        "suite_hash": summary.get("suite_hash", ""),
        "prompts": summary["prompts"],
        "overall": judged["overall"]["mean"],
        "low": judged["overall"]["low"],
        "high": judged["overall"]["high"],
        "against_base": paired.get("difference"),
        "against_base_low": paired.get("low"),
        "against_base_high": paired.get("high"),
        "against_base_verdict": paired.get("verdict"),
        "base": _base_score(summary),
        "categories": judged["categories"],
        "difficulties": judged["difficulties"],
        "components": judged["components"],
        "critical_failures": judged["critical_failures"],
        "unscored": judged["unscored"],
        "nats_per_token": judged.get("nats_per_token"),
        "steps": facts.get("steps"),
        "at_step": (facts.get("checkpoints") or {}).get(mode),
        "learning_rate": (facts.get("effective") or {}).get("learning_rate"),
        "lora_rank": (facts.get("effective") or {}).get("lora_rank"),
        "pairs": facts.get("pairs"),
        "training_seconds": facts.get("build_seconds"),
        "evaluation_seconds": _seconds(chain, f"{run.run}_eval", memo),
        "cost_usd": _paid(chain, f"{run.run}_eval", memo),
        "adapter_hash": adapter_hash(chain, adapter, mode),
        "dataset_hash": dataset.content_hash if dataset else None,
        "evaluation_hash": done.content_hash,
    }


def _base_score(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The untuned base as the same evaluation judged it."""
    return summary["modes"][BASE_MODE]["overall"] if BASE_MODE in summary["modes"] else None


def _seconds(chain: Chain, name: str, memo: dict[str, Resolved]) -> float | None:
    found = chain.resolve(name, memo).record
    return found.facts.get("build_seconds") if found else None


def _paid(chain: Chain, name: str, memo: dict[str, Resolved]) -> float:
    """US dollars that the stages below an asset state as paid, each counted once; 0 where nobody was asked for money."""
    seen: dict[str, float] = {}
    waiting = [name]
    while waiting:
        found = chain.resolve(waiting.pop(), memo)
        if found.record is None or found.record.input_hash in seen:
            continue
        seen[found.record.input_hash] = float(found.record.facts.get("cost_usd") or 0.0)
        waiting += found.stage.inputs
    return sum(seen.values())


def _note_twins(d: Declarations, rows: list[dict[str, Any]]) -> None:
    """Say of rows of different runs that stand on one adapter that they do, and why."""
    for row in rows:
        if row["measured"] is None:
            continue
        others = [
            o["run"]
            for o in rows
            if o["measured"]
            and o["run"] != row["run"]
            and o["measured"]["adapter_hash"] == row["measured"]["adapter_hash"]
        ]
        for other in dict.fromkeys(others):
            why = _why_one(d, d.runs[row["run"]], d.runs[other])
            row["notes"].append(f"same adapter {row['measured']['adapter_hash'][:8]} as {other}: {why}")


def _why_one(d: Declarations, run: Run, other: Run) -> str:
    """Why two runs came to one adapter: what their trainings differ in, if anything."""
    mine, its = (r.model_dump(mode="json", exclude=_NOT_TRAINED) for r in (run, other))
    differ = {name for name in mine if mine[name] != its[name]}
    if differ == {"base"} and d.base_model(run.base) == d.base_model(other.base):
        stand_in = d.profile.models[d.base_model(run.base)].title
        return f"only their bases differ ({run.base} and {other.base}), and {stand_in} stands for both here"
    if not differ:
        return "their trainings are one and the same"
    return f"they differ in {', '.join(sorted(differ))}, and came to the same weights"


def _reported_judges(d: Declarations) -> list[str]:
    told = [c.get("judge") for f in d.characters.values() for document in f.reported for c in document.configurations]
    return list(dict.fromkeys(str(judge) for judge in told if judge))


def _build_seconds(chain: Chain, runs: Iterable[str], memo: dict[str, Resolved]) -> float:
    """Seconds that all stages below these runs' evaluations took to build, each counted once."""
    seconds: dict[str, float] = {}
    waiting = [f"{run}_eval" for run in runs]
    while waiting:
        found = chain.resolve(waiting.pop(), memo)
        if found.stage.name in seconds:
            continue
        seconds[found.stage.name] = found.record.facts.get("build_seconds", 0.0) if found.record else 0.0
        waiting += found.stage.inputs
    distinct = {r.record.input_hash: seconds[n] for n, r in memo.items() if r.record is not None and n in seconds}
    return sum(distinct.values())
