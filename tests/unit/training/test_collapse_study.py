"""The collapse study: which learning rates hold at which rank, found by real short trainings and told in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from training_examples import hyperparameters, small_pairs

from foundry_pipeline.declarations.guards import Guards
from foundry_pipeline.launch import ScriptSession, write_json
from foundry_pipeline.training import train
from foundry_pipeline.training.collapse import Cell, Study, rates_around, report, thresholds
from tests.unit.export.tiny_model import write_tiny


def cell(rate: float, rank: int, rule: str = "") -> Cell:
    return Cell(rate, rank, rule, 4 if rule else None, 3.25, 0.5, 0.9, "The union | `of` all.", 12.0)


def test_thresholds_are_told_by_rank() -> None:
    cells = [
        *(cell(2e-4, rank) for rank in (16, 64, 128)),
        cell(3.2e-3, 16), cell(3.2e-3, 64, "kl"), cell(3.2e-3, 128, "kl"),
        cell(5e-2, 16), cell(5e-2, 64, "chosen_logp"), cell(5e-2, 128),
        cell(2e-4, 256, "kl"),
    ]  # fmt: skip
    assert thresholds(cells) == [
        "rank 16: holds at every rate tried, up to 0.05",
        "rank 64: holds up to 0.0002, collapses from 0.0032 on",
        "rank 128: no single threshold: collapses at 0.0032 and holds at 0.05",
        "rank 256: collapses at every rate tried, from 0.0002 on",
    ]
    assert rates_around(2e-4) == (0.0002, 0.0008, 0.0032, 0.0128, 0.0512)


@pytest.fixture
def study(dense: Path, tmp_path: Path) -> Iterator[Study]:
    import torch

    parquet = tmp_path / "pairs.parquet"
    pl.DataFrame(small_pairs()).write_parquet(parquet)
    values = asdict(hyperparameters())
    spec = {
        "run": "small", "base_dir": str(write_tiny(tmp_path / "tiny", dense)), "base_hash": "b" * 64,
        "dataset_parquet": str(parquet), "dataset_hash": "d" * 64, "method": "orpo", "declared": {},
        "effective": values, "seed": 42, "threads": 1, "save_every_steps": 2, "tensorboard": str(tmp_path / "board"),
        "checkpoints": {"early": [1, 2]},
    }  # fmt: skip
    # A model of random weights has no answers to lose: that it has moved at all is what counts here.
    guards = Guards.model_validate({"kl": {"every_steps": 1, "max_nats": 0.05, "action": "roll_back"}, "probes": None})
    threads = torch.get_num_threads()
    yield Study(spec, rates=(1e-5, 5e-2), ranks=(4,), steps=5, guards=guards)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_cells_are_trained_once_and_told_in_a_table(study: Study, tmp_path: Path) -> None:
    trained: list[dict[str, Any]] = []

    def runner(_module: str, spec: Mapping[str, Any], work: Path) -> None:
        """The trainer's script, in this process."""
        work.mkdir(parents=True)
        trained.append(dict(spec))
        write_json(work / "result.json", train.run({**spec, "work": str(work)}, ScriptSession(None)))

    said: list[str] = []
    cells = study.run(tmp_path / "study", runner, said.append)
    held, fallen = cells
    assert (held.collapsed, fallen.collapsed) == (False, True)
    assert (fallen.rule, held.rule) == ("kl", "")
    assert fallen.step is not None
    assert fallen.step <= 5
    assert isinstance(fallen.kl, float)
    assert fallen.kl > 0.05 > float(held.kl or 0)
    assert said[-1].startswith(f"learning rate 0.05, rank 4: collapsed at step {fallen.step}")
    # The part of the data is the same for all cells, each pair shown once, and a study stops where a run would roll back.
    assert len({spec["dataset_hash"] for spec in trained}) == 1
    assert trained[0]["dataset_hash"] != "d" * 64
    drawn = pl.read_parquet(trained[0]["dataset_parquet"])
    assert (drawn.height, drawn["upsample"].to_list()) == (5, [1] * 5)
    assert {spec["guards"]["kl"]["action"] for spec in trained} == {"stop"}
    assert not any({"tensorboard", "checkpoints"} & spec.keys() for spec in trained)
    # Nothing but the findings is left, and they are found again.
    assert not [path for path in (tmp_path / "study").iterdir() if path.is_dir()]
    assert study.run(tmp_path / "study", runner, said.append) == cells
    assert len(trained) == 2

    page = report(study, cells)
    assert f"| 0.05 | **collapsed** at step {fallen.step} (kl)" in page
    assert "| 1e-05 | held; loss" in page
    assert "- rank 4: holds up to 1e-05, collapses from 0.05 on" in page
