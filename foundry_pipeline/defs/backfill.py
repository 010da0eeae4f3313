"""Runs of Dagster for the units of a backfill: started on this machine or on a cluster, watched, and told about.

launches = Launches(instance)
started = launches.start(unit)          # a run of Dagster with the unit's assets and partition
launches.state(started)                 # None while it goes on, else an Ended
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import dagster as dg
from dagster._cli.api import ExecuteRunArgs
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.events import DagsterEventType
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG

from foundry_pipeline.chain.backfill import Unit
from foundry_pipeline.cli.dagster_command import MODULE
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.scale.engine import engine

if TYPE_CHECKING:
    from dagster._utils.error import SerializableErrorInfo

UNIT_TAG = "foundry/unit"  # of a run: what it builds; so that a repeated command finds it again
_GOING_ON = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Started:
    """A run of Dagster that builds a unit; `process` where it is a child of this one."""

    unit: Unit
    run_id: str
    process: subprocess.Popen[bytes] | None = None


@dataclass(frozen=True)
class Ended:
    """How a run ended: well, by a failure of its own (`said`), or lost with the machine it was on; locked: not its turn."""

    how: Literal["well", "failed", "lost", "locked"]
    said: str = ""


class Launches:
    """Starts and watches runs. Raises FoundryError where nothing can be started at all, such as without a cluster."""

    def __init__(self, instance: dg.DagsterInstance, *, store: Path, label: str, module: str = MODULE) -> None:
        self._instance, self._label, self._module = instance, label, module
        self._logs = store / "backfill"

    @cached_property
    def _repository(self) -> ReconstructableRepository:
        return ReconstructableRepository.for_module(self._module, fn_name="defs", working_directory=os.getcwd())

    def going_on(self, unit: Unit) -> Started | None:
        """A run of this unit that an earlier command has started and that has not ended."""
        filters = dg.RunsFilter(statuses=_GOING_ON, tags={UNIT_TAG: self._tag(unit)})
        for run in self._instance.get_runs(filters):
            return Started(unit, run.run_id)
        return None

    def _tag(self, unit: Unit) -> str:
        return f"{self._label}/{unit.name}"

    def start(self, unit: Unit, *, backfill: str) -> Started:
        """Start a run with the unit's assets, their checks, and its partition."""
        definition = self._repository.get_definition()
        keys = {dg.AssetKey(name) for name in unit.assets}
        job = definition.get_implicit_job_def_for_assets(list(keys))
        if job is None:
            raise FoundryError(
                f"{', '.join(unit.assets)} cannot be built in one run", where=unit.name, mend="report this as a bug"
            )
        tags = {UNIT_TAG: self._tag(unit), BACKFILL_ID_TAG: backfill}
        if unit.partition is not None:
            tags |= job.get_tags_for_partition_key(unit.partition, selected_asset_keys=keys)
        origin = ReconstructableJob(self._repository, job.name, asset_selection=frozenset(keys)).get_python_origin()
        run = self._instance.create_run_for_job(job_def=job, asset_selection=keys, tags=tags, job_code_origin=origin)
        if engine() == "ray":
            # No workspace: the launcher for Ray goes by the code's own address.
            self._instance.launch_run(run.run_id, workspace=None)  # type: ignore[arg-type]
            return Started(unit, run.run_id)
        arguments = ExecuteRunArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=None, set_exit_code_on_failure=True
        ).get_command_args()
        with self.log(run.run_id).open("ab") as log:
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        return Started(unit, run.run_id, process)

    def log(self, run_id: str) -> Path:
        """Where the output of a run on this machine goes."""
        self._logs.mkdir(parents=True, exist_ok=True)
        return self._logs / f"{run_id}.log"

    def state(self, started: Started) -> Ended | None:
        """How a run stands: None while it goes on. One whose process or node is gone is closed as failed and told as lost."""
        gone = started.process is not None and started.process.poll() is not None
        run = self._instance.get_run_by_id(started.run_id)
        if run is None:
            return Ended("lost", "its record is gone")
        if run.status == dg.DagsterRunStatus.SUCCESS:
            return Ended("well")
        if run.is_finished:
            return self._failure(run)
        if started.process is not None:
            return self._close(run, f"its process ended with {started.process.returncode}") if gone else None
        health = self._instance.run_launcher.check_run_worker_health(run)
        if health.status in (WorkerStatus.FAILED, WorkerStatus.NOT_FOUND, WorkerStatus.SUCCESS):
            # It may have ended between the two looks.
            again = self._instance.get_run_by_id(started.run_id)
            if again is not None and again.is_finished:
                return Ended("well") if again.status == dg.DagsterRunStatus.SUCCESS else self._failure(again)
            return self._close(run, health.msg or "its worker is gone")
        return None

    def _close(self, run: dg.DagsterRun, why: str) -> Ended:
        self._instance.report_run_failed(run, f"{why}; what it had stored is found again")
        storage = self._instance.event_log_storage
        if storage.supports_global_concurrency_limits:
            storage.free_concurrency_slots_for_run(run.run_id)
        unfit = "cannot do this work" in why
        return Ended("failed" if unfit else "lost", why)

    def _failure(self, run: dg.DagsterRun) -> Ended:
        """What a failed run failed of: the message of its first failed step."""
        if run.status == dg.DagsterRunStatus.CANCELED:
            return Ended("failed", "it was canceled")
        for entry in self._instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE):
            error = entry.dagster_event.step_failure_data.error if entry.dagster_event is not None else None
            cause = _root(error)
            if cause is not None:
                name = (cause.cls_name or "").rsplit(".", 1)[-1]
                said = cause.message.strip().removeprefix(f"{cause.cls_name}: ")
                said = said.removeprefix(f"foundry_pipeline.errors.{name}: ")
                return Ended("locked" if name == "Locked" else "failed", said)
        for kind in (DagsterEventType.RUN_FAILURE, DagsterEventType.ENGINE_EVENT):
            for entry in reversed(self._instance.all_logs(run.run_id, of_type=kind)):
                if entry.user_message and "rror" in entry.user_message:
                    return Ended("failed", entry.user_message.strip())
        return Ended("failed", "it left no message")

    def stop(self, started: Started) -> None:
        """Ask a run to end; what it has stored is found by the next one."""
        if started.process is not None:
            started.process.terminate()
            try:
                started.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()
            return
        self._instance.run_launcher.terminate(started.run_id)


def _root(error: SerializableErrorInfo | None) -> SerializableErrorInfo | None:
    """The innermost cause of an error."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error
