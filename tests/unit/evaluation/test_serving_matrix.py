"""The serving matrix joins what others have measured, and leaves open what nobody has."""

from __future__ import annotations

import polars as pl
import pytest

from foundry_pipeline.declarations import load
from foundry_pipeline.declarations.sources import Character
from foundry_pipeline.evaluation.serving_matrix import MATRIX, serving_matrix
from tests.conftest import ROOT

NEAR = {"mean_kl": 0.02, "median_kl": 0.01, "p99_kl": 0.2, "max_kl": 0.4, "top1": 0.93, "nats_change": 0.001}


@pytest.fixture(scope="module")
def madison() -> Character:
    return load(ROOT, "laptop").characters["madison"].character


def judged(mean: float | None) -> dict:
    overall = {"mean": mean, "low": mean and mean - 0.2, "high": mean and mean + 0.2, "n": 2}
    return {"overall": overall, "critical_failures": 1, "nats_per_token": 3.63}


def test_every_mode_has_a_row_and_what_is_not_known_is_empty(madison: Character) -> None:
    summary = {
        "modes": {"base": judged(3.0), "q4_k_m": judged(5.9), "checkpoint-150": judged(None)},
        "paired": {"q4_k_m": {"difference": 2.9, "low": 2.5, "high": 3.3, "n": 2, "against": "base"}},
    }
    answers = pl.DataFrame(
        {
            "mode": ["base", "base", "q4_k_m", "q4_k_m"],
            "answer": [
                "As an AI language model, I have no opinion.",
                "I hope this helps! Let me know if you have further questions.",
                "I have ever held that a power not given ought not to be assumed.",
                "As an AI, I cannot say.",
            ],
        }
    )
    sizes = {"base": 270, "adapter": 289, "f16": 271, "q4_k_m": 105}
    frame = serving_matrix(summary, answers, {"adapter": NEAR, "q4_k_m": NEAR}, sizes, madison)
    assert frame.schema == MATRIX
    rows = {r["mode"]: r for r in frame.iter_rows(named=True)}
    assert list(rows) == ["base", "adapter", "f16", "q4_k_m", "checkpoint-150"]
    assert rows["base"]["break_rate"] == 1.0
    assert rows["q4_k_m"]["break_rate"] == 0.5
    assert (rows["q4_k_m"]["overall"], rows["q4_k_m"]["difference"], rows["q4_k_m"]["bytes"]) == (5.9, 2.9, 105)
    assert rows["adapter"]["mean_kl"] == 0.02
    assert rows["adapter"]["overall"] is None
    assert rows["adapter"]["break_rate"] is None
    assert rows["base"]["mean_kl"] is None
    assert rows["f16"]["answers"] == 0
    assert rows["checkpoint-150"]["bytes"] is None
    assert rows["checkpoint-150"]["overall"] is None
