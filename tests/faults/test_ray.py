"""Two Ray nodes on this host and PostgreSQL: runs × seeds from the command line, with a trainer and a node killed on the way.

In the end every adapter has the hash that the local path gives it, nothing is left running, and a second backfill starts
nothing. Another project then asks for what the cluster does not have.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import ROOT, Project, children_running, contents, kill, make_project, wait_for
from tests.servers.postgres import Postgres
from tests.servers.ray_cluster import RayNodes, ray_cluster

pytestmark = pytest.mark.chain
pytest.importorskip("ray", reason="the extra `ray` is not installed")
TRAINER = "foundry_pipeline.training.train"
TARGETS = ("keeper_first_adapter", "keeper_first@43_adapter", "keeper_second_adapter", "keeper_second@43_adapter")
BACKFILL = ("foundry", "backfill", "keeper_first", "keeper_second", "--until", "adapter", "--json")


def _twice_seeded(folder: Path, built: Project, *, first: bool = False) -> Project:
    """A project with two runs under two seeds each, everything before the trainings built; with `first` one of them too."""
    project = make_project(folder)
    run = (project.root / "assets/runs/keeper_first.yaml").read_text() + "seeds: 2\nresources: {training: {cpus: 1}}\n"
    (project.root / "assets/runs/keeper_first.yaml").write_text(run)
    second = run.replace("keeper_first", "keeper_second").replace("2.0e-4", "1.0e-4")
    (project.root / "assets/runs/keeper_second.yaml").write_text(second)
    for path in (built.store / "index").glob("*.json"):
        record = json.loads(path.read_text())
        if not record["name"].startswith("keeper_first_") or (first and record["kind"] == "adapter"):
            place = Path("artifacts") / record["content_hash"]
            if not (project.store / place).exists():
                shutil.copytree(built.store / place, project.store / place, copy_function=os.link)
            (project.store / "index").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, project.store / "index" / path.name)
    return project


@pytest.fixture(scope="module")
def cluster(postgres: Postgres) -> Iterator[tuple[RayNodes, dict[str, str]]]:
    """Two nodes, and what a user of them sets: the cluster's address and the database."""
    database = {"FOUNDRY_DATABASE": postgres.database()}
    with ray_cluster({**database, "PYTHONPATH": str(ROOT)}) as nodes:
        yield nodes, {**nodes.environment, **database, "FOUNDRY_RAY_PATIENCE": "30"}


@pytest.fixture(scope="module")
def local(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same backfill on this machine alone, undisturbed."""
    project = _twice_seeded(tmp_path_factory.mktemp("local") / "project", built, first=True)
    done = project.run(*BACKFILL)
    assert done.returncode == 0, done.stdout[-4000:]
    return project


def _trainers(project: Project) -> list[int]:
    return children_running(TRAINER, project.root)


def _of_node(pid: int, raylet: int) -> bool:
    """Whether a process descends from a raylet."""
    while pid > 1:
        if pid == raylet:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


# Eight trainings and a cluster: on a machine that others use as well this takes its time.
@pytest.mark.timeout(2400)
def test_a_backfill_of_runs_and_seeds_survives_a_killed_trainer_and_a_killed_node(
    built: Project, local: Project, cluster: tuple[RayNodes, dict[str, str]], tmp_path: Path
) -> None:
    nodes, environment = cluster
    project = _twice_seeded(tmp_path / "project", built)
    project.extra = environment
    started = project.start(*BACKFILL)
    log = project.root / "started.log"

    def busy(on: int | None = None) -> list[int]:
        assert started.poll() is None, log.read_text()[-4000:]
        return [p for p in _trainers(project) if on is None or _of_node(p, on)]

    wait_for(lambda: bool(busy()))
    time.sleep(0.5)
    kill(busy()[0])  # a worker
    node = nodes.raylet("127.0.0.3")
    wait_for(lambda: bool(busy(node)) or len(contents(project)) >= 12)
    assert busy(node), "the second node never trained"
    gone = busy(node)
    nodes.kill_node("127.0.0.3")
    # What it had started does not live on beside its replacement.
    wait_for(lambda: not set(gone) & set(_trainers(project)), seconds=30)
    assert started.wait(timeout=1200) == 0, log.read_text()[-6000:]

    found, wanted = contents(project), contents(local)
    assert {name: found.get(name) for name in TARGETS} == {name: wanted[name] for name in TARGETS}
    assert found["keeper_first_adapter"] == contents(built)["keeper_first_adapter"]
    assert len({found[name] for name in TARGETS}) == len(TARGETS)
    told = log.read_text()
    assert '"built": 4' in told
    assert "Traceback" not in told
    assert not _trainers(project)
    assert not list((project.store / "work").glob("*"))
    assert not list((project.store / "artifacts").glob(".*"))
    # Everything of Dagster's is in the database, and its password nowhere that the cluster shows.
    assert not list((project.root / ".dagster").rglob("runs.db"))
    again = project.run(*BACKFILL)
    assert again.returncode == 0
    assert json.loads(again.stdout)["built"] == 4
    assert "started" not in again.stdout.replace("started_again", "")


def test_what_no_node_has_is_told_and_not_waited_for(
    built: Project, cluster: tuple[RayNodes, dict[str, str]], tmp_path: Path
) -> None:
    project = _twice_seeded(tmp_path / "project", built)
    path = project.root / "assets/runs/keeper_first.yaml"
    path.write_text(path.read_text().replace("training: {cpus: 1}", "training: {gpus: 3}"))
    project.extra = {**cluster[1], "FOUNDRY_RAY_PATIENCE": "1"}
    done = project.run("dagster", "asset", "materialize", "--select", "keeper_first_adapter", "--partition", "43")
    assert done.returncode != 0
    assert "GPU: 3 asked for, the most that a node has is 0" in done.stdout
    assert "resources: {training: …}` in assets/runs/keeper_first.yaml" in done.stdout
    project.extra["RAY_AUTH_TOKEN"] = "x" * 64
    done = project.run("foundry", "backfill", "keeper_first@43", "--until", "adapter")
    assert done.returncode == 1
    assert "refuses this client" in done.stdout
    assert "Traceback" not in done.stdout
