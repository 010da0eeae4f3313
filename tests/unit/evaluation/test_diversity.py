"""Diversity: figures with known values, and bounds that no text leaves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from foundry_pipeline.evaluation.diversity import (
    distinct_interval,
    distinct_n,
    diversity,
    mean_pass_at_k,
    pass_at_k,
    self_bleu,
    semantic_diversity,
)

sentences = st.lists(st.sampled_from(["the", "light", "keeper", "oil", "gale", "boat"]), min_size=1, max_size=9).map(
    " ".join
)


class Vectors:
    """Stands at the place of an encoder: a text is the numbers it lists. Remembers how many it was given at once."""

    def __init__(self) -> None:
        self.largest = 0

    def embed(self, texts):
        self.largest = max(self.largest, len(texts))
        return np.array([[float(x) for x in t.split()] for t in texts], dtype=np.float32)


def test_distinct_n_counts_what_is_unlike():
    assert distinct_n(["the great bulwark", "the great republic"], 1) == pytest.approx(4 / 6)
    assert distinct_n(["the great bulwark", "the great republic"], 2) == pytest.approx(3 / 4)
    assert distinct_n(["water H₂O", "water H2O"], 1) == pytest.approx(2 / 4), (
        "one molecule, whichever way it is written"
    )
    assert distinct_n(["a b", "c"], 3) is None
    assert distinct_n(["a b c a b c", "a b c"], 1, words_each=3) == pytest.approx(3 / 6)
    for n, each in ((0, None), (1, 0)):
        with pytest.raises(ValueError, match="n-grams"):
            distinct_n(["a"], n, words_each=each)


@given(st.lists(sentences, min_size=1, max_size=8), st.integers(1, 4))
def test_distinct_n_is_a_share_and_repeating_a_text_never_raises_it(texts, n):
    found = distinct_n(texts, n)
    assume(found is not None)
    assert 0 < found <= 1
    assert distinct_n(texts + texts, n) == pytest.approx(found / 2)


def test_self_bleu_at_its_ends():
    same = ["the keeper trims the lamp before the gale"] * 4
    unlike = ["one two three four five", "six seven eight nine ten", "red blue green gray black"]
    assert self_bleu(same) == pytest.approx(1.0)
    assert self_bleu(unlike) < 0.05
    assert self_bleu(same + unlike) > self_bleu(unlike)
    assert self_bleu(["alone"]) is None
    assert self_bleu(["alone", "  "]) is None
    with pytest.raises(ValueError, match="no two"):
        self_bleu(same, most=1)


@given(st.lists(sentences, min_size=2, max_size=7), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_self_bleu_is_a_share_and_the_same_in_any_order(texts, random):
    mixed = random.sample(texts, len(texts))
    assert self_bleu(mixed) == self_bleu(texts)
    assert self_bleu(mixed, most=3) == self_bleu(texts, most=3)
    assert 0 <= self_bleu(texts) <= 1 + 1e-9


@given(st.integers(1, 9), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_good_one(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([i < c for i in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_has_no_bias_and_no_overflow():
    rng = np.random.default_rng(3)
    found = [pass_at_k(10, int(rng.binomial(10, 0.3)), 4) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(1 - 0.7**4, abs=0.012)
    assert 0 < pass_at_k(100_000, 10, 5_000) < 1
    assert mean_pass_at_k([(4, 4), (4, 0)], 2) == 0.5
    assert mean_pass_at_k([], 2) is None
    for n, c, k in ((3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(n, c, k)


@given(st.lists(st.tuples(*[st.integers(-5, 5)] * 3).filter(any), min_size=2, max_size=12), st.integers(1, 5))
def test_semantic_diversity_is_that_of_all_pairs_whatever_the_batch(vectors, batch):
    texts = [" ".join(map(str, v)) for v in vectors]
    unit = [np.array(v) / math.sqrt(sum(x * x for x in v)) for v in vectors]
    pairs = [1 - float(a @ b) for a, b in itertools.combinations(unit, 2)]
    encoder = Vectors()
    assert semantic_diversity(iter(texts), encoder, batch=batch) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert encoder.largest <= batch


def test_semantic_diversity_at_its_ends():
    encoder = Vectors()
    assert semantic_diversity(["1 0", "2 0", "3 0"], encoder) == pytest.approx(0)
    assert semantic_diversity(["1 0", "-1 0"], encoder) == pytest.approx(2)
    assert semantic_diversity(["1 0"], encoder) is None
    assert semantic_diversity([], encoder) is None
    with pytest.raises(ValueError, match="batch"):
        semantic_diversity(["1 0", "0 1"], encoder, batch=0)


def test_figures_of_a_model_within_and_across_prompts():
    answers = {"p": ["the lamp is lit", "the lamp is out"], "q": ["a gale came from the north"]}
    found = diversity(answers)
    assert (found["prompts"], found["answers"]) == (2, 3)
    assert found["across"]["distinct_1"] == pytest.approx(9 / 10)
    assert found["within"]["distinct_1"] == pytest.approx(5 / 8)
    assert found["across"]["semantic_diversity"] is None
    assert diversity({"q": ["one answer"]})["within"] is None
    assert diversity({})["across"]["self_bleu"] is None


def test_the_jackknife_covers_and_leaves_out_what_says_nothing():
    texts = [
        "the keeper lights the lamp at dusk" + " and trims the wick anew" * (i % 4) + f" at {i}" for i in range(12)
    ]
    found = distinct_interval(texts, 2)
    assert found["mean"] == distinct_n(texts, 2)
    assert found["low"] < found["mean"] < found["high"]
    assert found["n"] == 12
    by_hand = [distinct_n(texts[:i] + texts[i + 1 :], 2) for i in range(12)]
    error = (11 / 12 * sum((x - sum(by_hand) / 12) ** 2 for x in by_hand)) ** 0.5
    assert found["high"] - found["mean"] == pytest.approx(1.959964 * error)
    assert distinct_interval([*texts, "", "one"], 2) == found
    assert distinct_interval(texts[:2], 2)["low"] is None
    assert distinct_interval([], 1) == {"mean": None, "low": None, "high": None, "n": 0}
