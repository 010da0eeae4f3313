"""A collapsed training under Dagster: the run fails, the check and the report say why, nothing downstream is built.

The trainer's own record is put in place of a training; the trainer is tested by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.stage import BuildContext, Built
from foundry_pipeline.declarations import Declarations
from foundry_pipeline.defs.assets import stage_asset
from foundry_pipeline.defs.partitions import placed_at
from foundry_pipeline.docs.descriptions import load_descriptions
from foundry_pipeline.launch import write_json
from foundry_pipeline.settings import load_settings
from foundry_pipeline.training.watch import error_of
from tests.project import Project, make_project
from tests.unit.collapse_sample import record

ADAPTER, MERGED = "keeper_first_adapter", "keeper_first_merged"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path / "project")
    monkeypatch.setenv("FOUNDRY_ROOT", str(made.root))
    monkeypatch.setenv("FOUNDRY_PROFILE", "tiny")
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)
    return made


@pytest.fixture
def chain(project: Project) -> tuple[Declarations, Chain]:
    d, chain = load_chain(load_settings())

    def train(ctx: BuildContext) -> Built:
        told = record()
        write_json(ctx.work / "collapse.json", told)
        raise error_of(told)

    chain.stages[ADAPTER] = replace(chain.stages[ADAPTER], inputs=(), gate=None, build=train)
    chain.stages[MERGED] = replace(chain.stages[MERGED], inputs=(ADAPTER,))
    return d, chain


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def test_it_fails_with_its_reason_and_is_shown_as_collapsed(
    project: Project, chain: tuple[Declarations, Chain], instance: dg.DagsterInstance
) -> None:
    d, graph = chain
    blocks = load_descriptions(project.root)
    assets = [stage_asset(d, graph, placed_at(graph, name), blocks) for name in (ADAPTER, MERGED)]
    resources = {"pipes": dg.PipesSubprocessClient()}
    for _ in range(2):  # the second time it is known
        run = dg.materialize(assets, instance=instance, resources=resources, raise_on_error=False)
        assert not run.success
        (check,) = run.get_asset_check_evaluations()
        assert not check.passed
        assert (check.check_name, check.severity) == ("guards_held", dg.AssetCheckSeverity.ERROR)
        assert "collapsed at step 10 of 85" in check.description
        told = {name: value.value for name, value in check.metadata.items()}
        assert (told["guard"], told["step"], told["attempt"]) == ("kl", 10, 1)
        assert "data:image/svg+xml" in told["KL divergence from the base curve"]
        assert "10000000" in told["sampled answers"]
        assert "<script" not in told["sampled answers"]
        assert "There is no score" in Path(told["report"]).read_text()
        (failed,) = run.get_step_failure_events()
        assert failed.step_key == ADAPTER
        assert "keeper_first collapsed at step 10 of 85" in str(failed.step_failure_data.error)
    assert instance.get_latest_materialization_event(dg.AssetKey(ADAPTER)) is None
    # Launched alone, what waits for it says why it cannot be built.
    alone = dg.materialize(assets, instance=instance, resources=resources, raise_on_error=False, selection=[MERGED])
    (failed,) = alone.get_step_failure_events()
    assert "keeper_first collapsed at step 10 of 85" in str(failed.step_failure_data.error)
    assert alone.get_asset_check_evaluations() == []


def test_the_commands_show_it(project: Project) -> None:
    """With the chain as it is declared: its mark lies where the trainer's stage would put it."""
    from foundry_pipeline.lineage.collapses import append_collapse, write_mark
    from foundry_pipeline.lineage.store import Store

    told = record()
    mark = write_mark(Store(project.store), "a" * 64, told)
    row = {
        "run": "keeper_first", "profile": "tiny", "rule": "kl", "step": 10, "steps": 85, "told": told["told"],
        "roll_backs": 1, "method": "orpo", "learning_rate": 0.05, "lora_rank": 64, "dataset": "keeper_dataset_v1",
        "dataset_hash": "d" * 64, "base_model": "Small", "input_hash": "a" * 64, "attempt": mark["attempt"],
        "seconds": 31.5, "code_version": "c",
    }  # fmt: skip
    assert append_collapse(f"sqlite:///{project.store / 'ledger.db'}", row)
    (row,) = json.loads(project.run("foundry", "scores", "--json").stdout)
    assert (row["run"], row["overall"], row["collapsed"]["step"]) == ("keeper_first", None, 10)
    assert json.loads(project.run("foundry", "scores", "--json", "--mode", "adapter").stdout) == []
