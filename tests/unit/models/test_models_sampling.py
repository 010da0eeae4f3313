"""Sampling means the same in both backends, and a row's draws are its own."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_pipeline.models.llama_sampling import sampler_chain
from foundry_pipeline.models.requests import ChatRequest
from foundry_pipeline.models.sampling import SeededSampling, candidates

WARM = ChatRequest("r", (("user", "x"),), 8, 0.7, 5, 0.9, 11)


def llama_candidates(logits: list[float], request: ChatRequest) -> dict[int, float]:
    """Probabilities that llama.cpp's own chain leaves, before it draws."""
    import ctypes

    import llama_cpp as lib

    array = (lib.llama_token_data * len(logits))(*[lib.llama_token_data(i, x, 0.0) for i, x in enumerate(logits)])
    data = lib.llama_token_data_array(data=array, size=len(logits), selected=-1, sorted=False)
    chain = sampler_chain(request)
    lib.llama_sampler_apply(chain, ctypes.byref(data))
    lib.llama_sampler_free(chain)
    return {data.data[i].id: data.data[i].p for i in range(data.size)}


@settings(deadline=None, max_examples=150)
@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=40, unique=True),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.95, 1.0]),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.5]),
)
def test_what_is_left_to_draw_from_is_what_llama_cpp_leaves(
    logits: list[float], top_k: int, top_p: float, temperature: float
) -> None:
    request = replace(WARM, top_k=top_k, top_p=top_p, temperature=temperature)
    kept, tokens = candidates(torch.tensor([logits]), top_k=top_k, top_p=top_p)
    probabilities = (kept / temperature).softmax(dim=1)[0].tolist()
    ours = {int(t): p for t, p in zip(tokens[0], probabilities, strict=True) if p > 0}
    theirs = llama_candidates(logits, request)
    edge = {t: p for t, p in (ours | theirs).items() if (t in ours) != (t in theirs)}
    if edge:
        # The nucleus ends where a sum of float32 crosses top_p; the two sum in another order.
        total = sum(sorted(torch.tensor(logits).softmax(0).tolist(), reverse=True))
        assert math.isclose(total, 1.0, rel_tol=1e-5)
        assert len(edge) == 1
        return
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0, 0.0]])
    request = replace(WARM, temperature=0.8, top_k=4, top_p=1.0)
    sampling = SeededSampling([request])
    draws = 6000
    counts = Counter(int(sampling(torch.zeros(1, 1), logits.clone()).argmax()) for _ in range(draws))
    expected = (logits[0, [0, 1, 2, 5]] / 0.8).softmax(0).tolist()
    assert set(counts) == {0, 1, 2, 5}
    statistic = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in zip((0, 1, 2, 5), expected, strict=True))
    assert statistic < 16.27  # chi-squared with 3 degrees of freedom, 0.1 %


def test_a_row_s_draws_do_not_depend_on_its_neighbours() -> None:
    rows = [replace(WARM, seed=s) for s in range(6)] + [replace(WARM, seed=9, top_k=0, top_p=1.0, temperature=1.3)]
    logits = torch.randn(len(rows), 50, generator=torch.Generator().manual_seed(0))
    together, alone = SeededSampling(rows), [SeededSampling([r]) for r in rows]
    for _ in range(5):
        all_at_once = together(torch.zeros(7, 1), logits.clone()).argmax(dim=1).tolist()
        one_by_one = [int(s(torch.zeros(1, 1), logits[i : i + 1].clone()).argmax()) for i, s in enumerate(alone)]
        assert all_at_once == one_by_one


def test_equal_seeds_draw_equal_noise_and_others_do_not() -> None:
    logits = torch.zeros(3, 200)
    requests = [replace(WARM, top_k=0, top_p=1.0, seed=s) for s in (5, 5, 6)]
    sampling = SeededSampling(requests)
    drawn = torch.stack([sampling(torch.zeros(3, 1), logits.clone()).argmax(dim=1) for _ in range(20)])
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert not torch.equal(drawn[:, 0], drawn[:, 2])


def test_temperature_zero_takes_the_largest_and_leaves_others_to_draw() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(3))
    out = SeededSampling([replace(WARM, temperature=0.0), WARM])(torch.zeros(2, 1), logits.clone())
    assert torch.equal(out[0], logits[0])
    assert int(torch.isfinite(out[1]).sum()) == 1


def test_rows_that_stay_draw_what_they_would_have_drawn() -> None:
    rows = [replace(WARM, seed=s, temperature=1.0 + (s % 2)) for s in range(5)]
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    whole, fewer = SeededSampling(rows), SeededSampling(rows)
    for sampling in (whole, fewer):
        sampling(torch.zeros(5, 1), logits.clone())
    fewer.keep([1, 3, 4])
    for _ in range(4):
        drawn = whole(torch.zeros(5, 1), logits.clone()).argmax(dim=1)
        assert torch.equal(drawn[[1, 3, 4]], fewer(torch.zeros(3, 1), logits[[1, 3, 4]].clone()).argmax(dim=1))
