"""Scripts under Dagster: the same command as without it, started through Pipes so that it reports live."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from foundry_pipeline.launch import (
    PARENT_VARIABLE,
    ScriptRunner,
    check_ended,
    script_command,
    script_environment,
    write_spec,
)
from foundry_pipeline.scale.asking import Asked
from foundry_pipeline.scale.cluster import RayCluster
from foundry_pipeline.scale.engine import engine, ray_address


def pipes_runner(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    pipes: dg.PipesSubprocessClient,
    asks: Callable[[Mapping[str, Any]], Asked],
) -> ScriptRunner:
    """A `ScriptRunner` whose scripts log and report progress into the run that asks for them.

    They run on this machine, or on the cluster that FOUNDRY_ENGINE=ray names, where they hold what `asks` says of their
    spec. A script that failed with a message of its own raises that message; one that was killed says by which signal.
    """
    if engine() == "ray":
        cluster = RayCluster(ray_address())
        cluster.client  # noqa: B018 - without Ray, or without a cluster, this says so before anything is written
        from foundry_pipeline.defs.ray_runner import ray_runner

        return ray_runner(context, cluster, asks)

    def run(module: str, spec: Mapping[str, Any], work: Path) -> None:
        path = write_spec(spec, work)
        parent = {PARENT_VARIABLE: script_environment()[PARENT_VARIABLE]}
        code = 0
        try:
            pipes.run(context=context.op_execution_context, command=script_command(module, path), env=parent)
        except DagsterPipesExecutionError as error:
            # Pipes tells the exit code in its message only.
            told = re.search(r"code (-?\d+)", str(error))
            code = int(told.group(1)) if told else 1
        check_ended(module, work, code)

    return run
