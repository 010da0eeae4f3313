"""A collapsed training in the Dagster UI: a failed check on the adapter, with the figures that led to it.

The step fails as well, so that nothing downstream is built; the check stays in the asset's history after it.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from foundry_pipeline.chain.collapses import collapse_of, run_of
from foundry_pipeline.chain.engine import Chain, Materialized
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.partitions import Placed, check_spec
from foundry_pipeline.reports.inline import line_plot
from foundry_pipeline.reports.markdown import cell

HELD = "guards_held"


def guard_specs(asset: Placed) -> list[dg.AssetCheckSpec]:
    """The check of an adapter; nothing for other assets."""
    if asset.first.kind != "adapter":
        return []
    return [
        check_spec(
            HELD,
            asset,
            description="No guard stopped the training: see `guards` of the run. A collapsed run has no adapter and no score.",
        )
    ]


def held(stage: Stage, done: Materialized) -> list[dg.AssetCheckResult]:
    """The check of an adapter that is there."""
    if stage.kind != "adapter":
        return []
    facts = done.record.facts
    warnings, back = int(facts.get("guard_warnings", 0)), int(facts.get("roll_backs", 0))
    return [
        dg.AssetCheckResult(
            check_name=HELD,
            asset_key=dg.AssetKey(stage.asset),
            passed=True,
            description=f"{warnings} warnings, {back} roll-backs" if warnings or back else None,
            metadata={
                "warnings": warnings,
                "roll-backs": back,
                "what happened": dg.MetadataValue.json(facts.get("guards", {}).get("events", [])),
                "sampled answers": dg.MetadataValue.md(sampled(facts.get("guards", {}).get("samples", []))),
            },
        )
    ]


def collapsed(d: Declarations, chain: Chain, stage: Stage) -> dg.AssetCheckResult | None:
    """The check of an adapter whose training collapsed, its report written; None for a stage that waits for one."""
    from foundry_pipeline.reports.collapse_report import write_collapse_report

    run = run_of(stage)
    record = collapse_of(chain, run) if stage.kind == "adapter" else None
    if record is None:
        return None
    return dg.AssetCheckResult(
        check_name=HELD,
        asset_key=dg.AssetKey(stage.asset),
        passed=False,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"collapsed at step {record['step']} of {record['steps']}: {record['told']}",
        metadata={
            "guard": record["rule"],
            "step": int(record["step"]),
            "attempt": int(record["attempt"]),
            "learning rate": float(record["effective"]["learning_rate"]),
            "LoRA rank": int(record["effective"]["lora_rank"]),
            **curves(record["history"]),
            "sampled answers": dg.MetadataValue.md(sampled(record["samples"])),
            "what happened": dg.MetadataValue.json(record["events"]),
            "report": dg.MetadataValue.path(str(write_collapse_report(chain, d, run))),
        },
    )


CURVES = {
    "loss": "training loss",
    "kl": "KL divergence from the base, nats per token",
    "chosen_logp": "log-probability of the chosen answers, nats per token",
}


def curves(history: list[dict[str, Any]]) -> dict[str, dg.MetadataValue]:
    """A plot of each figure that the guards go by, over the steps at which it was measured."""
    out: dict[str, dg.MetadataValue] = {}
    for name, title in CURVES.items():
        points = [(row["step"], row[name]) for row in history if isinstance(row.get(name), int | float)]
        if points:
            plot = line_plot(points, title=title, x="step", y=name)
            out[f"{title.split(',')[0]} curve"] = dg.MetadataValue.md(f"![{title}]({plot})")
    return out


def sampled(samples: list[dict[str, str]]) -> str:
    """Sampled answers as Markdown, whatever they hold as text."""
    if not samples:
        return "none were taken"
    lines = ["| asked | answered |", "|---|---|"]
    return "\n".join([*lines, *(f"| {cell(s['prompt'], 240)} | {cell(s['answer'], 240)} |" for s in samples)])
