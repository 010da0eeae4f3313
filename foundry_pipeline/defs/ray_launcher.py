"""Runs of Dagster as jobs of a Ray cluster, through `dagster-ray`: what is added to its launcher, and why.

- A run asks for memory and for no processor. Its scripts ask for theirs; a run that held a share of one would keep a
  script that needs the whole node from ever starting. (A job that asks for nothing at all is put on the head node.)
- The instance is not sent along: the node finds it by its own environment, so that no password stands in a command line
  that everybody sees who may look at the cluster.
- The node looks first whether it is fit for the work (`scale/node.py`).
"""

from __future__ import annotations

import shlex
import sys

import dagster as dg
from dagster._cli.api import ExecuteRunArgs
from dagster._core.events import EngineEventData
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, ResumeRunContext, WorkerStatus
from dagster_ray.core.run_launcher import RayRunLauncher, get_job_submission_id_from_run_id
from ray.job_submission import JobStatus

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.scale.asking import asked_by_run
from foundry_pipeline.scale.cluster import RayCluster, job_environment
from foundry_pipeline.scale.engine import ray_address
from foundry_pipeline.settings import load_settings


class FoundryRayLauncher(RayRunLauncher):
    """A `RayRunLauncher` for this project's runs. Raises FoundryError where no cluster answers, or none could hold a run."""

    def __init__(self, cluster: RayCluster) -> None:
        super().__init__(address=cluster.address)
        self._cluster = cluster
        self.client = cluster.client

    @classmethod
    def of_environment(cls) -> FoundryRayLauncher:
        return cls(RayCluster(ray_address()))

    @property
    def supports_resume_run(self) -> bool:
        """No: a run that was lost is launched again, and finds what is built by its inputs."""
        return False

    def launch_run(self, context: LaunchRunContext) -> None:
        run, settings = context.dagster_run, load_settings()
        asked = asked_by_run(load_chain(settings)[0])
        self._cluster.check(asked)
        # A node takes a folder that is absent for one that it does not share; the very first run finds none.
        settings.store.mkdir(parents=True, exist_ok=True)
        origin = dg._check.not_none(run.job_code_origin)
        arguments = ExecuteRunArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=None, set_exit_code_on_failure=True
        ).get_command_args()
        # Without the interpreter and `-m dagster`, which the node adds after it has looked at itself.
        command = [sys.executable, "-m", "foundry_pipeline.scale.node", "run", *arguments[-3:]]
        job = get_job_submission_id_from_run_id(run.run_id)
        self._instance.report_engine_event(
            f"sending this run to {self._cluster.address} as the Ray job {job}",
            run,
            EngineEventData({}),
            cls=type(self),
        )
        try:
            self.client.submit_job(
                submission_id=job,
                entrypoint=f"exec {shlex.join(command)}",
                runtime_env={"env_vars": {**job_environment(settings), "DAGSTER_RUN_JOB_NAME": origin.job_name}},
                entrypoint_num_cpus=asked.cpus or None,
                entrypoint_num_gpus=asked.gpus or None,
                entrypoint_memory=asked.memory or None,
                entrypoint_resources=dict(asked.custom) or None,
                metadata={"dagster/job": origin.job_name, "dagster/run-id": run.run_id},
            )
        except Exception as error:
            raise self._cluster.unreachable(error) from error

    def resume_run(self, context: ResumeRunContext) -> None:
        raise FoundryError("a run on Ray is not resumed", where=context.dagster_run.run_id, mend="launch it again")

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """As the cluster tells it. A cluster that does not answer tells nothing: a head may be restarting."""
        job = get_job_submission_id_from_run_id(run.run_id)
        try:
            info = self._cluster.info(job)
        except FoundryError as error:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, str(error))
        if info is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"the cluster does not know the Ray job {job}")
        if info.status == JobStatus.SUCCEEDED:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        if info.status.is_terminal():
            said = self._cluster.last_lines(job)
            return CheckRunHealthResult(
                WorkerStatus.FAILED, f"its Ray job {info.status}: {info.message}\n{said}".strip()
            )
        return CheckRunHealthResult(WorkerStatus.RUNNING)
