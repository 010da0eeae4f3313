"""Checks: the expectations of every dataset version, export parity, and the planted controls of every evaluation.

A failed error-level expectation blocks what lies downstream in the same run; the verdict it leaves beside the dataset
blocks training that is launched alone, with or without this Dagster instance.
"""

# Dagster reads the annotations of a compute function as objects: no `from __future__ import annotations` here.

import json
from collections.abc import Iterator

import dagster as dg

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.chain.verdicts import dataset_verdict
from foundry_pipeline.datasets.expectations import Expectation, build_suite
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.judge_checks import judge_checks
from foundry_pipeline.defs.parity_checks import parity_checks
from foundry_pipeline.defs.partitions import Placed, check_spec, placed
from foundry_pipeline.evaluation.controls import PAIRS
from foundry_pipeline.lineage.files import writes_told


def chain_checks(d: Declarations, chain: Chain) -> list[dg.AssetChecksDefinition]:
    """Checks of every dataset, every set of GGUF files, every evaluation and its judges."""
    out = []
    for asset in placed(chain):
        if asset.first.kind == "dataset":
            out.append(_dataset_checks(d, chain, asset.first))
        elif asset.first.kind == "gguf":
            out.append(parity_checks(d, chain, asset))
        elif asset.first.kind == "eval":
            out.append(_control_checks(chain, asset))
        elif asset.first.kind == "judges":
            out.append(judge_checks(chain, asset))
    return out


def _dataset_checks(d: Declarations, chain: Chain, stage: Stage) -> dg.AssetChecksDefinition:
    key = dg.AssetKey(stage.name)
    specs = [
        dg.AssetCheckSpec(e.name, asset=key, blocking=e.severity == "error", description=_in_words(e))
        for e in build_suite(d.datasets[stage.name], profile=d.profile, declared=d.datasets)
    ]

    @dg.multi_asset_check(name=f"{stage.name}_expectations", specs=specs)
    def expectations(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        # Heavier than the definitions may be: the page and the card are drawn by what only a run of checks needs.
        from foundry_pipeline.chain.dataset_exports import export
        from foundry_pipeline.reports.checks_page import write_checks_page

        with writes_told(chain.settings.store):
            verdict = dataset_verdict(d, chain, stage.name)
            page = write_checks_page(chain, d, stage.name)
            export(d, chain, stage.name)  # anew, because its card tells how the checks came out
        for result in verdict["results"]:
            yield dg.AssetCheckResult(
                check_name=result["name"],
                asset_key=key,
                passed=result["passed"],
                severity=dg.AssetCheckSeverity.ERROR if result["severity"] == "error" else dg.AssetCheckSeverity.WARN,
                metadata={
                    "observed": str(result["observed"]),
                    "bound": str(result["bound"]),
                    "rows failed": int(result["rows_failed"] or 0),
                    "sample": dg.MetadataValue.json(result["sample"] or []),
                    "dataset hash": verdict["dataset_hash"],
                    "page": dg.MetadataValue.path(str(page)),
                },
            )

    return expectations


def _in_words(e: Expectation) -> str:
    bounds = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in e.bound.items())
    about = f" of `{e.column}`" if e.column else ""
    return f"Great Expectations `{e.type}`{about}" + (f": {bounds}" if bounds else "")


def _control_checks(chain: Chain, placed: Placed) -> dg.AssetChecksDefinition:
    key = dg.AssetKey(placed.name)
    specs = [
        check_spec(
            f"control_{better}_over_{worse}_{component}",
            placed,
            description=f"The judge must rate the planted `{better}` above `{worse}` on {component}.",
        )
        for better, worse, component in PAIRS
    ]

    @dg.multi_asset_check(name=f"{placed.name}_controls", specs=specs)
    def controls(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        done = chain.require(placed.asked(context).name)
        summary = json.loads(done.artifact.file("summary.json").read_text(encoding="utf-8"))
        found = summary["controls"]
        for better, worse, component in PAIRS:
            result = next(
                c
                for name, c in found.items()
                if c["component"] == component and name.startswith(f"{better}_over_{worse}")
            )
            shown = {k: float(result[k]) for k in ("auc", "mean_difference", "low", "high") if result[k] is not None}
            # A character without planted controls is told apart from a judge that gets them wrong.
            planted = result["n"] > 0
            yield dg.AssetCheckResult(
                check_name=f"control_{better}_over_{worse}_{component}",
                asset_key=key,
                passed=result["passed"],
                severity=dg.AssetCheckSeverity.ERROR if planted else dg.AssetCheckSeverity.WARN,
                description=None if planted else "no planted controls are declared for this character",
                metadata={**shown, "pairs": int(result["n"])},
            )

    return controls
