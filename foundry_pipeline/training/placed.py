"""The model of one process of a training, on the device that falls to it, its weights shared out where the profile says so.

model, tokenizer = load_placed(spec, values, compute, "cuda:0", team, local_rank=0)
what_it_came_to(compute, "cuda:0")     # {"sharding": "fsdp", "processes": 4, "attention": "sdpa", …}, for the manifest
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.training import machine
from foundry_pipeline.training.adapters import attention_kind, load_trainable, recomputes
from foundry_pipeline.training.plan import Hyperparameters
from foundry_pipeline.training.sharding import mesh_of, share_out
from foundry_pipeline.training.team import Team


def load_placed(
    spec: dict[str, Any], values: Hyperparameters, compute: Compute, device: str, team: Team, local_rank: int
) -> tuple[Any, Any]:
    """Model and tokenizer in this process. Weights that are shared out pass main memory whole, so the processes of a
    machine load them one after the other."""
    base = Path(spec["base_dir"])
    if compute.sharding == "none":
        return load_trainable(base, values, compute, device)
    team.in_step = True
    mesh = mesh_of(team, device)

    def load() -> tuple[Any, Any]:
        # Each has waited for the others: the adapter's first values are to be the same in all.
        machine.reseed(spec["seed"])
        model, tokenizer = load_trainable(base, values, compute, device)
        share_out(model, mesh, device)
        return model, tokenizer

    return team.in_turn(local_rank, load)


def what_it_came_to(compute: Compute, device: str) -> dict[str, Any]:
    """What the profile's `compute` came to here, for the manifest; empty where the profile says nothing of it."""
    decided = {"attention": attention_kind(compute, device), "gradient_checkpointing": recomputes(compute, device)}
    return {**compute.deciding(), **decided} if compute.deciding() else {}
