"""Checks of every run's GGUF files: export parity, measured once for exactly these files.

A failed one blocks the answers in the same run; the verdict that it leaves beside the files blocks answers that are
launched alone, with or without this Dagster instance.
"""

# Dagster reads the annotations of a compute function as objects: no `from __future__ import annotations` here.

from collections.abc import Iterator
from functools import partial

import dagster as dg

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.parity_stages import measured, parity_asset, parity_verdict
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.partitions import Placed, check_spec
from foundry_pipeline.defs.runner import pipes_runner
from foundry_pipeline.export.parity_verdict import DELTA_CHECK, checks
from foundry_pipeline.reports.serving import DELTA_HEAD, as_markdown, delta_rows
from foundry_pipeline.scale.asking import asked_for


def parity_checks(d: Declarations, chain: Chain, placed: Placed) -> dg.AssetChecksDefinition:
    """The checks of one run's GGUF files."""
    key = dg.AssetKey(placed.name)
    specs = [
        check_spec(name, placed, blocking=severity == "error", description=description)
        for name, severity, description in checks(d.profile.parity)
    ]

    @dg.multi_asset_check(name=f"{placed.name.removesuffix('_gguf')}_export_parity", specs=specs)
    def export_parity(
        context: dg.AssetCheckExecutionContext, pipes: dg.PipesSubprocessClient
    ) -> Iterator[dg.AssetCheckResult]:
        run = placed.asked(context).name.removesuffix("_gguf")
        runner = pipes_runner(context, pipes, partial(asked_for, d, chain.stages[parity_asset(run)]))
        verdict = parity_verdict(d, chain, run, run_script=runner, log=context.log.info)
        found = measured(chain.store.open(verdict["parity_hash"], name=parity_asset(run)))
        for result in verdict["results"]:
            metadata: dict[str, dg.MetadataValue] = {
                "observed": dg.MetadataValue.text(result["observed"]),
                "bound": dg.MetadataValue.text(result["bound"]),
                "files": dg.MetadataValue.text(verdict["gguf_hash"]),
                "measurement": dg.MetadataValue.text(verdict["parity_hash"]),
            }
            mode = result["name"].removeprefix("agreement_")
            for name, value in (found["distance"].get(mode) or {}).items():
                if value is not None:
                    metadata[name] = dg.MetadataValue.float(float(value))
            if result["name"] == DELTA_CHECK:
                metadata["delta"] = dg.MetadataValue.md(as_markdown(DELTA_HEAD, delta_rows(found)))
            yield dg.AssetCheckResult(
                check_name=result["name"],
                asset_key=key,
                passed=result["passed"],
                severity=dg.AssetCheckSeverity.ERROR if result["severity"] == "error" else dg.AssetCheckSeverity.WARN,
                metadata=metadata,
            )

    return export_parity
