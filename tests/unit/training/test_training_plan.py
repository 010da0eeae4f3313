"""Step counts and effective values, against the canonical record of the Madison runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations.assets import Profile, Run
from foundry_pipeline.declarations.common import Accumulation
from foundry_pipeline.training.curriculum import windows
from foundry_pipeline.training.plan import (
    Hyperparameters,
    declared,
    effective,
    fingerprint,
    steps_per_epoch,
    total_steps,
    training_spec,
    validation_rows,
    warmup_steps,
)


def make_run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "run": "r2",
        "character": "madison",
        "description": "-",
        "method": "orpo",
        "base": "qwen3_32b",
        "dataset": "v6",
        "evaluation": "suite",
        "epochs": 3,
        "learning_rate": 2e-5,
        "lora_rank": 64,
        "lora_alpha": 64,
        "batch_size": 1,
        "gradient_accumulation": 4,
        "max_grad_norm": 1.0,
        "max_length": 2048,
        "warmup_fraction": 0.1,
        "validation_fraction": 0.1,
    }
    return Run(**values | changes)


def make_profile(**changes: Any) -> Profile:
    """A profile with the fields that training reads; the rest is taken as given."""
    values: dict[str, Any] = {
        "epochs": None,
        "learning_rate_factor": 1.0,
        "precision": "bfloat16",
        "optimizer": "adamw_8bit",
        "max_length": 2048,
    }
    return Profile.model_construct(**values | changes)


@pytest.mark.parametrize(
    ("rows", "held_out", "accumulation", "steps"),
    [
        (1273, 0.1, "within_epochs", 861),  # Qwen 3 v1 to v4
        (1498, 0.1, "within_epochs", 1011),  # Qwen 3 R2
        (475, 0.0, "across_epochs", 356),  # v3b
        (1273, 0.0, "across_epochs", 955),  # v4 on Gemma
        (510, 0.0, "across_epochs", 383),  # SFT
        (475, 0.0, "within_epochs", 357),  # as the Trainer would count it
    ],
)
def test_steps_of_the_canonical_runs(rows: int, held_out: float, accumulation: str, steps: int) -> None:
    values = effective(make_run(validation_fraction=held_out, accumulation=accumulation), make_profile())
    assert total_steps(rows, values) == steps


@given(
    rows=st.integers(1, 60),
    epochs=st.integers(1, 4),
    size=st.integers(1, 9),
    accumulation=st.sampled_from(["within_epochs", "across_epochs"]),
)
def test_the_steps_counted_are_the_steps_taken(rows: int, epochs: int, size: int, accumulation: Accumulation) -> None:
    run = make_run(epochs=epochs, gradient_accumulation=size, validation_fraction=0.0, accumulation=accumulation)
    steps = windows("shuffle", ["base"] * rows, seed=1, epochs=epochs, size=size, accumulation=accumulation)
    assert len(steps) == total_steps(rows, effective(run, make_profile()))
    assert Counter(row for step in steps for row in step) == dict.fromkeys(range(rows), epochs)
    if accumulation == "across_epochs" and rows * epochs >= size:
        assert all(len(step) == size for step in steps[:-1])
        assert size <= 2 * len(steps[-1]) < 3 * size


def test_a_spec_names_the_checkpoints_of_its_run_and_another_name_is_another_training() -> None:
    run = make_run(checkpoints={"checkpoint-150": {"step": 150, "of": 861}})
    profile = make_profile(threads=2, save_every_steps=10)
    places = {"base_dir": Path("b"), "base_hash": "b", "dataset_parquet": Path("d"), "dataset_hash": "d"}
    spec, plain = training_spec(run, profile, **places), training_spec(make_run(), profile, **places)
    assert spec["checkpoints"] == {"checkpoint-150": [150, 861]}
    assert fingerprint(spec, {}) != fingerprint(plain, {})
    assert fingerprint(plain, {}) == fingerprint({k: v for k, v in plain.items() if k != "checkpoints"}, {})


def test_the_profile_changes_what_it_says_and_nothing_else() -> None:
    run = make_run()
    laptop = make_profile(epochs=1, learning_rate_factor=10, max_length=512, optimizer="adamw", precision="float32")
    values = effective(run, laptop)
    changed = {"epochs": 1, "learning_rate": 2e-4, "max_length": 512, "optimizer": "adamw"}
    assert values == Hyperparameters(**declared(run) | changed | {"precision": "float32"})
    assert values.learning_rate == 0.0002
    assert declared(run)["learning_rate"] == 2e-5
    assert declared(run)["epochs"] == 3
    assert declared(run)["max_length"] == 2048


def test_a_profile_never_lengthens_a_run() -> None:
    assert effective(make_run(max_length=256), make_profile(max_length=2048)).max_length == 256


@pytest.mark.parametrize(
    ("rows", "fraction", "expected"), [(1273, 0.1, 128), (1498, 0.1, 150), (100, 0.07, 7), (475, 0.0, 0)]
)
def test_rows_held_out(rows: int, fraction: float, expected: int) -> None:
    assert validation_rows(rows, fraction) == expected


def test_warmup_is_rounded_up_from_the_exact_product() -> None:
    assert [warmup_steps(steps, 0.1) for steps in (30, 31, 861)] == [3, 4, 87]


@given(rows=st.integers(1, 5000), batch=st.integers(1, 16), accumulation=st.integers(1, 16))
def test_every_row_is_in_a_step_and_no_step_is_empty(rows: int, batch: int, accumulation: int) -> None:
    steps = steps_per_epoch(rows, batch, accumulation)
    assert (steps - 1) * batch * accumulation < rows <= steps * batch * accumulation


def test_the_fingerprint_covers_the_numbers_and_not_the_folders() -> None:
    spec = {
        "run": "r2",
        "base_hash": "b",
        "dataset_hash": "d",
        "method": "orpo",
        "effective": {"learning_rate": 1e-4},
        "seed": 1,
        "threads": 2,
        "work": "one",
        "base_dir": "here",
    }
    same = spec | {"work": "two", "base_dir": "there"}
    assert fingerprint(spec, {"torch": "2"}) == fingerprint(same, {"torch": "2"})
    different = [
        fingerprint(spec, {"torch": "3"}),
        *(
            fingerprint(spec | change, {"torch": "2"})
            for change in ({"seed": 2}, {"threads": 1}, {"dataset_hash": "x"})
        ),
    ]
    assert len({fingerprint(spec, {"torch": "2"}), *different}) == 5
