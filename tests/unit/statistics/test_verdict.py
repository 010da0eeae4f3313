"""A verdict is claimed when there is a difference, and hardly ever when there is none."""

import random
from typing import Any

import numpy as np
import polars as pl
import pytest

from foundry_pipeline.evaluation.comparison import with_verdicts
from foundry_pipeline.statistics.self_comparison import self_claims
from foundry_pipeline.statistics.stated import stated, tone
from foundry_pipeline.statistics.verdict import ALPHA, Rows, compare, pair_up

SIZES = {"at": 5, "cc": 4, "gt": 8, "pd": 6, "pv": 5, "vr": 8}
STRATA = [c for c, n in SIZES.items() for _ in range(n)]
PROMPTS = [f"{c}-{i}" for i, c in enumerate(STRATA)]


def model(rng: np.random.Generator) -> np.ndarray:
    """What a model is worth on each of the 36 prompts: by category, and by prompt within it."""
    by_category = {c: rng.normal(0, 1) for c in SIZES}
    return np.array([6.5 + by_category[c] + rng.normal(0, 1) for c in STRATA])


def answers(worth: np.ndarray, rng: np.random.Generator, repeats: int) -> Rows:
    """Scores of one sampling seed: in halves, with now and then an answer that goes wrong altogether."""
    values, strata, clusters = [], [], []
    for x, stratum, prompt in zip(worth, STRATA, PROMPTS, strict=True):
        for _ in range(repeats):
            drawn = x + rng.normal(0, 0.8) - (rng.exponential(4) if rng.random() < 0.08 else 0)
            values.append(round(2 * float(np.clip(drawn, 0, 10))) / 2)
            strata.append(stratum)
            clusters.append(prompt)
    return Rows(values, strata, clusters)


def test_a_model_is_hardly_ever_better_than_itself_under_other_seeds():
    rng = np.random.default_rng(20)
    claims = 0
    for i in range(240):
        worth, repeats = model(rng), 1 + i % 3
        one, other = answers(worth, rng, repeats), answers(worth, rng, repeats)
        claims += compare(one, other, resamples=300).verdict in ("better", "worse")
    assert claims / 240 < 0.07


def test_a_difference_as_large_as_said_detectable_is_mostly_found():
    rng = np.random.default_rng(21)
    found = 0
    for _ in range(40):
        worth = model(rng).clip(3, 7)
        one, other = answers(worth + 1.0, rng, 1), answers(worth, rng, 1)
        result = compare(one, other, resamples=300)
        assert result.verdict != "worse"
        assert 0.4 < result.detectable < 2.5
        found += result.verdict == "better"
    assert found >= 20


def test_sides_mirror_and_order_does_not_matter():
    rng = np.random.default_rng(22)
    worth = model(rng)
    a, b = answers(worth + 1.5, rng, 2), answers(worth, rng, 2)
    one, other = compare(a, b), compare(b, a)
    assert (one.verdict, other.verdict) == ("better", "worse")
    assert one.difference.mean == pytest.approx(-other.difference.mean)
    order = list(range(len(a.values)))
    random.Random(1).shuffle(order)
    mixed = Rows([a.values[i] for i in order], [a.strata[i] for i in order], [a.clusters[i] for i in order])
    assert compare(mixed, b) == one


def test_repeats_are_no_further_witnesses():
    rng = np.random.default_rng(23)
    a, b = answers(model(rng), rng, 1), answers(model(rng), rng, 1)
    many = [Rows(list(r.values) * 6, list(r.strata) * 6, list(r.clusters) * 6) for r in (a, b)]
    assert compare(*many) == compare(a, b)


def test_too_few_prompts_for_any_claim_say_so():
    a = Rows([9.0] * 4, ["x"] * 4, list("pqrs"))
    b = Rows([1.0, 2.0, 1.5, 1.0], ["x"] * 4, list("pqrs"))
    assert compare(a, b).verdict == "no claim at n=4"
    nothing = compare(Rows([], [], []), b)
    assert (nothing.verdict, nothing.p, nothing.mean_a) == ("no claim at n=0", None, None)
    one = compare(Rows([9.0], ["x"], ["p"]), b)
    assert (one.verdict, one.difference.low) == ("no claim at n=1", None)


def test_a_constant_difference_is_a_difference():
    prompts = [f"{i:02d}" for i in range(20)]
    a, b = Rows([8.0] * 20, ["x"] * 20, prompts), Rows([3.0] * 20, ["x"] * 20, prompts)
    found = compare(a, b)
    assert found.verdict == "better"
    assert found.effect is None
    assert compare(a, a).verdict == "no claim at n=20"


def test_a_claim_needs_both_the_test_and_the_interval():
    rng = np.random.default_rng(24)
    a, b = answers(model(rng) + 3, rng, 1), answers(model(rng), rng, 1)
    found = compare(a, b)
    assert found.verdict == "better"
    assert found.corrected(ALPHA).verdict == "better"
    assert found.corrected(ALPHA + 1e-9).verdict == "no claim at n=36"
    assert found.corrected(None).verdict == "no claim at n=36"


def test_only_prompts_of_both_sides_are_paired_and_strata_must_agree():
    a = Rows([1.0, 2.0, 3.0], ["x", "x", "y"], ["p", "q", "r"])
    b = Rows([4.0, 6.0, 9.0], ["x", "y", "y"], ["q", "r", "s"])
    assert pair_up(a, b) == ([2.0, 3.0], [4.0, 6.0], ["x", "y"], ["q", "r"])
    with pytest.raises(ValueError, match="two strata"):
        pair_up(a, Rows([1.0], ["y"], ["p"]))


def test_a_table_with_several_answers_a_prompt_is_compared_with_itself():
    rng = np.random.default_rng(25)
    found = self_claims(answers(model(rng), rng, 6), comparisons=40, resamples=200, seed=1)
    assert found["comparisons"] == 40
    assert found["rate"] == found["claims"] / 40 < 0.15
    assert found["low"] <= found["rate"] <= found["high"]
    with pytest.raises(ValueError, match="at-0 has 1 answers; two on either side need 4"):
        self_claims(answers(model(rng), rng, 1), comparisons=5, each=2)


def test_a_rule_that_claims_too_readily_is_found_out():
    """Sides that are not drawn alike (the better half against the worse) are told apart: the check can fail."""
    rng = np.random.default_rng(26)
    table = answers(model(rng), rng, 4)
    best, worst = {}, {}
    for value, stratum, prompt in zip(table.values, table.strata, table.clusters, strict=True):
        best[prompt] = (max(value, best.get(prompt, (value,))[0]), stratum)
        worst[prompt] = (min(value, worst.get(prompt, (value,))[0]), stratum)
    sides = [Rows([v for v, _ in s.values()], [c for _, c in s.values()], list(s)) for s in (best, worst)]
    assert compare(*sides).verdict == "better"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"difference": 3.331, "low": 2.98, "high": 3.66, "verdict": "better"}, "+3.33 (+2.98 to +3.66), better"),
        (
            {"difference": 0.02, "low": -0.52, "high": 0.001, "verdict": "no claim at n=36"},
            "+0.02 (\N{MINUS SIGN}0.520 to +0.001), no claim at n=36",
        ),
        (
            {"difference": -0.4, "low": None, "high": None, "verdict": "no claim at n=1"},
            "\N{MINUS SIGN}0.40, no claim at n=1",
        ),
        ({"difference": None, "low": None, "high": None, "verdict": "no claim at n=0"}, "\N{EN DASH}"),
    ],
)
def test_a_difference_is_written_with_its_interval_and_what_may_be_said(found: dict[str, Any], text: str) -> None:
    assert stated(found) == text


def test_an_interval_without_zero_is_no_claim_and_has_no_colour() -> None:
    """Recorded bounds leave zero out, but of six questions two in 64 exchanges go as far: p is 0.031."""
    scores = pl.DataFrame(
        [
            {
                "mode": mode,
                "prompt_id": f"q{i}",
                "category": "ground_truth",
                "overall": 5.0 + (i / 10 if mode == "base" else 1),
            }
            for mode in ("base", "adapter")
            for i in range(6)
        ]
    )
    recorded = {"difference": 0.75, "low": 0.6, "high": 0.9, "n": 6, "against": "base"}
    found = with_verdicts({"paired": {"adapter": recorded}}, scores)["paired"]["adapter"]
    assert found["p"] == pytest.approx(2 / 64)
    assert found["verdict"] == "no claim at n=6"
    assert tone(found) == "plain"
    assert found["low"] == recorded["low"]
