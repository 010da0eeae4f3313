"""Spans of text to compare modes on, and the distance between their predictions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.distance import MEASURES, distance, log_probabilities, spans_of

IDS = st.lists(st.integers(3, 99), min_size=1, max_size=30)
END = 2


@given(
    st.lists(IDS, min_size=1, max_size=6),
    st.lists(IDS, min_size=1, max_size=6),
    st.integers(1, 200),
    st.integers(1, 40),
)
def test_spans_hold_exactly_the_tokens_asked_for(
    prompts: list[list[int]], texts: list[list[int]], tokens: int, each: int
) -> None:
    spans = spans_of(prompts, texts, end=END, tokens=tokens, each=each)
    assert sum(len(s.text) for s in spans) == tokens
    for i, span in enumerate(spans):
        assert list(span.prompt) in prompts
        assert 1 <= len(span.text) <= each
        wanted = [*texts[i % len(texts)], END][:each]
        assert list(span.text) == wanted or i == len(spans) - 1
        assert span.read == [*span.prompt, *span.text][:-1]


def test_few_spans_are_spread_over_the_suite() -> None:
    prompts = [[i] for i in range(36)]
    spans = spans_of(prompts, [[7] * 64], end=END, tokens=512, each=64)
    assert [s.prompt[0] for s in spans] == [0, 4, 9, 13, 18, 22, 27, 31]


def test_nothing_to_read_is_told() -> None:
    for prompts, texts in (([], [[1]]), ([[1]], []), ([[1]], [[]])):
        with pytest.raises(FoundryError, match="no text to compare"):
            spans_of(prompts, texts, end=END, tokens=8, each=4)


def test_distance_is_the_textbook_sum() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(300, 17), torch.randn(300, 17)
    text = torch.randint(0, 17, (300,)).tolist()
    p, q = one.double().softmax(1), other.double().softmax(1)
    kl = (p * (p.log() - q.log())).sum(1)
    found = distance(log_probabilities(one.clone()), other, text)
    assert tuple(found) == MEASURES
    assert found["mean_kl"] == pytest.approx(float(kl.mean()), rel=1e-5)
    assert found["max_kl"] == pytest.approx(float(kl.max()), rel=1e-5)
    assert found["top1"] == pytest.approx(float((p.argmax(1) == q.argmax(1)).double().mean()), rel=1e-5)
    at = torch.tensor(text)[:, None]
    assert found["nats_change"] == pytest.approx(float((p.log() - q.log()).gather(1, at).mean()), rel=1e-4)


def test_a_mode_is_at_no_distance_from_itself() -> None:
    logits = torch.randn(5, 9)
    found = distance(log_probabilities(logits.clone()), logits, [0] * 5)
    assert found["mean_kl"] == pytest.approx(0, abs=1e-6)
    assert found["top1"] == 1


def test_padding_of_a_vocabulary_has_no_part_in_it() -> None:
    logits = torch.randn(5, 9)
    padded = torch.cat([logits, torch.full((5, 3), 4.0)], dim=1)
    for one, other in ((padded, logits), (logits, padded)):
        found = distance(log_probabilities(one.clone()), other, [8] * 5)
        assert found["mean_kl"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(FoundryError, match="more than both have"):
        distance(log_probabilities(padded), logits, [9] * 5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_predictions_that_are_no_numbers_have_no_distance(bad: float) -> None:
    logits = torch.randn(5, 9)
    broken = logits.clone()
    broken[3, 2] = bad
    assert distance(log_probabilities(logits), broken, [0] * 5) == dict.fromkeys(MEASURES)
