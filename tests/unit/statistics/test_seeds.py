import numpy as np
import pytest

from foundry_pipeline.statistics.effects import Sample
from foundry_pipeline.statistics.seeds import compare_seeds


def test_the_noisy_student_is_told_apart_and_mirrors():
    noisy, plain = Sample(4.097, 0.339, 10), Sample(3.657, 0.173, 10)
    found, other = compare_seeds(noisy, plain), compare_seeds(plain, noisy)
    assert (found.verdict, other.verdict) == ("better", "worse")
    assert found.student.t == pytest.approx(3.66, abs=0.005)
    assert found.welch.df < found.student.df == 18
    assert found.effect.g == pytest.approx(-other.effect.g)
    assert 0.3 < found.detectable < 0.44


def test_seeds_of_one_training_are_hardly_ever_told_apart():
    rng = np.random.default_rng(5)
    claims = 0
    for _ in range(400):
        a, b = (Sample.of(list(rng.normal(8, spread, 5))) for spread in (0.3, 0.9))
        claims += compare_seeds(a, b).verdict in ("better", "worse")
    assert claims / 400 < 0.06


def test_too_few_or_equal_seeds_claim_nothing():
    assert compare_seeds(Sample(8, 0.2, 2), Sample(7.5, 0.3, 2)).verdict == "no claim at n=2+2"
    assert compare_seeds(Sample(8, 0.0, 5), Sample(7, 0.0, 5)).verdict == "no claim at n=5+5"
