"""Scripts on a Ray cluster: the same command as on this machine, as a job that holds what its run declares.

A job that was lost (its process killed, its node gone) is sent again and goes on from what is stored, a few times; one
that failed with a message of its own raises that message. What no node could ever hold is an error, not a wait.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.pipes.client import PipesClientCompletedInvocation
from dagster_ray.core.pipes import (
    PipesRayJobClient,
    PipesRayJobMessageReader,
    SubmitJobParams,
    _enrich_submit_job_params,
)
from ray.job_submission import JobDetails, JobErrorType, JobStatus

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.launch import ScriptFailed, ScriptRunner, check_ended, write_spec
from foundry_pipeline.scale.asking import Asked
from foundry_pipeline.scale.cluster import WORK, RayCluster, job_environment
from foundry_pipeline.scale.engine import patience
from foundry_pipeline.scale.lease import Lease
from foundry_pipeline.scale.node import UNFIT
from foundry_pipeline.settings import load_settings

ATTEMPTS = 5
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 5.0  # between looks at what the cluster offers while a job waits
_FLUSH_SECONDS = 10.0
_LATE_SECONDS = 30.0  # until a network file system shows what another node has written
_KILLED = {-9, -7, 128 + 9, 128 + 7}  # SIGKILL and SIGBUS, as a process or as a shell tells it
_LOST = {
    JobErrorType.JOB_SUPERVISOR_ACTOR_DIED,
    JobErrorType.JOB_SUPERVISOR_ACTOR_START_FAILURE,
    JobErrorType.JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE,
    # A job that has waited for a quarter of an hour is given up by Ray, though it may only be others' turn.
    JobErrorType.JOB_SUPERVISOR_ACTOR_START_TIMEOUT,
    JobErrorType.JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE,
}


class _Reader(PipesRayJobMessageReader):
    """Gives a log that no longer comes, such as that of a node that is gone, a few seconds and no error."""

    def terminate(self, handler: Any) -> None:
        self.session_closed.set()
        if self._thread is not None:
            self._thread.join(timeout=_FLUSH_SECONDS)


class ScriptJobs(PipesRayJobClient):
    """A `PipesRayJobClient` for one job, which also looks after it while it waits."""

    def __init__(self, cluster: RayCluster, asked: Asked) -> None:
        super().__init__(address=cluster.address, message_reader=_Reader())
        self._cluster, self._asked = cluster, asked
        self.ended: JobDetails | None = None

    @property
    def client(self) -> Any:
        return self._cluster.client

    def run(  # type: ignore[override]
        self, *, context: dg.OpExecutionContext, submit_job_params: SubmitJobParams
    ) -> PipesClientCompletedInvocation:
        """Run one job to its end, which `ended` then tells; None where the cluster has forgotten it."""
        with dg.open_pipes_session(
            context=context, message_reader=self._message_reader, context_injector=self._context_injector
        ) as session:
            params = _enrich_submit_job_params(context, session, submit_job_params)
            try:
                job = self._start(context, session, params)
            except Exception as error:
                raise self._cluster.unreachable(error) from error
            try:
                self.ended = self._wait(job)
            except (DagsterExecutionInterruptedError, KeyboardInterrupt, FoundryError):
                context.log.warning(f"stopping the Ray job {job}")
                self._cluster.stop(job)
                raise
        return PipesClientCompletedInvocation(session, metadata={"Ray Job ID": job})

    def _wait(self, job: str) -> JobDetails | None:
        looked = silent_since = time.monotonic()
        lacking_since: float | None = None
        while True:
            try:
                info = self._cluster.info(job)
            except FoundryError:
                # A head that restarts is away for a moment.
                if time.monotonic() - silent_since > patience():
                    raise
                time.sleep(_POLL_SECONDS)
                continue
            silent_since = time.monotonic()
            if info is None or info.status.is_terminal():
                return info
            if info.status == JobStatus.PENDING and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                lacking = self._cluster.lacking(self._asked)
                lacking_since = None if not lacking else lacking_since or looked
                if lacking_since is not None and looked - lacking_since > patience():
                    raise self._cluster.never(self._asked, lacking)
            time.sleep(_POLL_SECONDS)


def ray_runner(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    cluster: RayCluster,
    asks: Callable[[Mapping[str, Any]], Asked],
) -> ScriptRunner:
    """A `ScriptRunner` whose scripts are jobs of the cluster and hold there what `asks` says of their spec."""

    def run(module: str, spec: Mapping[str, Any], work: Path) -> None:
        asked = asks(spec)
        cluster.check(asked)
        for job in cluster.end_writers(work):
            context.log.warning(f"stopped the Ray job {job}, which a run that is gone had left behind")
        path = write_spec(spec, work)
        for attempt in range(1, ATTEMPTS + 1):
            with Lease(work) as lease:
                jobs = ScriptJobs(cluster, asked)
                jobs.run(
                    context=context.op_execution_context,
                    submit_job_params=_job(module, path, lease.path, asked, context.op_execution_context.run_id, work),
                )
            lost = _lost(jobs.ended)
            if lost is None:
                break
            context.log.warning(f"the Ray job of {module} was lost ({lost}); attempt {attempt} of {ATTEMPTS}")
        else:
            raise ScriptFailed(
                f"{module} was lost {ATTEMPTS} times on the cluster, the last time by: {lost}",
                where=f"{cluster.address}, {work}",
                mend="see `ray status` and the memory of the nodes; then run the same command again: it resumes",
            )
        assert jobs.ended is not None  # a job that the cluster has forgotten counts as lost
        _check(cluster, jobs.ended, module, work)

    return run


def _job(module: str, spec: Path, lease: Path, asked: Asked, run_id: str, work: Path) -> SubmitJobParams:
    # `exec`: the script itself is then the child of the process that Ray watches over, and dies with it.
    command = [sys.executable, "-m", "foundry_pipeline.scale.node", "script", module, str(spec), str(lease)]
    params: dict[str, Any] = {
        "entrypoint": f"exec {shlex.join(command)}",
        "submission_id": f"foundry-{module.rsplit('.', 1)[-1]}-{run_id[:8]}-{uuid.uuid4().hex[:8]}",
        "metadata": {WORK: str(work.resolve()), "foundry/asks": asked.work},
        "runtime_env": {"env_vars": job_environment(load_settings())},
        "entrypoint_num_cpus": asked.cpus,
        "entrypoint_num_gpus": asked.gpus,
    }
    if asked.memory:
        params["entrypoint_memory"] = asked.memory
    if asked.custom:
        params["entrypoint_resources"] = dict(asked.custom)
    return cast(SubmitJobParams, params)


def _lost(info: JobDetails | None) -> str | None:
    """How a job was lost through no fault of its own, or None: then its end stands."""
    if info is None:
        return "the cluster does not know it any more"
    if info.status != JobStatus.FAILED:
        return None
    if info.error_type in _LOST:
        return (info.message or str(info.error_type)).splitlines()[0][:300]
    if info.driver_exit_code in _KILLED:
        return "its process was killed, by hand or for the node's memory"
    return None


def _check(cluster: RayCluster, info: JobDetails, module: str, work: Path) -> None:
    """Raise for a job that did not end well; wait a little for what a network file system shows late."""
    job = str(info.submission_id)
    if info.status == JobStatus.STOPPED:
        raise ScriptFailed(
            f"{module} was stopped on the cluster", where=job, mend="run the same command again: it resumes"
        )
    code = info.driver_exit_code or 0
    if info.status == JobStatus.FAILED and not code:
        code = 1
    until = time.monotonic() + _LATE_SECONDS
    expected = {0: work / "result.json", 1: work / "error.json"}.get(code)
    while expected is not None and not expected.exists() and time.monotonic() < until:
        time.sleep(0.5)
    tail = "" if code == 0 else cluster.last_lines(job)
    if code == UNFIT:
        # As the node told it, without the lines that Ray put around it.
        _, _, told = tail.partition("error: ")
        raise FoundryError(told or f"a node is unfit for the work\n{tail}", where=job, mend="see deploy/README.md")
    check_ended(module, work, code, tail or (info.message or ""))
