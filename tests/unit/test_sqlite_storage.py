"""Dagster's SQLite files held open: what one process stores, others see; a killed one loses nothing; watchers are told."""

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from foundry_pipeline.defs import sqlite_storage
from foundry_pipeline.defs.sqlite_storage import HeldEvents, HeldSqliteStorage


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dagster.yaml").write_text(
        "storage:\n  custom:\n    module: foundry_pipeline.defs.storage\n    class: FoundryStorage\n"
        f"    config: {{base_dir: {tmp_path}}}\ntelemetry: {{enabled: false}}\n"
    )
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("FOUNDRY_DATABASE", raising=False)
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as found:
        yield found


@dg.asset
def paper() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("1"))


def test_what_is_stored_is_seen_by_dagsters_own_storage(home: Path, instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.event_log_storage, HeldEvents)
    run = dg.materialize([paper], instance=instance).run_id
    plain = DagsterSqliteStorage.from_local(str(home))
    types = [r.event_log_entry.dagster_event_type for r in plain.event_log_storage.get_records_for_run(run).records]
    assert dg.DagsterEventType.ASSET_MATERIALIZATION in types
    assert types[-1] in (dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.ENGINE_EVENT)
    assert [r.status for r in plain.run_storage.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
    latest = instance.get_latest_materialization_event(dg.AssetKey("paper"))
    assert latest is not None
    assert latest.run_id == run


def test_watchers_of_a_run_are_told(home: Path, instance: dg.DagsterInstance) -> None:
    told, done = [], threading.Event()

    def hear(entry: dg.EventLogEntry, _cursor: str) -> None:
        told.append(entry.message)
        done.set() if entry.message == "last" else None

    run = dg.materialize([paper], instance=instance).run_id
    with dg.DagsterInstance.get() as other:  # as the web server, which writes nothing
        other.event_log_storage.watch(run, None, hear)
        instance.report_engine_event("first", run_id=run, job_name="job")
        instance.report_engine_event("last", run_id=run, job_name="job")
        assert done.wait(30)
        heard = len(told)
        time.sleep(0.5)
        assert len(told) == heard  # reading does not count as a change
        other.event_log_storage.end_watch(run, hear)


def test_a_killed_process_has_stored_what_it_reported(home: Path, instance: dg.DagsterInstance) -> None:
    run = dg.materialize([paper], instance=instance).run_id
    code = f"""
        import time, dagster as dg
        instance = dg.DagsterInstance.get()
        for i in range(50):
            instance.report_engine_event(f"event {{i}}", run_id={run!r}, job_name="job")
        print("done", flush=True)
        time.sleep(60)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "done\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    said = [r.event_log_entry.message for r in instance.event_log_storage.get_records_for_run(run).records]
    assert said[-50:] == [f"event {i}" for i in range(50)]


def test_few_files_are_held_and_all_let_go(
    home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_storage, "_RUNS", 2)
    runs = [dg.materialize([paper], instance=instance).run_id for _ in range(4)]
    storage = instance.event_log_storage
    assert isinstance(storage, HeldEvents)
    assert sorted(storage._engines) == sorted(["index", *runs[2:]])
    assert all(storage.get_records_for_run(run).records for run in runs)
    # Let go, SQLite folds its logs into the files; and the storage may be used again.
    storage.dispose()
    assert not list((home / "history" / "runs").glob("*-wal"))
    assert storage.get_records_for_run(runs[0]).records
    storage.wipe()
    assert not storage.get_records_for_run(runs[0]).records
    assert {p.stem for p in (home / "history" / "runs").glob("*.db")} == {"index", runs[0]}


def test_it_is_made_in_dagsters_own_folders(tmp_path: Path) -> None:
    held, plain = (
        HeldSqliteStorage.from_local(str(tmp_path / "a")),
        DagsterSqliteStorage.from_local(str(tmp_path / "b")),
    )
    assert isinstance(held, HeldSqliteStorage)
    held.dispose()
    plain.dispose()
    files = [sorted(p.relative_to(tmp_path / d).as_posix() for p in (tmp_path / d).rglob("*.db")) for d in "ab"]
    assert files[0] == files[1]
