"""Where runs of Dagster are started: on this machine by Dagster's own launcher, or as jobs of a Ray cluster.

`dagster.yaml` names this one class; the engine that the environment names decides at the moment of launching, so that the
setting alone switches, for the UI, the daemon and the command line alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from foundry_pipeline.scale.engine import engine

if TYPE_CHECKING:
    from dagster._core.storage.dagster_run import DagsterRun

ENGINE_TAG = "foundry/engine"  # of a run: where it was launched, whatever the environment says later


def on_ray(run: DagsterRun) -> bool:
    """Whether a run was launched on a cluster: no process id of it means anything on this machine."""
    return run.tags.get(ENGINE_TAG) == "ray"


class FoundryRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, or the one for Ray."""

    def _ray(self) -> RunLauncher:
        # Not kept: a webserver lives for weeks, and the cluster may be another one by then.
        from foundry_pipeline.defs.ray_launcher import FoundryRayLauncher

        launcher = FoundryRayLauncher.of_environment()
        launcher.register_instance(self._instance)
        return launcher

    def launch_run(self, context: LaunchRunContext) -> None:
        if engine() == "local":
            super().launch_run(context)
            return
        launcher = self._ray()
        self._instance.add_run_tags(context.dagster_run.run_id, {ENGINE_TAG: "ray"})
        launcher.launch_run(context)

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or not on_ray(run):
            return bool(super().terminate(run_id))
        return self._ray().terminate(run_id)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """What the cluster says of a run; of a run on this machine nothing is known (`foundry doctor` looks after those)."""
        if not on_ray(run) or engine() == "local":
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return self._ray().check_run_worker_health(run)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        if not on_ray(run) or engine() == "local":
            return None
        return self._ray().get_run_worker_debug_info(run, include_container_logs)
