"""A training that collapsed: marked once, refused at once, told to whoever waits for it, tried again when asked to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from foundry_pipeline.chain.collapses import collapse_of, collapsed_stage, retry
from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.stage import BuildContext, Built, Kind, Stage
from foundry_pipeline.cli.collapses import collapsed_rows, scores_with_collapses
from foundry_pipeline.errors import Collapsed, DamagedArtifact, FoundryError
from foundry_pipeline.launch import write_json
from foundry_pipeline.lineage.collapses import append_collapse, read_collapses, read_mark
from foundry_pipeline.lineage.ledger import read_scores
from foundry_pipeline.lineage.store import Store
from foundry_pipeline.settings import Settings
from foundry_pipeline.training.watch import error_of
from tests.unit.collapse_sample import record


@dataclass
class World:
    """A chain of three stages by hand: a dataset, an adapter that collapses until it is told to hold, a merged model."""

    chain: Chain
    holds: bool = False
    trained: list[str] = field(default_factory=list)

    def build(self, name: str) -> Any:
        return self.chain.materialize(name, run_script=_never, log=lambda _: None)


def _never(*_: Any) -> None:
    raise AssertionError("no script is to be started here")


@pytest.fixture
def world(tmp_path: Path) -> World:
    settings = Settings(root=tmp_path, store=tmp_path / "store", profile="tiny")
    made = World(Chain({}, Store(settings.store), settings))

    def payload(ctx: BuildContext) -> Built:
        folder = ctx.work / "payload"
        folder.mkdir(exist_ok=True)
        (folder / "file.txt").write_text(ctx.name.split("_")[-1])
        return Built(folder)

    def train(ctx: BuildContext) -> Built:
        made.trained.append(ctx.name)
        if made.holds:
            return payload(ctx)
        told = record(ctx.name.removesuffix("_adapter"))
        write_json(ctx.work / "collapse.json", told)
        raise error_of(told)

    def stage(name: str, kind: Kind, inputs: tuple[str, ...], build: Any, **declaration: Any) -> Stage:
        return Stage(name, kind, inputs, declaration, (), build, "keeper", shown={"base_title": "Small"})

    made.chain.stages = {
        s.name: s
        for s in (
            stage("keeper_dataset_v1", "dataset", (), payload),
            stage("keeper_hot_adapter", "adapter", ("keeper_dataset_v1",), train),
            stage("keeper_twin_adapter", "adapter", ("keeper_dataset_v1",), train),
            stage("keeper_cool_adapter", "adapter", ("keeper_dataset_v1",), train, learning_rate=1e-4),
            stage("keeper_hot_merged", "merged", ("keeper_hot_adapter",), payload),
            stage("keeper_hot_gguf", "gguf", ("keeper_hot_merged",), payload),
        )
    }
    made.build("keeper_dataset_v1")
    return made


def test_it_is_marked_and_the_same_inputs_say_so_at_once(world: World) -> None:
    with pytest.raises(Collapsed, match=r"keeper_hot collapsed at step 10 of 85, after 1 roll-back: "):
        world.build("keeper_hot_adapter")
    assert world.trained == ["keeper_hot_adapter"]
    with pytest.raises(Collapsed, match="keeper_hot collapsed at step 10 of 85") as again:
        world.build("keeper_hot_adapter")
    assert world.trained == ["keeper_hot_adapter"]
    assert "foundry retry keeper_hot" in again.value.mend
    found = collapse_of(world.chain, "keeper_hot")
    assert found is not None
    assert found["history"][-1]["kl"] == 5.4453
    assert found["attempt"] == 1
    # Nothing half-trained is kept, and nothing is taken for an adapter.
    assert list((world.chain.store.root / "work").iterdir()) == []
    assert world.chain.resolve("keeper_hot_adapter").record is None


def test_whoever_waits_for_it_is_told_why(world: World) -> None:
    with pytest.raises(Collapsed):
        world.build("keeper_hot_adapter")
    for ask in (world.build, world.chain.require):
        for name in ("keeper_hot_merged", "keeper_hot_gguf"):
            with pytest.raises(Collapsed, match="keeper_hot collapsed at step 10"):
                ask(name)
    with pytest.raises(Collapsed):
        world.chain.require("keeper_hot_adapter")
    told = {name: collapsed_stage(world.chain, world.chain.resolve(name)) for name in world.chain.stages}
    assert {name for name, why in told.items() if why} == {"keeper_hot_adapter", "keeper_twin_adapter"}


def test_it_stands_in_the_ledger_beside_the_scores_and_not_among_them(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    url = world.chain.settings.ledger_url
    for _ in range(2):
        with pytest.raises(Collapsed):
            world.build("keeper_hot_adapter")
    (row,) = read_collapses(url)
    dataset = world.chain.require("keeper_dataset_v1").artifact.content_hash
    assert {k: row[k] for k in ("run", "rule", "step", "roll_backs", "learning_rate", "dataset", "dataset_hash")} == {
        "run": "keeper_hot", "rule": "kl", "step": 10, "roll_backs": 1, "learning_rate": 0.05,
        "dataset": "keeper_dataset_v1", "dataset_hash": dataset,
    }  # fmt: skip
    assert read_scores(url) == []
    (shown,) = collapsed_rows(url, "keeper_hot")
    assert shown["overall"] is None
    assert shown["collapsed"]["rule"] == "kl"
    assert collapsed_rows(url, "another") == []
    scores_with_collapses([shown])
    printed = capsys.readouterr().out
    assert "no adapter, no score" in printed
    assert "10 of 85" in printed
    assert json.loads(json.dumps(shown, default=str))["run"] == "keeper_hot"


def test_a_run_of_equal_inputs_collapsed_with_it(world: World) -> None:
    with pytest.raises(Collapsed):
        world.build("keeper_hot_adapter")
    with pytest.raises(Collapsed, match="keeper_twin collapsed at step 10 of 85"):
        world.build("keeper_twin_adapter")
    assert world.trained == ["keeper_hot_adapter"]
    assert [row["run"] for row in read_collapses(world.chain.settings.ledger_url)] == ["keeper_hot", "keeper_twin"]
    # Another learning rate is another training.
    world.holds = True
    assert not world.build("keeper_cool_adapter").reused


def test_it_can_be_tried_once_more_and_its_record_is_kept(world: World) -> None:
    with pytest.raises(FoundryError, match="not marked as collapsed"):
        retry(world.chain, "keeper_hot")
    with pytest.raises(Collapsed):
        world.build("keeper_hot_adapter")
    kept = retry(world.chain, "keeper_hot")
    assert json.loads(Path(kept).read_text())["step"] == 10
    assert collapse_of(world.chain, "keeper_hot") is None
    with pytest.raises(Collapsed):
        world.build("keeper_hot_adapter")
    assert world.trained == ["keeper_hot_adapter"] * 2
    assert [row["attempt"] for row in read_collapses(world.chain.settings.ledger_url)] == [1, 2]
    retry(world.chain, "keeper_hot")
    world.holds = True
    assert not world.build("keeper_hot_adapter").reused
    assert not world.build("keeper_hot_merged").reused
    assert collapse_of(world.chain, "keeper_hot") is None


def test_a_row_that_could_not_be_written_is_written_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "not a database"
    place.write_text("x" * 5000)
    monkeypatch.setenv("FOUNDRY_LEDGER_URL", f"sqlite:///{place}")
    with pytest.raises(FoundryError, match="ledger"):
        world.build("keeper_hot_adapter")
    monkeypatch.delenv("FOUNDRY_LEDGER_URL")
    with pytest.raises(Collapsed):
        world.build("keeper_hot_adapter")
    assert world.trained == ["keeper_hot_adapter"]
    assert len(read_collapses(world.chain.settings.ledger_url)) == 1


def test_a_row_is_added_once_and_a_torn_mark_is_named(world: World) -> None:
    with pytest.raises(Collapsed):
        world.build("keeper_hot_adapter")
    url = world.chain.settings.ledger_url
    (row,) = read_collapses(url)
    again = {k: v for k, v in row.items() if k not in ("collapse_id", "recorded_at")}
    assert not append_collapse(url, again)
    path = world.chain.store.root / "collapsed" / f"{row['input_hash']}.json"
    path.write_text("{")
    with pytest.raises(DamagedArtifact, match="cannot be read") as caught:
        read_mark(world.chain.store, row["input_hash"])
    assert str(path) in caught.value.mend
