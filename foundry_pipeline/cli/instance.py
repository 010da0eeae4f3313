"""The project's Dagster instance, and what a killed run leaves in it."""

from __future__ import annotations

import os
import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_pipeline.defs.run_marks import PROCESS_TAG
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.lineage.sqlite_file import unwritable
from foundry_pipeline.models.money.processes import still_at_work
from foundry_pipeline.settings import DATABASE, find_root

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun


@dataclass(frozen=True)
class DeadRun:
    """A run that its instance still counts as going on, though its process is gone."""

    run_id: str
    pid: int | None
    slots: tuple[str, ...]


def enter_project(*, release: bool) -> Path | None:
    """Make the project's own instance the default, from any folder of the project; None outside a project.

    Raises FoundryError where the instance's databases cannot be read.

    Dagster finds `dagster.yaml` only in the working directory, and its paths are relative to that. With `release`, runs
    left behind by a killed process are closed first: one of them may hold the trainer's slot, for which the next
    training would wait for ever. Raises FoundryError where FOUNDRY_DATABASE names what cannot be used.
    """
    try:
        root = Path(os.environ["FOUNDRY_ROOT"]).resolve() if os.environ.get("FOUNDRY_ROOT") else find_root()
    except FoundryError:
        return None
    if not os.environ.get("DAGSTER_HOME") and (root / "dagster.yaml").is_file():
        os.chdir(root)
        os.environ["DAGSTER_HOME"] = str(root)
    if os.environ.get(DATABASE, "").strip():
        from foundry_pipeline.lineage.postgres import check_database

        check_database()
    if release and os.environ.get("DAGSTER_HOME"):
        from dagster import DagsterInstance

        with readable_instance(root), DagsterInstance.get() as instance:
            for dead in close_dead_runs(instance):
                held = f"; freed its slot in {', '.join(dead.slots)}" if dead.slots else ""
                print(f"closed run {dead.run_id[:8]}: its process {dead.pid} is gone{held}", file=sys.stderr)
    return root


@contextmanager
def readable_instance(root: Path) -> Iterator[None]:
    """What a damaged database of the instance is told as: it holds history, and nothing that was built.

    Raises FoundryError in place of SQLite's, SQLAlchemy's and Alembic's errors.
    """
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (CommandError, SQLAlchemyError, sqlite3.DatabaseError) as error:
        cause = getattr(error, "orig", None) or error
        where = root / ".dagster"
        where = where if where.is_dir() else Path(os.environ.get("DAGSTER_HOME") or root)
        said = " ".join(str(cause).split())[:200]
        if unwritable(cause):
            raise FoundryError(
                f"Dagster's history cannot be written ({said})",
                where=str(where),
                mend="free disk space, or make the folder writable, and run the same command again",
            ) from error
        raise FoundryError(
            f"Dagster's history of runs is damaged ({said}); nothing that was built is in it",
            where=str(where),
            mend=f"mv {where} {where}.damaged-{uuid.uuid4().hex[:8]}   # then run the same command again: a new history begins",
        ) from error


def _started_at(pid: int) -> float | None:
    """Seconds since the epoch at which a process started, or None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        boot = next(int(x.split()[1]) for x in Path("/proc/stat").read_text().splitlines() if x.startswith("btime"))
    except (OSError, IndexError, StopIteration):
        return None
    if fields[0] == "Z":
        return None
    return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _process_of(instance: DagsterInstance, run: DagsterRun) -> tuple[int | None, float]:
    """Process id that last reported on a run, and when it did."""
    from dagster import DagsterEventType

    for entry in reversed(instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        if event is not None and "pid" in event.engine_event_data.metadata:
            return int(str(event.engine_event_data.metadata["pid"].value)), entry.timestamp
    return None, 0.0


def close_dead_runs(instance: DagsterInstance) -> list[DeadRun]:
    """Report runs whose process is gone as failed, and free the pool slots they hold.

    A process id that was given to another process since is told apart by its start time: by the run's own mark where it
    has got as far as one, else by the clock, which may have been set meanwhile. Runs on a cluster are left alone: their
    processes are not of this machine (`foundry backfill` and the daemon look after them). Where machines share an
    instance, each closes its own runs only.
    """
    from dagster import DagsterRunStatus, RunsFilter

    from foundry_pipeline.defs.launcher import on_ray
    from foundry_pipeline.defs.storage import of_this_node

    out: list[DeadRun] = []
    unfinished = [DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]
    storage = instance.event_log_storage
    for run in instance.get_runs(RunsFilter(statuses=unfinished)):
        if on_ray(run) or not of_this_node(run):
            continue
        pid, seen = _process_of(instance, run)
        started = _started_at(pid) if pid is not None else None
        if pid is None or (started is not None and started <= seen + 1):
            continue
        if (mark := run.tags.get(PROCESS_TAG)) and still_at_work(mark):
            continue
        instance.report_run_failed(run, f"Its process ({pid}) is gone; repeat the same command to resume.")
        slots = _slots(instance, run.run_id)
        storage.free_concurrency_slots_for_run(run.run_id)
        out.append(DeadRun(run.run_id, pid, slots))
    # A run may have been closed by other means (the UI, a daemon) and still hold its slot.
    for key in storage.get_concurrency_keys() if storage.supports_global_concurrency_limits else ():
        for slot in storage.get_concurrency_info(key).claimed_slots:
            held = instance.get_run_by_id(slot.run_id)
            if held is None or held.is_finished:
                storage.free_concurrency_slots_for_run(slot.run_id)
                out.append(DeadRun(slot.run_id, None, (key,)))
    return out


def _slots(instance: DagsterInstance, run_id: str) -> tuple[str, ...]:
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return ()
    keys = storage.get_concurrency_keys()
    return tuple(
        sorted(k for k in keys if any(s.run_id == run_id for s in storage.get_concurrency_info(k).claimed_slots))
    )
