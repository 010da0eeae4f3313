"""One setting moves scores, answers, money and Dagster's history into PostgreSQL, and what was in files comes along."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from foundry_pipeline.cli.instance import close_dead_runs
from foundry_pipeline.defs.storage import NODE_TAG
from foundry_pipeline.models.cache import ResponseCache
from foundry_pipeline.models.money.ledger import Ask, Caps, MoneyLedger
from foundry_pipeline.models.money.processes import this_node
from foundry_pipeline.models.requests import Reply
from foundry_pipeline.settings import DATABASE
from tests.project import Project
from tests.servers.asking import files_with
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.chain
SECRET = "pl4nted-p4ssword"


@pytest.fixture(scope="module")
def moved(built: Project, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The built project with some money spent, under a database that is still empty."""
    root = tmp_path_factory.mktemp("moved") / "project"
    shutil.copytree(built.root, root, symlinks=True, copy_function=_copy_or_link)
    store = root / ".foundry"
    book = MoneyLedger(store / "money.db").book(asset="a", run="r", caps=Caps(100, 100))
    for number in range(7):
        entry = book.reserve(Ask(f"k{number}", 9, "anthropic", "m", "2026-01-01"))
        if number:
            book.settle(entry, cost=number, usage=None)
    ResponseCache(store / "responses.db").put(Reply("", "k1", "nul \0 ü", "stop", 5, 3, 0.25, cost=1))
    return Project(root, extra={DATABASE: postgres.database(password=SECRET)})


def _copy_or_link(source: str, target: str) -> str:
    if source.endswith((".gguf", ".safetensors")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)
    return target


def rows(project: Project, *command: str, code: int = 0) -> list[dict[str, object]]:
    done = project.run("foundry", *command, "--json")
    assert done.returncode == code, done.stdout
    assert SECRET not in done.stdout
    found: list[dict[str, object]] = json.loads(done.stdout[done.stdout.index("[\n") :])
    return found


def test_what_is_in_files_is_copied_once_and_compared(moved: Project) -> None:
    files = Project(moved.root)
    before = rows(files, "scores")
    # A row of this living process is still open.
    refused = moved.run("foundry", "database", "copy")
    assert refused.returncode == 1
    assert "wait for them to end" in refused.stdout
    ledger = MoneyLedger(moved.store / "money.db")
    entry = ledger.rows("state = 'reserved'")[0]["entry"]
    ledger.book(asset="a", run="r", caps=Caps(100, 100)).release(entry)
    first = {row["what"]: row for row in rows(moved, "database", "copy")}
    assert {name: row["in_files"] for name, row in first.items()} == {name: row["added"] for name, row in first.items()}
    assert all(row["other"] == 0 for row in first.values())
    assert first["scores"]["in_files"] == len(before) > 0
    assert first["money: entries"]["in_files"] == 7
    again = {row["what"]: row for row in rows(moved, "database", "copy")}
    assert all(row["added"] == 0 for row in again.values())
    assert {n: r["digest"] for n, r in again.items()} == {n: r["digest"] for n, r in first.items()}
    assert rows(moved, "scores") == before


def test_a_run_is_recorded_there_builds_nothing_anew_and_tells_no_password(moved: Project) -> None:
    history = {p: p.stat().st_mtime_ns for p in (moved.root / ".dagster").rglob("*.db")}
    done = moved.materialize("keeper_first_eval")
    assert done.returncode == 0, done.stdout
    assert ": built in " not in done.stdout
    assert {p: p.stat().st_mtime_ns for p in (moved.root / ".dagster").rglob("*.db")} == history
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATABASE, moved.extra[DATABASE])
        patch.setenv("DAGSTER_HOME", str(moved.root))
        patch.chdir(moved.root)
        from dagster import DagsterInstance, DagsterRunStatus
        from dagster._core.test_utils import create_run_for_test

        with DagsterInstance.get() as instance:
            (run,) = instance.get_runs()
            assert run.is_success
            assert run.tags[NODE_TAG] == this_node()
            # Of two runs whose process is not among ours, only the one of this machine is known to be dead.
            for node in (this_node(), "another-machine/0/0"):
                begun = create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags={NODE_TAG: node})
                instance.report_engine_event("began", begun, engine_event_data=_by_process(2**22 + 1))
            assert len(close_dead_runs(instance)) == 1
            (left,) = [r for r in instance.get_runs() if not r.is_finished]
            assert left.tags[NODE_TAG] == "another-machine/0/0"
    assert SECRET not in done.stdout
    assert files_with(moved.root, SECRET) == []


def _by_process(pid: int) -> object:
    from dagster._core.events import EngineEventData

    return EngineEventData({"pid": str(pid)})


def test_a_database_that_cannot_be_reached_stops_a_command_before_it_does_anything(moved: Project) -> None:
    dead = Project(moved.root, extra={DATABASE: f"postgresql://u:{SECRET}@127.0.0.1:9/none"})
    for command in (("dagster", "asset", "materialize", "--select", "keeper_first_eval"), ("foundry", "scores")):
        done = dead.run(*command)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout
        assert "see that the server runs" in done.stdout
        assert SECRET not in done.stdout


def test_without_a_database_there_is_nothing_to_copy_to(moved: Project) -> None:
    done = Project(moved.root).run("foundry", "database", "copy")
    assert done.returncode == 1
    assert f"export {DATABASE}=" in done.stdout
    status = rows(Project(moved.root), "database", "status")
    assert str(status[1]["where"]).endswith("responses.db")
    assert Path(str(status[2]["where"])).name == "money.db"
