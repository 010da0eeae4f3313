import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from foundry_pipeline.statistics.effects import (
    Sample,
    hedges_correction,
    hedges_g,
    hedges_g_paired,
    noncentral_interval,
)
from foundry_pipeline.statistics.power import detectable_difference, detectable_effect
from foundry_pipeline.statistics.proportions import wilson
from foundry_pipeline.statistics.significance import holm, paired_permutation, student, t_interval, welch

values = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=3, max_size=14)
p_values = st.floats(0, 1, allow_nan=False)


def varied(sample: list[float]) -> list[float]:
    assume(np.ptp(sample) > 1e-3)
    return sample


@given(values.map(list), values.map(list))
@settings(max_examples=60, deadline=None)
def test_t_tests_are_those_of_scipy_on_the_values_themselves(a, b):
    a, b = varied(a), varied(b)
    ours, theirs = student(Sample.of(a), Sample.of(b)), stats.ttest_ind(a, b)
    assert ours.t == pytest.approx(theirs.statistic, rel=1e-6, abs=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    ours, theirs = welch(Sample.of(a), Sample.of(b)), stats.ttest_ind(a, b, equal_var=False)
    assert (ours.t, ours.df, ours.p) == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue), rel=1e-6, abs=1e-9)


def test_samples_that_do_not_vary_have_no_t():
    a, b = Sample(3.0, 0.0, 5), Sample(4.0, 0.0, 5)
    assert student(a, b).t is None
    assert welch(a, b).p is None
    assert hedges_g(a, b) is None
    assert hedges_g_paired([1.0, 1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize("bad", [(math.nan, 1, 5), (1, -1, 5), (1, math.inf, 5), (1, 1, 1)])
def test_figures_that_are_no_sample_are_refused(bad):
    with pytest.raises(ValueError, match="not those of a sample"):
        Sample(*bad)


def test_the_correction_is_the_gamma_one_and_not_its_approximation():
    for df in (2, 5, 18, 400):
        exact = special.gamma(df / 2) / (math.sqrt(df / 2) * special.gamma((df - 1) / 2)) if df < 300 else None
        assert exact is None or hedges_correction(df) == pytest.approx(exact, rel=1e-12)
        assert hedges_correction(df) < 1
    assert hedges_correction(18) == pytest.approx(0.95765, abs=1e-5)
    assert abs(hedges_correction(3) - (1 - 3 / (4 * 3 - 1))) > 1e-3
    with pytest.raises(ValueError, match="two degrees"):
        hedges_correction(1)


@given(st.floats(-30, 30), st.integers(2, 400), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=50, deadline=None)
def test_noncentral_bounds_put_t_at_their_tails(t, df, confidence):
    low, high = noncentral_interval(t, df, confidence)
    assert low < high
    tail = (1 - confidence) / 2
    assert special.nctdtr(df, low, t) == pytest.approx(1 - tail, abs=1e-7)
    assert special.nctdtr(df, high, t) == pytest.approx(tail, abs=1e-7)


def test_noncentral_bounds_are_none_where_they_cannot_be_found():
    assert noncentral_interval(40.0, 35) is None
    assert noncentral_interval(math.inf, 35) is None
    assert hedges_g(Sample(10, 0.01, 10), Sample(1, 0.01, 10)).low is None


def test_the_interval_of_g_holds_the_true_effect_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(250):
        found = hedges_g(Sample.of(list(rng.normal(0.8, 1, 9))), Sample.of(list(rng.normal(0, 1, 12))))
        hits += found.low <= 0.8 <= found.high
    assert 0.915 <= hits / 250 <= 0.985


@given(values.map(list), values.map(list))
@settings(max_examples=40, deadline=None)
def test_g_turns_its_sign_with_the_sides_and_lies_between_its_bounds(a, b):
    a, b = Sample.of(varied(a)), Sample.of(varied(b))
    one, other = hedges_g(a, b), hedges_g(b, a)
    assert one.g == pytest.approx(-other.g)
    assert abs(one.g) <= abs(one.d)
    if one.low is not None:
        assert one.low <= one.d <= one.high
        assert one.low == pytest.approx(-other.high, abs=1e-6)


@given(st.lists(st.integers(-40, 40).map(lambda i: i / 8), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_small_permutation_tests_are_exact(differences):
    n = len(differences)
    seen = abs(math.fsum(differences))
    signs = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1) * 2 - 1
    exact = np.mean(np.abs(signs @ np.array(differences)) >= seen - 1e-9)
    assert paired_permutation(differences) == pytest.approx(exact, abs=1e-12)


def test_the_permutation_test_does_not_depend_on_order_or_side():
    rng = np.random.default_rng(1)
    d = list(rng.normal(0.3, 1, 36))
    assert paired_permutation(d, seed=3) == paired_permutation(d[::-1], seed=3)
    assert paired_permutation(d, seed=3) == pytest.approx(paired_permutation([-x for x in d], seed=4), abs=0.02)


def test_degenerate_permutation_tests():
    assert paired_permutation([]) is None
    assert paired_permutation([2.0]) == 1.0
    assert paired_permutation([0.0] * 40) == 1.0
    assert paired_permutation([1.0] * 40) < 0.001
    with pytest.raises(ValueError, match="not finite"):
        paired_permutation([1.0, math.nan])


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.none() | p_values, max_size=8))
@settings(max_examples=60, deadline=None)
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p):
    found = holm(p)
    known = {k: v for k, v in p.items() if v is not None}
    assert found.keys() == p.keys()
    assert [k for k, v in found.items() if v is None] == [k for k, v in p.items() if v is None]
    for a, pa in known.items():
        assert pa <= found[a] + 1e-12
        assert found[a] <= min(1, pa * len(known)) + 1e-12
        assert all(found[a] <= found[b] + 1e-12 for b, pb in known.items() if pa <= pb)


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match="not p values"):
        holm({"a": 1.2})
    assert holm({}) == {}


def test_what_a_suite_can_detect():
    assert detectable_effect(36) == pytest.approx(0.48, abs=0.005)
    assert detectable_effect(216) == pytest.approx(0.19, abs=0.005)
    assert detectable_effect(2) is None
    assert detectable_difference([0.0, 2.0] * 18) == pytest.approx(0.48024 * Sample.of([0.0, 2.0] * 18).sd, rel=1e-4)
    with pytest.raises(ValueError, match="must satisfy"):
        detectable_effect(36, alpha=0.9)


def test_what_is_detectable_is_detected_that_often():
    rng = np.random.default_rng(9)
    effect = detectable_effect(20)
    found = sum(stats.ttest_1samp(rng.normal(effect, 1, 20), 0).pvalue < 0.05 for _ in range(1000))
    assert found / 1000 == pytest.approx(0.80, abs=0.035)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50, deadline=None)
def test_wilson_holds_its_rate_and_mirrors(count, n):
    if count > n:
        with pytest.raises(ValueError, match="no proportion"):
            wilson(count, n)
        return
    found, other = wilson(count, n), wilson(n - count, n)
    if n == 0:
        assert (found.rate, found.low, found.high) == (None, None, None)
        return
    assert 0 <= found.low <= found.rate <= found.high <= 1
    assert found.high > found.low
    assert found.low == pytest.approx(1 - other.high, abs=1e-12)
    z = stats.norm.ppf(0.975)
    centre = (count + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(count * (n - count) / n + z * z / 4)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_the_interval_of_a_mean_known_by_its_figures():
    low, high = t_interval(Sample(4.097, 0.339, 10))
    assert (round(low, 2), round(high, 2)) == (3.85, 4.34)
