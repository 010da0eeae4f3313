import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.statistics.intervals import Interval, auc, cluster_means, interval, paired_interval

scores = st.floats(min_value=0, max_value=10, allow_nan=False, width=32)
samples = st.lists(scores, min_size=1, max_size=25)


def test_mean_gives_every_prompt_equal_weight_whatever_its_repeats():
    found = interval([10, 10, 10, 10, 0], strata=["a"] * 5, clusters=["p", "p", "p", "p", "q"])
    assert found.mean == 5
    assert found.n == 2


def test_repeats_do_not_narrow_the_interval():
    rng = np.random.default_rng(3)
    values = rng.normal(5, 2, 24)
    prompts = [f"p{i}" for i in range(24)]
    once = interval(list(values), clusters=prompts)
    repeated = interval(list(np.tile(values, 5)), clusters=prompts * 5)
    assert once == repeated
    naive = interval(list(np.tile(values, 5)))
    assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_strata_take_out_what_lies_between_categories():
    rng = np.random.default_rng(5)
    strata = [c for c in "abcdef" for _ in range(6)]
    values = [10.0 * "abcdef".index(s) + e for s, e in zip(strata, rng.normal(0, 1, 36), strict=True)]
    stratified, plain = interval(values, strata), interval(values)
    assert stratified.mean == plain.mean
    assert stratified.high - stratified.low < 0.2 * (plain.high - plain.low)


def test_interval_agrees_with_the_t_interval_on_a_large_normal_sample():
    values = np.random.default_rng(11).normal(3, 2, 400)
    found = interval(list(values), resamples=4000)
    half = 1.966 * values.std(ddof=1) / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_coverage_of_the_mean_is_near_the_promised_share():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        found = interval(list(rng.normal(0, 1, 36)), [c for c in "abcdef" for _ in range(6)], resamples=300)
        hits += found.low <= 0 <= found.high
    assert 0.85 <= hits / 200 <= 0.99


def test_degenerate_samples():
    assert interval([]) == Interval(None, None, None, 0)
    assert interval([4.0]) == Interval(4.0, None, None, 1)
    assert interval([4.0, 4.0, 4.0]) == Interval(4.0, 4.0, 4.0, 3)
    alone = interval([1.0, 2.0, 9.0], strata=["a", "a", "b"])
    assert alone.n == 3
    assert alone.low < alone.mean < alone.high
    singles = interval([1.0, 2.0, 9.0], strata=["a", "b", "c"])
    assert singles.low < singles.mean < singles.high


@pytest.mark.parametrize(
    ("values", "strata", "clusters"),
    [([1.0], ["a", "b"], ["p"]), ([math.nan], ["a"], ["p"]), ([1.0, 2.0], ["a", "b"], ["p", "p"])],
)
def test_rows_that_cannot_be_read_are_refused(values, strata, clusters):
    with pytest.raises(ValueError, match="pair up|leave unscored|two strata"):
        cluster_means(values, strata, clusters)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(min_value=0.0625, max_value=5, width=32), min_size=3, max_size=15), scores)
def test_bounds_enclose_the_mean_of_symmetric_data(offsets, centre):
    found = interval([centre + o for o in offsets] + [centre - o for o in offsets], resamples=300)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(scores, st.sampled_from("abc"), st.integers(0, 4)), min_size=2, max_size=20), st.randoms())
def test_order_of_rows_never_matters(rows, shuffler: random.Random):
    named = [(v, s, f"{s}{c}") for v, s, c in rows]
    mixed = list(named)
    shuffler.shuffle(mixed)
    assert interval(*zip(*named, strict=True), resamples=200) == interval(*zip(*mixed, strict=True), resamples=200)


@settings(max_examples=30, deadline=None)
@given(st.lists(scores, min_size=2, max_size=20), st.floats(min_value=-3, max_value=3, width=32))
def test_a_constant_shift_is_found_exactly_by_pairing(values, shift):
    found = paired_interval([v + shift for v in values], values, resamples=200)
    assert found.mean == pytest.approx(shift, abs=1e-6)
    assert found.low == pytest.approx(shift, abs=1e-6)
    assert found.high == pytest.approx(shift, abs=1e-6)


def test_pairing_refuses_unequal_sides():
    with pytest.raises(ValueError, match="paired"):
        paired_interval([1.0], [1.0, 2.0])


@given(samples, samples)
def test_auc_is_a_probability_and_swapping_gives_its_complement(better, worse):
    assert 0 <= auc(better, worse) <= 1
    assert auc(better, worse) + auc(worse, better) == pytest.approx(1)


@given(samples, samples)
def test_auc_counts_pairs(better, worse):
    wins = sum((a > b) + 0.5 * (a == b) for a in better for b in worse)
    assert auc(better, worse) == pytest.approx(wins / (len(better) * len(worse)))


def test_auc_refuses_what_has_no_order():
    with pytest.raises(ValueError, match="either side"):
        auc([], [1.0])
    with pytest.raises(ValueError, match="finite"):
        auc([math.nan], [1.0])
