"""Scripts under Dagster: the same command as without it, started through Pipes so that it reports live."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from foundry_pipeline.launch import (
    ScriptRunner,
    check_ended,
    script_environment,
    write_spec,
)
from foundry_pipeline.scale.asking import Asked
from foundry_pipeline.scale.cluster import RayCluster
from foundry_pipeline.scale.engine import engine, ray_address
from foundry_pipeline.warm import start_script


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
        with dg.open_pipes_session(
            context.op_execution_context, pipes.context_injector, pipes.message_reader
        ) as session:
            environment = {**script_environment(), **session.get_bootstrap_env_vars()}
            script = start_script(module, [str(path)], spec, environment)
            try:
                code = script.wait()
            except BaseException:
                script.send_signal(signal.SIGINT)
                script.wait(timeout=pipes.termination_timeout_seconds)
                raise
        check_ended(module, work, code)

    return run
