"""`foundry plan`: the record's step counts out of the declarations, and figures that say where they are from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from foundry_pipeline.chain.graph import load_chain
from foundry_pipeline.chain.planning import Rows, count_rows, plan
from foundry_pipeline.cli.plan import view
from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.lineage.store import Record
from foundry_pipeline.settings import Settings
from foundry_pipeline.training.keep import kept_steps
from foundry_pipeline.training.plan import effective, training_steps
from tests.conftest import ROOT
from tests.prepared import V2, prepare

# seed record: run → pairs shown, held out, steps
RECORD = {
    "madison_dpo_v1": (200, 0, 150),
    "madison_orpo_v3b": (475, 0, 356),
    "madison_orpo_v4": (1273, 0, 955),
    "madison_qwen3_v1": (1273, 128, 861),
    "madison_qwen3_v2": (1273, 128, 861),
    "madison_qwen3_v3": (1273, 128, 861),
    "madison_qwen3_v4": (1273, 128, 861),
    "madison_sft_v1": (510, 0, 383),
    "madison_sft_v2": (510, 0, 383),
    "madison_r2": (1498, 150, 1011),
}


def test_the_declarations_yield_the_counts_of_the_record(tmp_path: Path) -> None:
    d, chain = load_chain(Settings(ROOT, tmp_path, "full"))
    found = {}
    for name, run in d.runs.items():
        rows = count_rows(d, chain, run)
        found[name] = (rows.shown, rows.validation, training_steps(rows.training, effective(run, d.profile)))
        assert rows.source == "declared"
    assert found == RECORD
    assert kept_steps(d.runs["madison_qwen3_v4"].checkpoints, 861) == {"checkpoint-150": 150}


def test_the_full_plan_knows_the_declared_models_and_says_what_is_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d, chain = load_chain(Settings(ROOT, tmp_path, "full"))
    found = plan(d, chain, ["madison_orpo_v3b", "madison_r2"])
    gemma, qwen = found["runs"]
    for row in (gemma, qwen):
        assert row["parameters_as_declared"], "the architecture has as many parameters as the profile says"
        assert row["measured"] is None, "planned figures stand alone"
        memory = row["memory"]
        assert memory["nf4"]["total"] < memory["bfloat16"]["total"]
        assert 2 * row["shape"]["parameters"] == memory["bfloat16"]["weights"]
        assert row["planned"]["usd"] == pytest.approx(row["planned"]["seconds"] / 3600 * found["gpu"]["usd_per_hour"])
    assert qwen["trained_parameters"] == 536_870_912
    assert qwen["reported_steps"] == {"steps": 1011, "about": False}
    assert gemma["reported_steps"] == {"steps": 356, "about": True}
    # 6 N D for the forward and backward pass of all weights; frozen ones need no gradient, and layers are run twice
    model_flops = 6 * qwen["shape"]["linear"] * qwen["tokens"]
    assert 1.0 < qwen["planned"]["flops"] / model_flops < 1.3
    view(found)
    shown = capsys.readouterr().out
    assert "planned, not measured: NVIDIA A100 80GB" in shown
    assert "about 356" in shown
    assert "1,011" in shown


def test_a_base_of_unknown_architecture_is_told_with_what_mends_it(tmp_path: Path) -> None:
    d, chain = load_chain(Settings(ROOT, tmp_path, "full"))
    models = {n: m.model_copy(update={"architecture": None}) for n, m in d.profile.models.items()}
    d.profile.models.update(models)
    (row,) = plan(d, chain, ["madison_r2"])["runs"]
    assert row["steps"] == 1011
    assert row["shape"] is row["memory"] is row["planned"] is None
    assert "models.qwen3_32b.architecture" in row["shape_unknown"]
    assert "dagster asset materialize --select base_model_qwen3_32b" in row["shape_unknown"]


def adapter(name: str, *, method: str, rank: int, dataset: str, seconds: float, trained: int = 305280) -> Record:
    values = {"method": method, "lora_rank": rank, "epochs": 1}
    facts = {"rows_per_epoch": 10, "tokens": 3000, "seconds_per_pair": seconds, "effective": values, "method": method}
    facts |= {"trainable_parameters": trained * rank, "device": "cpu", "peak_memory_bytes": 2**31}
    return Record(f"{name}_adapter", "adapter", name, name, {dataset: {}}, {}, {}, "", facts)


def planned(tmp_path: Path, records: list[Record], run: str) -> dict[str, Any]:
    d, chain = load_chain(Settings(ROOT, tmp_path, "laptop"))
    chain.store.records = lambda: iter(records)  # type: ignore[method-assign]
    (row,) = plan(d, chain, [run])["runs"]
    return row


def test_without_a_gpu_time_is_what_the_closest_earlier_training_took(tmp_path: Path) -> None:
    records = [
        adapter("madison_orpo_v3b", method="orpo", rank=16, dataset="madison_dataset_v3b", seconds=0.5),
        adapter("madison_qwen3_v1", method="orpo", rank=64, dataset="madison_dataset_v4", seconds=0.7),
        adapter("madison_sft_v1", method="sft", rank=16, dataset="madison_dataset_sft", seconds=0.2),
        adapter("madison_other", method="orpo", rank=64, dataset="madison_dataset_v4", seconds=9.0, trained=1),
    ]
    row = planned(tmp_path, records, "madison_qwen3_v3")
    assert row["planned"] is None
    assert row["measured"]["of"] == "madison_qwen3_v1"
    assert row["measured"]["seconds"] == pytest.approx(0.7 * row["rows_per_epoch"])
    assert planned(tmp_path, records, "madison_sft_v2")["measured"]["of"] == "madison_sft_v1"
    assert planned(tmp_path, records[:2], "madison_dpo_v1")["measured"]["method"] == "orpo"
    # what supervised rows took says nothing of pairs, and another model's times nothing of this one's
    assert planned(tmp_path, records[2:], "madison_r2")["measured"] is None
    nothing = planned(tmp_path, [], "madison_r2")
    assert nothing["measured"] is nothing["tokens"] is None
    assert "unknown until" in nothing["lengths_source"]


def test_a_built_dataset_is_counted_as_training_splits_it(tmp_path: Path) -> None:
    project = prepare(tmp_path / "project")
    d, chain = load_chain(Settings(project.root, project.store, "tiny"))
    run = next(iter(d.runs.values())).model_copy(update={"dataset": V2, "validation_fraction": 0.3})
    frame = pl.read_parquet(chain.require(V2).artifact.payload / "pairs.parquet")
    shown = int(frame["upsample"].sum())
    rows = count_rows(d, chain, run)
    assert rows == Rows(frame.height, shown, rows.validation, "built dataset")
    assert 0 < rows.validation <= -(-shown * 3 // 10)
    assert rows.training == shown - rows.validation


def test_a_plan_goes_by_how_the_profile_says_that_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    d, chain = load_chain(Settings(ROOT, tmp_path, "full"))
    (one,) = plan(d, chain, ["madison_r2"])["runs"]

    def under(**compute: Any) -> dict[str, Any]:
        profile = d.profile.model_copy(update={"compute": Compute.model_validate(compute)})
        found = plan(replace(d, profile=profile), chain, ["madison_r2"])
        view(found)
        (row,) = found["runs"]
        return row

    four = under(processes=4, sharding="fsdp")
    # a quarter of the frozen layers, two of them whole, and all that is not shared out
    linear, layers = 2 * one["shape"]["linear"], one["shape"]["layers"]
    saved = one["memory"]["bfloat16"]["weights"] - four["memory"]["bfloat16"]["weights"]
    assert saved == pytest.approx(linear * (3 / 4 - 2 / layers), abs=2)
    assert four["memory"]["nf4"] == one["memory"]["nf4"]
    assert four["planned"]["seconds"] == pytest.approx(one["planned"]["seconds"] / 4)
    assert four["planned"]["usd"] == pytest.approx(one["planned"]["usd"])
    # a step has four pairs: half of eight processes would have nothing to do
    eight = under(processes=8, sharding="fsdp")
    assert eight["planned"]["usd"] == pytest.approx(2 * one["planned"]["usd"])
    kept = under(gradient_checkpointing=False)
    assert kept["memory"]["bfloat16"]["activations"] > 5 * one["memory"]["bfloat16"]["activations"]
    shown = capsys.readouterr().out
    assert "bf16 LoRA in 4 processes, each with its part of the frozen layers" in shown
    assert "does NOT fit into 80 GiB" in shown
    under(weights="nf4")
    assert "as declared: QLoRA nf4 in one process" in capsys.readouterr().out
