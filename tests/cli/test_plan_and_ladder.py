"""`foundry plan` and `foundry ladder` as a user runs them, on a project of which nothing is built."""

from __future__ import annotations

import json

import pytest

from tests.project import Project, make_project
from tests.scored import InProcess


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return InProcess(make_project(tmp_path_factory.mktemp("unbuilt") / "project").root)


def test_plan_tells_rows_steps_and_size_and_builds_nothing(project: Project) -> None:
    done = Project(project.root).run("foundry", "plan", "keeper_first", "--json")
    assert done.returncode == 0, done.stdout
    (row,) = json.loads(done.stdout)["runs"]
    assert row["rows_source"] == "declared"
    assert row["steps"] == -(-row["rows_per_epoch"] // 2)
    assert row["shape"]["parameters"] == 134515008
    assert row["parameters_as_declared"]
    assert not (project.store / "artifacts").exists()


def test_an_unknown_run_or_profile_is_named(project: Project) -> None:
    done = project.run("foundry", "plan", "keeper_frist")
    assert done.returncode == 1
    assert "no run `keeper_frist` is declared" in done.stdout
    assert "Traceback" not in done.stdout
    done = project.run("foundry", "plan", "--profile", "../laptop")
    assert done.returncode == 1
    assert "is not declared" in done.stdout


def test_the_ladder_fails_while_a_row_is_missing_and_says_how_to_build_it(project: Project) -> None:
    done = project.run("foundry", "ladder", "--complete", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["runs"], len(found["rows"]), found["complete"]) == (11, 14, False)
    assert project.run("foundry", "ladder", "--select").stdout.count("+key:") == 11
