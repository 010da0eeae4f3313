"""Checks of every run's judges: do they agree, and does one dock its own mark for failures that its components hold already?

Both warn and block nothing: a score is shown with its judge whatever they say.
"""

# Dagster reads the annotations of a compute function as objects: no `from __future__ import annotations` here.

from collections.abc import Iterator
from typing import Any

import dagster as dg

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.judges_stage import LEAST_ALPHA, MOST_DOCKED, judges_summary
from foundry_pipeline.defs.partitions import Placed, check_spec

AGREE, UNDOCKED = "judges_agree", "own_mark_undocked"


def judge_checks(chain: Chain, placed: Placed) -> dg.AssetChecksDefinition:
    """The checks of one run's judges."""
    key = dg.AssetKey(placed.name)
    specs = [
        check_spec(
            AGREE,
            placed,
            description=f"Krippendorff's alpha between judges of the same answers: {LEAST_ALPHA} or more.",
        ),
        check_spec(
            UNDOCKED,
            placed,
            description=f"A judge's own overall mark falls short of its components by {MOST_DOCKED} points at most where a "
            "critical failure is named.",
        ),
    ]

    @dg.multi_asset_check(name=f"{placed.name}_checks", specs=specs)
    def judged(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        found = judges_summary(chain.require(placed.asked(context).name))
        for name, (passed, told, metadata) in outcomes(found).items():
            yield dg.AssetCheckResult(
                check_name=name,
                asset_key=key,
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN,
                description=told or None,
                metadata={"judges": ", ".join(found["judges"]), **metadata},
            )

    return judged


def outcomes(found: dict[str, Any]) -> dict[str, tuple[bool, str, dict[str, Any]]]:
    """Check → (passed, what has to be said, metadata). What was not measured has not passed."""
    alpha = found["agreement"]
    docked = {judge: gap for judge, gap in found["docked"].items() if gap is not None}
    worst = min(docked.values(), default=None)
    return {
        AGREE: (
            alpha is not None and alpha >= LEAST_ALPHA,
            found["told"] or ("alpha is not defined on these ratings" if alpha is None else ""),
            {} if alpha is None else {"observed": float(alpha), "bound": LEAST_ALPHA},
        ),
        UNDOCKED: (
            worst is None or worst >= -MOST_DOCKED,
            ""
            if docked
            else f"{', '.join(found['judges'])}: no mark of its own beside a failure, so nothing is docked",
            {} if worst is None else {"observed": float(worst), "bound": -MOST_DOCKED},
        ),
    }
