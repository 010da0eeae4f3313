"""Ten jobs that do nothing, slowly: one asset with a partition for each, whose script sleeps. For `benchmarks.ray_path`.

As a script, `python -m benchmarks.ray_jobs SPEC.json` sleeps for `spec["seconds"]`, like any other through `script_main`.
"""

# Dagster reads the annotations of a compute function as objects: no `from __future__ import annotations` here.

import os
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg

from foundry_pipeline.defs.runner import pipes_runner
from foundry_pipeline.launch import ScriptSession, atomic_folder, script_main
from foundry_pipeline.scale.asking import Asked

JOBS, CPUS = 10, 0.1
KEYS = [str(number) for number in range(JOBS)]


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(KEYS))
def sleeper(context: dg.AssetExecutionContext, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult:
    work = Path(os.environ["FOUNDRY_STORE"]) / "work" / f"sleeper-{context.partition_key}"
    work.mkdir(parents=True, exist_ok=True)
    runner = pipes_runner(context, pipes, lambda spec: Asked("generation", CPUS, 0.0, 0))
    runner("benchmarks.ray_jobs", {"seconds": float(os.environ["FOUNDRY_SLEEP"]), "threads": 1}, work)
    return dg.MaterializeResult()


defs = dg.Definitions(
    assets=[sleeper], resources={"pipes": dg.PipesSubprocessClient()}, executor=dg.in_process_executor
)


def run(spec: dict[str, Any], session: ScriptSession) -> dict[str, Any]:
    """Sleep, and say when."""
    begun = time.time()
    with atomic_folder(Path(spec["work"]) / "result") as folder:
        time.sleep(spec["seconds"])
        (folder / "slept.txt").write_text(f"{spec['seconds']}\n")
    return {"begun": begun, "ended": time.time()}


if __name__ == "__main__":
    sys.exit(script_main(run))
