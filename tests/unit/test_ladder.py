"""The ladder over a store whose artifacts were written by hand: measured beside reported, nothing made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from foundry_pipeline.chain.engine import Chain
from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.ladder import ladder, selection
from foundry_pipeline.chain.modes import adapter_of, serving_modes
from foundry_pipeline.chain.scores import score_rows
from foundry_pipeline.chain.stage import Stage
from foundry_pipeline.cli import ladder as cli
from foundry_pipeline.declarations import Declarations, load
from foundry_pipeline.errors import DeclarationError, FoundryError
from foundry_pipeline.lineage.hashing import digest, folder_files, folder_hash
from foundry_pipeline.reports.ladder_data import gather_ladder
from foundry_pipeline.reports.ladder_report import write_ladder_report
from foundry_pipeline.settings import Settings
from foundry_pipeline.statistics.proportions import wilson
from tests.prepared import publish_made
from tests.project import make_project

REPORTED = {
    "status": "reported",
    "source": "a record of another place",
    "configurations": [{"run": "evaluation of all runs", "judge": "Another Judge"}],
    "scores": [
        {"row": "first-q4", "run": "keeper_first", "serving": "somewhere", "measured_as": "q4_k_m", "base": "Large One",
         "dataset": "v1", "pairs": "8", "raw": 1.74, "corrected": None, "date": "2026-01-01", "critical_failures": 3},
        {"row": "second", "run": "keeper_second", "base": "Large Two", "dataset": "v1", "pairs": "8", "raw": 8.8,
         "corrected": 8.81, "date": "2026-01-02"},
        {"row": "named-3", "run": "keeper_named", "measured_as": "checkpoint-3", "base": "Large Two", "dataset": "v1",
         "pairs": "8", "raw": 6.8, "date": "2026-01-03"},
    ],
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Four runs: two that differ only in their base, one with a named checkpoint, one that nothing is reported of."""
    root = make_project(tmp_path / "project").root
    for folder in (root / "sources/madison", root / "assets/runs", root / "assets/datasets", root / "assets/evals"):
        for path in sorted(folder.rglob("madison*.yaml") if folder.name != "madison" else folder.rglob("*")):
            if path.is_file():
                path.unlink()
    (root / "sources/keeper/reported").mkdir()
    (root / "sources/keeper/reported/scores.yaml").write_text(yaml.safe_dump(REPORTED))
    first = yaml.safe_load((root / "assets/runs/keeper_first.yaml").read_text())
    for name, changes in {
        "keeper_first": {"reported": ["first-q4"]},
        "keeper_second": {"base": "gemma3_27b", "reported": ["second"]},
        "keeper_named": {
            "learning_rate": 1.0e-4,
            "modes": ["base", "adapter"],
            "checkpoints": {"checkpoint-3": {"step": 3, "of": 12}},
            "reported": ["named-3"],
        },
        "keeper_untold": {"learning_rate": 3.0e-4},
    }.items():
        (root / f"assets/runs/{name}.yaml").write_text(yaml.safe_dump({**first, **changes, "run": name}))
    return root


def opened(project: Path) -> tuple[Declarations, Chain]:
    return load_chain(Settings(project, project / ".foundry", "tiny"))


def summary(modes: tuple[str, ...]) -> dict[str, Any]:
    def one(i: int) -> dict[str, Any]:
        interval = {"mean": 3.0 + i, "low": 2.5 + i, "high": 3.5 + i}
        return {"overall": interval, "raw_overall": interval, "categories": {}, "difficulties": {}, "components": {},
                "critical_failures": i, "unscored": 0, "nats_per_token": 4.0 - i / 10}  # fmt: skip

    tuned = {
        m: {"difference": float(i), "low": i - 0.5, "high": i + 0.5, "n": 3} for i, m in enumerate(modes) if m != "base"
    }
    judge = {"name": "rubric-local", "version": "1"}
    return {
        "judge": judge,
        "suite_hash": "s",
        "prompts": 3,
        "modes": {m: one(i) for i, m in enumerate(modes)},
        "paired": tuned,
    }


def scores(modes: tuple[str, ...]) -> pl.DataFrame:
    """Three questions, all of which a mode answers by as much better as it stands further down the list."""
    return pl.DataFrame(
        [{"mode": m, "prompt_id": f"q{n}", "category": "ground_truth", "answer": "As an AI, no." if n else "I keep it.",
          "overall": 3.0 + i}
         for i, m in enumerate(modes) for n in range(3)]
    )  # fmt: skip


def publish(d: Declarations, chain: Chain, name: str) -> None:
    """An artifact of this stage and of all it needs, as small as they can be, under the hashes the chain looks for."""
    stage: Stage = chain.stages[name]
    for needed in stage.inputs:
        publish(d, chain, needed)
    found = chain.resolve(name)
    if found.record is not None:
        return
    assert found.input_hash is not None, found.missing
    payload = chain.store.work(found.input_hash) / "payload"
    payload.mkdir(parents=True)
    facts: dict[str, Any] = {"build_seconds": 60.0}
    if stage.kind == "adapter":
        (payload / "adapter_model.safetensors").write_text(digest(stage.declaration))
        facts |= {"steps": 8}
        if name.startswith("keeper_named"):
            (payload / "checkpoints/checkpoint-3").mkdir(parents=True)
            (payload / "checkpoints/checkpoint-3/adapter_model.safetensors").write_text("the second of eight steps")
            facts |= {"checkpoints": {"checkpoint-3": 2}}
    elif stage.kind == "eval":
        (payload / "summary.json").write_text(json.dumps(summary(tuple(stage.declaration["modes"]))))
        scores(tuple(stage.declaration["modes"])).write_parquet(payload / "scores.parquet")
    else:
        (payload / "made_by_hand.txt").write_text(name)
    publish_made(chain, name, payload, facts)


def test_nothing_built_is_told_with_the_command_and_no_figure(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d, chain = opened(project)
    found = ladder(d, chain)
    assert [(r["run"], r["mode"], r["state"]) for r in found["rows"]] == [
        ("keeper_first", "q4_k_m", "not built"),
        ("keeper_second", "adapter", "not built"),
        ("keeper_named", "checkpoint-3", "not built"),
        ("keeper_untold", "adapter", "not built"),
    ]
    assert not found["complete"]
    assert all(r["measured"] is None for r in found["rows"])
    assert found["rows"][0]["mend"] == "dagster asset materialize --select '*keeper_first_eval'"
    cli.view(found)
    shown = capsys.readouterr().out
    assert "not built: keeper_first, keeper_second, keeper_named, keeper_untold" in shown
    assert "8.80" in shown
    assert "reported: by Another Judge" in shown


def test_measured_stands_beside_reported_and_twins_say_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    d, chain = opened(project)
    for run in d.runs:
        publish(d, chain, f"{run}_eval")
    found = ladder(d, chain)
    assert found["complete"]
    rows = {r["run"]: r for r in found["rows"]}
    assert rows["keeper_first"]["measured"]["overall"] == 6.0  # the fourth of its modes
    assert rows["keeper_first"]["measured"]["against_base_verdict"] == "no claim at n=3"  # 2 of 8 exchanges go as far
    assert rows["keeper_first"]["reported"]["raw"] == 1.74
    assert rows["keeper_untold"]["reported"] is None
    named = rows["keeper_named"]["measured"]
    assert (named["at_step"], named["steps"], named["overall"]) == (2, 8, 5.0)
    first, second = (rows[f"keeper_{n}"]["measured"]["adapter_hash"] for n in ("first", "second"))
    assert first == second
    assert "only their bases differ (small and gemma3_27b)" in rows["keeper_first"]["notes"][0]
    assert "as keeper_first" in rows["keeper_second"]["notes"][0]
    assert rows["keeper_untold"]["notes"] == []
    assert rows["keeper_named"]["notes"] == []
    cli.view(found)
    shown = capsys.readouterr().out
    assert "4 runs, 4 score rows" in shown
    assert "checkpoint-3 (step 2 of 8)" in shown
    assert "stands for both here" in " ".join(shown.split())
    assert json.loads(json.dumps(found)) == found
    data = gather_ladder(d, chain)
    first, second, named, _ = data.rungs
    assert (first.same, second.same, named.same) == (("keeper_second",), ("keeper_first",), ())
    assert first.breaks == wilson(2, 3).as_dict()
    assert [r.against_highest is None for r in data.rungs].count(True) == 1
    assert {r.against_highest.verdict for r in data.rungs if r.against_highest} == {"no claim at n=3"}
    assert data.reported_rates == {}
    path = write_ladder_report(chain, d)
    assert path.read_text(encoding="utf-8").count("the same adapter as") == 1


def test_a_kept_adapter_has_a_hash_of_its_own_in_the_ledger(project: Path) -> None:
    d, chain = opened(project)
    publish(d, chain, "keeper_named_eval")
    rows = {r["mode"]: r for r in score_rows(chain, d, chain.require("keeper_named_eval"))}
    adapter = chain.require("keeper_named_adapter").artifact
    folder, kept = adapter_of(adapter, "checkpoint-3")
    assert kept == folder_hash(folder_files(folder)) == rows["checkpoint-3"]["adapter_hash"]
    assert rows["adapter"]["adapter_hash"] == adapter.content_hash != kept
    with pytest.raises(FoundryError, match="holds no adapter named checkpoint-9"):
        adapter_of(adapter, "checkpoint-9")


def test_a_checkpoint_is_a_mode_that_needs_the_adapter_and_no_export(project: Path) -> None:
    d, chain = opened(project)
    run = d.runs["keeper_named"]
    assert serving_modes(run, d.evaluations[run.evaluation]) == ("base", "adapter", "checkpoint-3")
    inputs = chain.stages["keeper_named_responses"].inputs
    assert "keeper_named_adapter" in inputs
    assert not {"keeper_named_merged", "keeper_named_gguf"} & set(inputs)


def test_only_a_run_that_names_checkpoints_is_another_training_for_it(project: Path) -> None:
    _, chain = opened(project)
    assert chain.stages["keeper_named_adapter"].declaration["checkpoints"] == {"checkpoint-3": [3, 12]}
    assert "checkpoints" not in chain.stages["keeper_first_adapter"].declaration


def test_the_selection_names_every_evaluation() -> None:
    assert selection(["a", "b"]) == '+key:"a_eval" or +key:"b_eval"'


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"checkpoints": {"checkpoint-3": {"step": 13, "of": 12}}}, "beyond the 12 steps"),
        ({"checkpoints": {"../escape": {"step": 1, "of": 2}}}, "checkpoints"),
        ({"checkpoints": {"adapter": {"step": 1, "of": 2}}}, "checkpoints"),
        ({"checkpoints": {"checkpoint-3": {"step": 0, "of": 12}}}, "greater than or equal to 1"),
        ({"modes": ["adapter"]}, "must hold `base`"),
        ({"checkpoints": {}}, "is set beside mode `checkpoint-3`"),
        ({"accumulation": "sometimes"}, "accumulation"),
    ],
)
def test_a_bad_declaration_is_named(project: Path, changes: dict[str, Any], says: str) -> None:
    path = project / "assets/runs/keeper_named.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    with pytest.raises(DeclarationError) as error:
        load(project, "tiny")
    assert says in str(error.value)
    assert "keeper_named.yaml" in str(error.value)
