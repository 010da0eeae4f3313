"""The record that a trainer leaves when a guard stops it: small, true in form, hostile in its texts."""

from __future__ import annotations

from typing import Any

HOSTILE = "<script>alert(1)</script> 10000000 [bold]x[/bold] \x1b[31m‮ | `code`"


def record(run: str = "keeper_first", **changes: Any) -> dict[str, Any]:
    told = "the KL divergence from the base went from 0.0150 at step 5 to 5.4453 nats per token; a rise of 2 is allowed"
    history: list[dict[str, Any]] = [
        {"step": step, "loss": 4.5 - 0.05 * step, "grad_norm": 1.0, "chosen_logp": -3.6} for step in range(1, 10)
    ]
    history[4]["kl"] = 0.015
    history.append({"step": 10, "loss": 9.8, "grad_norm": "inf", "chosen_logp": -9.1, "kl": 5.4453, "distinct_2": 0.04})
    effective = {"method": "orpo", "learning_rate": 0.05, "lora_rank": 64, "lora_alpha": 64}
    made = {
        "run": run,
        "method": "orpo",
        "declared": effective,
        "effective": effective,
        "guards": {},
        "seed": 42,
        "base_hash": "b" * 64,
        "dataset_hash": "d" * 64,
        "rule": "kl",
        "action": "stop",
        "step": 10,
        "told": told,
        "value": 5.4453,
        "bound": 2.015,
        "fingerprint": "f" * 64,
        "steps": 85,
        "history": history,
        "events": [
            {
                "rule": "kl", "action": "roll_back", "step": 8, "told": "it rose", "value": 3.0, "bound": 2.0,
                "done": "rolled back", "to_step": 5, "learning_rate": 0.025,
            }
        ],
        "samples": [{"prompt": "What is a faction?", "answer": HOSTILE}],
        "seconds": 31.5,
    }  # fmt: skip
    return made | changes
