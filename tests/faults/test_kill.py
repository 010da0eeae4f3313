"""kill -9 of the run and of its child, in training and in generation: the same command ends with the same hashes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from foundry_pipeline.lineage.store import Store
from tests.project import Project, children_running, contents, kill, make_project, share, share_base_model, wait_for

pytestmark = pytest.mark.chain
TRAINER, GENERATOR = "foundry_pipeline.training.train", "foundry_pipeline.models.generate"
COMMAND = ("dagster", "asset", "materialize", "--select", "*keeper_first_responses")


def _in_training(project: Project) -> bool:
    return any(p.stat().st_size > 0 for p in (project.store / "work").glob("*/metrics.jsonl"))


@pytest.fixture(scope="module")
def disturbed(built: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A second project in which generation and training were each killed twice: once the child, once the run."""
    project = make_project(tmp_path_factory.mktemp("killed") / "project")
    share_base_model(built, project)
    for module, ready in (
        (GENERATOR, lambda: bool(children_running(GENERATOR, project.root))),
        (TRAINER, lambda: _in_training(project)),
    ):
        for victim in ("child", "run"):
            run = project.start(*COMMAND)
            wait_for(lambda: ready() or run.poll() is not None)  # noqa: B023 - used within the iteration
            wait_for(lambda: bool(children_running(module, project.root)) or run.poll() is not None)  # noqa: B023
            assert run.poll() is None, (project.root / "started.log").read_text()[-3000:]
            time.sleep(0.5)
            child = children_running(module, project.root)
            assert child, f"no {module} to kill"
            if victim == "child":
                kill(child[0])
                assert run.wait(timeout=120) != 0
            else:
                kill(run.pid)
                run.wait(timeout=30)
                wait_for(lambda: not children_running(module, project.root), seconds=5)  # noqa: B023
    return project


def test_the_same_command_resumes_and_ends_with_the_same_hashes(built: Project, disturbed: Project) -> None:
    """What was made of an undisturbed adapter is found again if this one is the same, and made anew if it is not."""
    share(built, disturbed, ("keeper_first_merged", "keeper_first_gguf", "keeper_first_parity"))
    done = disturbed.run(*COMMAND)
    assert done.returncode == 0, done.stdout[-5000:]
    wanted = {k: v for k, v in contents(built).items() if not k.endswith(("_eval", "_serving_matrix"))}
    assert contents(disturbed) == wanted


def test_nothing_half_written_is_left(disturbed: Project) -> None:
    assert not list((disturbed.store / "artifacts").glob(".*"))
    assert not list((disturbed.store / "work").glob("*"))


def test_a_second_writer_is_refused(built: Project, tmp_path: Path) -> None:
    """This test is the first writer: it holds the lock under which the stage would be built."""
    project = make_project(tmp_path / "project")
    share(built, project, ("keeper_sources", "keeper_passages", "keeper_teacher_responses", "base_model_smollm2_135m"))
    records = [json.loads(p.read_text()) for p in (built.store / "index").glob("*.json")]
    wanted = next(r["input_hash"] for r in records if r["name"] == "keeper_student_responses")
    with Store(project.store).lock(wanted, name="keeper_student_responses"):
        refused = project.materialize("keeper_student_responses")
    assert refused.returncode != 0
    assert f"is being built by process {os.getpid()}" in refused.stdout
    assert "keeper_student_responses" not in contents(project)
    assert project.materialize("keeper_student_responses").returncode == 0
