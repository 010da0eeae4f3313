"""A run is known by the mark of its process: neither a clock that was set nor a later process of that number misleads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from foundry_pipeline.cli import instance as instances
from foundry_pipeline.cli.instance import close_dead_runs, readable_instance
from foundry_pipeline.defs.run_marks import PROCESS_TAG, mark_run
from foundry_pipeline.errors import FoundryError


@dg.op
def nothing() -> None:
    return None


@dg.job
def job() -> None:
    nothing()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def started(instance: dg.DagsterInstance, pid: int) -> dg.DagsterRun:
    """A run that a process has begun, and said so."""
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event("at work", run, EngineEventData.in_process(pid))
    return run


def test_a_clock_that_was_set_back_closes_no_living_run(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked, bare = started(instance, os.getpid()), started(instance, os.getpid())
    mark_run(instance, marked.run_id)
    real = instances._started_at

    def an_hour_later(pid: int) -> float | None:
        at = real(pid)
        return None if at is None else at + 10**6

    monkeypatch.setattr(instances, "_started_at", an_hour_later)
    assert [dead.run_id for dead in close_dead_runs(instance)] == [bare.run_id]


def test_a_run_whose_process_is_gone_is_closed_though_it_was_marked(instance: dg.DagsterInstance) -> None:
    child = subprocess.Popen(["sleep", "0"])
    child.wait()
    run = started(instance, child.pid)
    instance.add_run_tags(run.run_id, {PROCESS_TAG: f"{os.uname().nodename}:{child.pid}:1"})
    assert [dead.run_id for dead in close_dead_runs(instance)] == [run.run_id]
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_history_that_is_no_database_is_told_with_its_command(tmp_path: Path) -> None:
    (tmp_path / ".dagster").mkdir()
    import sqlite3

    with pytest.raises(FoundryError, match="history of runs is damaged") as caught, readable_instance(tmp_path):
        raise sqlite3.DatabaseError("file is not a database")
    assert caught.value.mend.startswith(f"mv {tmp_path}/.dagster ")
