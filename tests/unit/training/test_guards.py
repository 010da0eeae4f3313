"""The rules on a training's figures: they fire on what collapses, and on nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from foundry_pipeline.declarations.guards import UNGUARDED, Guards
from foundry_pipeline.training.guards import judge, probe_figures
from foundry_pipeline.training.plan import fingerprint

HEALTHY_PROBE = {"distinct_2": 0.9, "repetition": 0.05, "length_share": 1.0}


def row(step: int, **figures: float) -> dict[str, float]:
    return {"step": step, "loss": 4.0, "grad_norm": 1.0, "chosen_logp": -3.7, **figures}


def rules(history: list[dict[str, float]], guards: Guards | None = None) -> list[str]:
    return [finding.rule for finding in judge(history, guards or Guards())]


def test_a_healthy_training_is_left_alone() -> None:
    # Windows of four pairs differ by a nat and more, the log-probability rises, the distance grows by degrees.
    history = [
        row(step, chosen_logp=-3.9 + 0.01 * step + 0.5 * math.sin(3 * step), loss=4.7 - 0.02 * step)
        for step in range(1, 91)
    ]
    for at in range(4, 90, 5):
        history[at]["kl"] = 0.02 * at
    history[29] |= HEALTHY_PROBE
    assert not any(judge(history[:end], Guards()) for end in range(1, len(history) + 1))


def test_the_jump_of_the_known_collapse_is_found_and_the_same_distance_by_degrees_is_not() -> None:
    (finding,) = judge([row(40, kl=0.015), row(50, kl=5.4453)], Guards())
    assert (finding.rule, finding.action, finding.step) == ("kl", "stop", 50)
    assert finding.value == 5.4453
    assert finding.bound == pytest.approx(2.015)
    assert "from 0.0150 at step 40 to 5.4453" in finding.told
    assert rules([row(5 * i, kl=0.5 * i) for i in range(1, 12)]) == []
    # Between two measurements lie steps without one.
    assert rules([row(40, kl=0.015), row(41), row(42), row(50, kl=5.4453)]) == ["kl"]
    # The first is measured against the untrained model, from which the distance is nothing.
    assert rules([row(5, kl=3.5)]) == ["kl"]
    assert rules([row(95, kl=5.9), row(100, kl=6.1)]) == ["kl"]
    assert rules([row(95, kl=6.1), row(96)]) == []


@pytest.mark.parametrize("name", ["loss", "grad_norm", "kl"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stops_the_training(name: str, value: float) -> None:
    assert "not_finite" in rules([row(1), row(2, **{name: value})], UNGUARDED)


def test_chosen_answers_that_become_unlikely() -> None:
    steady = [row(step) for step in range(1, 6)]
    (finding,) = judge([*steady, row(6, chosen_logp=-12.0)], Guards())
    assert finding.rule == "chosen_logp"
    assert finding.value == pytest.approx((-3.7 - 3.7 - 12) / 3)
    assert rules([*steady, row(6, chosen_logp=-6.0)]) == []
    # Below the best it has been, not below where it began.
    better = [row(step, chosen_logp=-0.5) for step in range(6, 10)]
    assert rules([*steady, *better, *(row(10 + i, chosen_logp=-3.4) for i in range(3))]) == ["chosen_logp"]


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"distinct_2": 0.1}, "different"),
        ({"repetition": 0.9}, "repeat"),
        ({"length_share": 0.05}, "times as long"),
    ],
)
def test_probes_that_show_a_collapse(figures: dict[str, float], word: str) -> None:
    (finding,) = judge([row(30, **{**HEALTHY_PROBE, **figures})], Guards())
    assert finding.rule == "probes"
    assert word in finding.told


def test_the_gravest_finding_comes_first_and_a_guard_can_be_turned_off() -> None:
    guards = Guards.model_validate({"kl": {"action": "roll_back"}, "chosen_logp": {"action": "warn"}})
    bad = [row(1), row(2, chosen_logp=-30.0, kl=9.0, loss=math.nan)]
    assert [(f.rule, f.action) for f in judge(bad, guards)] == [
        ("not_finite", "stop"),
        ("kl", "roll_back"),
        ("chosen_logp", "warn"),
    ]
    assert rules(bad, UNGUARDED) == ["not_finite"]
    assert judge([], Guards()) == []


@given(
    st.lists(st.floats(-4.6, -2.2), min_size=1, max_size=60),
    st.lists(st.floats(0, 1.9), min_size=1, max_size=60),
)
def test_no_figures_within_the_bounds_ever_fire(chosen: list[float], kl: list[float]) -> None:
    history = [row(i + 1, chosen_logp=a, kl=b) for i, (a, b) in enumerate(zip(chosen, kl, strict=False))]
    assert judge(history, Guards()) == []


@given(st.floats(0, 5), st.floats(2.001, 50))
def test_every_jump_beyond_the_bound_fires(before: float, jump: float) -> None:
    assert rules([row(1, kl=before), row(2, kl=before + jump)])[-1:] == ["kl"]


def test_figures_of_sampled_answers() -> None:
    loop = [1, 0, 0, 0, 0, 0, 0, 0] * 4
    figures = probe_figures([loop] * 4, [32] * 4)
    assert figures["distinct_2"] < 0.05
    assert figures["repetition"] > 0.75
    assert figures["length_share"] == 1
    # Every answer is varied in itself, but it is always the same one.
    always = probe_figures([list(range(30))] * 4, [30] * 4)
    assert always == {"distinct_2": 0.25, "repetition": 0.0, "length_share": 1.0}
    assert rules([row(30, **always)]) == ["probes"]
    assert probe_figures([[], []], [20, 12]) == {"distinct_2": 1.0, "repetition": 0.0, "length_share": 0.0}
    assert probe_figures([[5, 6, 7]], [12])["length_share"] == 0.25


@given(st.lists(st.lists(st.integers(0, 9), max_size=40), min_size=1, max_size=6))
def test_figures_of_sampled_answers_are_shares(answers: list[list[int]]) -> None:
    figures = probe_figures(answers, [40] * len(answers))
    assert 0 <= figures["distinct_2"] <= 1
    assert 0 <= figures["repetition"] < 1
    assert 0 <= figures["length_share"] <= 1


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ({"kl": {"max_jump": 0}}, "kl.max_jump"),
        ({"kl": {"every_steps": 0}}, "kl.every_steps"),
        ({"chosen_logp": {"action": "explode"}}, "chosen_logp.action"),
        ({"not_finite": {"action": "warn"}}, "not_finite.action"),
        ({"probes": {"min_distinct": 2}}, "probes.min_distinct"),
        ({"roll_back": {"rate_factor": 1}}, "roll_back.rate_factor"),
        ({"lkl": {}}, "lkl"),
        ({"not_finite": None}, "not_finite"),
    ],
)
def test_a_guard_that_cannot_be_used_is_named_by_its_field(given_: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Guards.model_validate(given_)
    assert field in {".".join(map(str, error["loc"])) for error in caught.value.errors()}


def test_what_only_warns_decides_nothing_and_the_rest_is_part_of_the_training() -> None:
    spec = {
        "run": "r2", "base_hash": "b", "dataset_hash": "d", "method": "orpo", "effective": {}, "seed": 1, "threads": 2,
        "save_every_steps": 10,
    }  # fmt: skip

    def mark(save_every_steps: int = 10, **guards: Any) -> str:
        told = Guards.model_validate(guards).model_dump(mode="json")
        return fingerprint({**spec, "save_every_steps": save_every_steps, "guards": told}, {})

    assert mark(kl={"action": "warn"}) == mark(kl={"action": "warn", "max_jump": 1.0}) == mark(kl=None)
    assert mark() != mark(kl={"max_jump": 1.0})
    assert mark() == mark(save_every_steps=7) == mark(roll_back={"times": 5})
    # Where a training goes back to depends on what was saved.
    back = {"kl": {"action": "roll_back"}}
    assert len({mark(), mark(**back), mark(save_every_steps=7, **back), mark(roll_back={"times": 5}, **back)}) == 4
