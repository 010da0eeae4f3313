"""A dataset of six short pairs, and hyperparameters of a training that takes seconds."""

from __future__ import annotations

from typing import Any

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
