"""A SYNTHETIC ladder for the tests of its page: invented scores, nothing was measured. Texts of it are hostile on purpose."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from foundry_pipeline.declarations.common import CATEGORIES, DIFFICULTIES
from foundry_pipeline.evaluation.scoring import COMPONENTS
from foundry_pipeline.lineage.hashing import digest
from foundry_pipeline.reports.ladder_data import LadderData, Rung
from foundry_pipeline.statistics.verdict import Rows, compare

SCRIPT = "<script>document.title = 'owned'</script>"
ROWS = (
    ("madison_first", "adapter", 3.3, 2e-4, 44, 3.41),
    ("madison_second", "q4_k_m", 6.0, 2e-4, 240, 1.74),
    ("madison_second", "merged", 5.8, 2e-4, 240, 7.69),
    ("madison_twin", "adapter", 5.8, 8e-5, 240, 8.80),
    ("madison_third", "checkpoint-150", 3.6, 1.2e-4, 240, 6.83),
    ("madison_untold", "adapter", 6.4, 2e-4, 299, None),
)


def interval(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.4, "high": mean + 0.4, "n": 36}


def measured(run: str, mode: str, overall: float, rate: float, pairs: int) -> dict[str, Any]:
    draw = random.Random(run + mode)
    better = overall > 4
    one = {
        name: interval(min(9.5, overall + draw.uniform(-1, 1))) for name in (*CATEGORIES, *DIFFICULTIES, *COMPONENTS)
    }
    return {
        "judge": "rubric-local", "judge_version": "0123456789abcdef", "suite_hash": digest("suite"), "prompts": 36,
        "overall": overall, "low": overall - 0.4, "high": overall + 0.4, "against_base": overall - 3,
        "against_base_low": overall - 3.5, "against_base_high": overall - 2.5,
        "against_base_verdict": "better" if better else "no claim at n=36", "base": interval(3.0),
        "categories": {c: one[c] for c in CATEGORIES}, "difficulties": {c: one[c] for c in DIFFICULTIES},
        "components": {c: one[c] for c in COMPONENTS}, "critical_failures": 1, "unscored": 0, "nats_per_token": 4 - overall / 15,
        "steps": 78, "at_step": 14 if mode.startswith("checkpoint") else None, "learning_rate": rate, "lora_rank": 64,
        "pairs": pairs, "training_seconds": pairs * 1.1, "evaluation_seconds": 40.0, "cost_usd": 0.0,
        "adapter_hash": digest("shared" if run in ("madison_twin", "madison_second") else run),
        "dataset_hash": digest(str(pairs)), "evaluation_hash": digest(run + "eval"),
    }  # fmt: skip


def reported(run: str, mode: str, raw: float) -> dict[str, Any]:
    return {
        "row": f"{run}-{mode}", "run": run, "serving": mode if mode != "adapter" else "", "base": f"Large {SCRIPT}",
        "dataset": "v4", "pairs": "1,273", "raw": raw, "corrected": min(9.9, raw + 0.3), "critical_failures": 7,
        "categories": dict.fromkeys(CATEGORIES, raw), "difficulties": {"easy": raw}, "date": "2026-03-30",
    }  # fmt: skip


def rung(run: str, mode: str, overall: float | None, rate: float, pairs: int, raw: float | None) -> Rung:
    row = {
        "run": run, "mode": mode, "dataset": "madison_dataset_v4", "method": "orpo", "declared_learning_rate": rate / 10,
        "base": "large", "base_title": "Small (stand-in)", "stand_in": True, "state": "measured" if overall else "not built",
        "notes": [f"a note {SCRIPT}"] if run == "madison_twin" else [], "mend": "" if overall else f"dagster … '*{run}_eval'",
    }  # fmt: skip
    return Rung(
        run,
        mode,
        None if overall is None else measured(run, mode, overall, rate, pairs),
        None if raw is None else reported(run, mode, raw),
        row,
        None if overall is None else {"count": 2, "n": 36, "rate": 0.056, "low": 0.015, "high": 0.18},
        same=("madison_twin",) if run == "madison_second" else ("madison_second",) if run == "madison_twin" else (),
    )


def ladder_sample(*, unbuilt: bool = True) -> LadderData:
    """Six measured rows, of which two stand on one adapter, and one that is not built."""
    rungs = [rung(*row) for row in ROWS]
    if unbuilt:
        rungs.append(rung("madison_last", "adapter", None, 2e-4, 0, 8.51))
    top = Rows([8.0] * 8, ["a"] * 8, [str(i) for i in range(8)])
    for i, made in enumerate(rungs[:-1] if unbuilt else rungs):
        if made.run != "madison_untold":
            worse = Rows([5.0 + n / 10 for n in range(8)], ["a"] * 8, [str(n) for n in range(8)])
            rungs[i] = replace(made, against_highest=compare(worse, top if i else worse, resamples=200))
    return LadderData(
        profile="laptop",
        profile_description="Whole chain on two cores, offline.",
        judges=("rubric-local",),
        reported_judges=("Claude Sonnet 4.6",),
        reported_sources=(f"A record {SCRIPT}",),
        stand_ins=("Small (stand-in)",),
        confidence=0.95,
        rungs=rungs,
        build_seconds=4260.0,
        reported_costs=[
            {"item": "madison_first", "training_usd": 5, "evaluation_usd": 0.5, "data_usd": None, "total_usd": 6}
        ],
        reported_rates={"madison_first": 2e-5, "madison_twin": 8e-6},
        missing=("madison_last",) if unbuilt else (),
    )
