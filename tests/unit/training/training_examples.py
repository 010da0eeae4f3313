"""A dataset of six short pairs, hyperparameters and spec of a training that takes seconds, and a session that can be cut off."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from foundry_pipeline.launch import ScriptSession
from foundry_pipeline.training.plan import Hyperparameters


def small_pairs() -> list[dict[str, Any]]:
    """Six pairs of a few words; one is shown twice an epoch."""
    topics = ["union", "faction", "senate", "treaty", "embargo", "census"]
    return [
        {
            "pair_id": f"{number:064x}",
            "prompt_id": f"prompt_{topic}",
            "prompt": f"What of the {topic}?",
            "chosen": f"The {topic} hath ever been the object of my solicitude.",
            "rejected": f"It's a cool thing, the {topic}!",
            "upsample": 2 if topic == "senate" else 1,
        }
        for number, topic in enumerate(topics)
    ]


def hyperparameters(**changes: Any) -> Hyperparameters:
    """A training of seconds: rank 4, one pair a step."""
    values: dict[str, Any] = {
        "method": "orpo",
        "epochs": 2,
        "learning_rate": 2e-4,
        "beta": 0.1,
        "lora_rank": 4,
        "lora_alpha": 4,
        "lora_targets": "all-linear",
        "batch_size": 1,
        "gradient_accumulation": 1,
        "max_grad_norm": 1.0,
        "max_length": 128,
        "warmup_fraction": 0.1,
        "scheduler": "cosine",
        "optimizer": "adamw",
        "precision": "bfloat16",
        "validation_fraction": 0.0,
    }
    return Hyperparameters(**values | changes)


def spec_for(base: Path, folder: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """Writes a dataset into `folder` and returns a spec for it, without `work`."""
    parquet = folder / "pairs.parquet"
    pl.DataFrame(rows or small_pairs()).write_parquet(parquet)
    values = asdict(hyperparameters(**changes))
    return {
        "run": "small",
        "base_dir": str(base),
        "base_hash": "b" * 64,
        "dataset_parquet": str(parquet),
        "dataset_hash": "d" * 64,
        "method": values["method"],
        "declared": {},
        "effective": values,
        "seed": 42,
        "threads": 2,
        "save_every_steps": 2,
    }


class Quiet(ScriptSession):
    """A session that remembers what it was told, and may be cut off at a step, as a kill would."""

    def __init__(self, cut_at: int | None = None) -> None:
        super().__init__(None)
        self.said: list[str] = []
        self._cut_at = cut_at

    def log(self, message: str) -> None:
        self.said.append(message)

    def progress(self, done: int, total: int, **metrics: float | int | str) -> None:
        if done == self._cut_at:
            raise KeyboardInterrupt
