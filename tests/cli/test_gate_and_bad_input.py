"""What bad input gets, by exit code and message."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import polars as pl
import pytest

from foundry_pipeline.lineage.sealed import sealed
from tests.project import Project, contents, make_project

pytestmark = pytest.mark.chain
DATASET = "keeper_dataset_v1"


@pytest.fixture
def copy(built: Project, tmp_path: Path) -> Project:
    """A project of one's own to damage, built up to the end."""
    root = tmp_path / "project"
    shutil.copytree(built.root, root, symlinks=True, copy_function=_copy_or_link)
    return Project(root)


def _copy_or_link(source: str, target: str) -> str:
    """Weights are shared, since no test here writes to them; everything else is a copy that may be damaged."""
    if source.endswith((".gguf", ".safetensors")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)
    return target


def newly_built(printed: str) -> set[str]:
    return {line.split(" - ")[-1].split(" ")[0] for line in printed.splitlines() if ": built in " in line}


def pairs_file(project: Project) -> Path:
    return project.store / "artifacts" / contents(project)[DATASET] / "payload" / "pairs.parquet"


@pytest.mark.parametrize("harm", ["emptied", "row removed", "cell edited", "not parquet", "removed"])
@pytest.mark.parametrize("select", ["keeper_first_adapter", f"{DATASET},keeper_first_adapter"])
def test_a_damaged_dataset_blocks_training_alone_and_in_the_same_run(copy: Project, harm: str, select: str) -> None:
    path = pairs_file(copy)
    frame = pl.read_parquet(path)
    if harm == "emptied":
        frame.clear().write_parquet(path)
    elif harm == "row removed":
        frame.head(frame.height - 1).write_parquet(path)
    elif harm == "cell edited":
        frame.with_columns(chosen=pl.lit("I don't know, lol.")).write_parquet(path)
    elif harm == "not parquet":
        path.write_bytes(b"PAR1 no more")
    else:
        path.unlink()
    done = copy.materialize(select)
    assert done.returncode != 0
    assert "damaged" in done.stdout
    assert f"foundry repair {DATASET}" in done.stdout


def test_the_command_in_the_message_mends_a_damaged_dataset(copy: Project) -> None:
    wanted = contents(copy)
    pairs_file(copy).write_bytes(b"PAR1 no more")
    mended = copy.run("foundry", "repair", DATASET)
    assert mended.returncode == 0, mended.stdout
    assert list((copy.store / "quarantine").iterdir())
    again = copy.materialize(f"{DATASET},keeper_first_adapter")
    assert again.returncode == 0, again.stdout[-3000:]
    assert contents(copy) == wanted


def test_a_dataset_that_fails_its_checks_blocks_training_alone_and_in_the_same_run(copy: Project) -> None:
    profile = copy.root / "assets/profiles/tiny.yaml"
    profile.write_text(profile.read_text().replace("min_rows_share: 0.3", "min_rows_share: 1.0"))
    recipe = copy.root / "assets/datasets/keeper_dataset_v1.yaml"
    recipe.write_text(recipe.read_text().replace("pairs: 6", "pairs: 60"))
    same_run = copy.materialize("*keeper_first_adapter")
    assert same_run.returncode != 0
    assert "row_count" in same_run.stdout
    assert "keeper_first_adapter" not in newly_built(same_run.stdout)
    alone = copy.materialize("keeper_first_adapter")
    assert alone.returncode != 0
    assert "training refused" in alone.stdout
    assert "row_count" in alone.stdout


def test_a_lost_instance_still_blocks(copy: Project) -> None:
    verdict = pairs_file(copy).parents[1] / "verdict.json"
    data = json.loads(verdict.read_text())
    data["passed"] = False
    verdict.write_text(json.dumps(sealed(data)))
    shutil.rmtree(copy.root / ".dagster")
    done = copy.materialize("keeper_first_adapter")
    assert done.returncode != 0
    assert "training refused" in done.stdout


def test_no_verdict_no_training(copy: Project) -> None:
    (pairs_file(copy).parents[1] / "verdict.json").unlink()
    alone = copy.materialize("keeper_first_adapter")
    assert alone.returncode != 0
    assert "has not been checked" in alone.stdout
    assert copy.materialize(DATASET).returncode == 0
    assert copy.materialize("keeper_first_adapter").returncode == 0


def test_an_empty_store_names_the_command_that_builds(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    done = project.materialize("keeper_first_eval")
    assert done.returncode != 0
    assert "dagster asset materialize --select '*keeper_first_eval'" in done.stdout
    assert project.run("foundry", "trace", "keeper_first_eval").returncode == 1
    assert project.run("foundry", "report", "keeper_first").returncode == 1


def test_broken_yaml_stops_every_command_with_file_and_field(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    path = project.root / "assets/runs/keeper_first.yaml"
    path.write_text(path.read_text().replace("lora_rank: 4", "lora_rank: many"))
    for command in (("foundry", "check"), ("dagster", "asset", "materialize", "--select", "keeper_sources")):
        done = project.run(*command)
        assert done.returncode != 0
        assert "keeper_first.yaml" in done.stdout
        assert "lora_rank" in done.stdout
    assert "Traceback" not in project.run("foundry", "check").stdout


def test_an_altered_source_rebuilds_and_an_unreadable_one_is_named(copy: Project) -> None:
    path = copy.root / "sources/keeper/manifests/logbook/winter.txt"
    text = path.read_text()
    path.write_bytes(b"\xff\xfe\x00broken")
    done = copy.materialize("keeper_sources")
    assert done.returncode != 0
    assert "winter.txt" in done.stdout
    path.write_text(text.replace("eleven winters", "twelve winters"))
    done = copy.materialize("keeper_sources,keeper_passages")
    assert done.returncode == 0, done.stdout[-3000:]
    stale = json.loads(copy.run("foundry", "trace", "keeper_first_eval", "--json").stdout)
    assert not all(n["current"] for n in stale["nodes"])


def test_doctor_finds_the_damage_and_frees_nothing_that_lives(copy: Project) -> None:
    assert copy.run("foundry", "doctor").returncode == 0
    pairs_file(copy).write_bytes(b"")
    done = copy.run("foundry", "doctor")
    assert done.returncode == 1
    assert f"foundry repair {DATASET}" in done.stdout
