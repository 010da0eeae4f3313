"""Sizes against real models, operations against torch's own counter."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_base import CONFIG

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.training.effort import Lengths, memory, operations, reference_operations
from foundry_pipeline.training.size import Shape, measure

WIDE = {
    **CONFIG,
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "head_dim": 16,
}


def tuned(rank: int, config: dict[str, Any] = WIDE) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = dict(config)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )


@pytest.mark.parametrize("tied", [True, False])
def test_the_meta_device_counts_what_a_real_model_has(tied: bool) -> None:
    config = {**WIDE, "tie_word_embeddings": tied, "transformers_version": "4.0", "quantization_config": None}
    shape = measure(config)
    real = tuned(4, {**WIDE, "tie_word_embeddings": tied})
    trained = sum(p.numel() for p in real.parameters() if p.requires_grad)
    assert 4 * shape.lora_per_rank == trained
    assert shape.parameters == sum(p.numel() for p in real.parameters()) - trained
    assert (shape.layers, shape.hidden, shape.query, shape.key_value, shape.heads) == (3, 128, 64, 32, 4)
    assert shape.head == 512 * 128
    assert shape.linear == 3 * (128 * 64 + 2 * 128 * 32 + 64 * 128 + 3 * 128 * 320)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "no-such-model"},
        {**WIDE, "num_attention_heads": "many"},
        {"hidden_size": 4},
        {**WIDE, "model_type": "vit"},
    ],
)
def test_an_architecture_that_no_model_can_be_made_of_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(FoundryError, match="no model can be made of this architecture") as error:
        measure(config)
    assert "architecture" in error.value.mend


@pytest.mark.parametrize("method", ["orpo", "dpo", "sft"])
def test_operations_are_those_that_torch_counts(method: Any) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from foundry_pipeline.training.preference.attention import prepare
    from foundry_pipeline.training.preference.step import window_loss

    rank = 8
    model = tuned(rank)
    prepare(model.get_base_model())
    model.enable_input_require_grads()  # as where layers are recomputed; otherwise the first passes no gradient on
    rejected = () if method == "sft" else tuple(range(5, 105))
    pair: Any = SimpleNamespace(prompt=tuple(range(1, 41)), chosen=tuple(range(3, 123)), rejected=rejected)
    reference = torch.zeros(1, 2) if method == "dpo" else None
    with FlopCounterMode(display=False) as counter:
        loss, _ = window_loss(model, [pair], method=method, beta=0.1, window=1, reference=reference)
        loss.backward()
    lengths = Lengths(len(pair.prompt), len(pair.chosen), len(rejected))
    expected = operations(measure(WIDE), lengths, method=method, rank=rank, recompute=False)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


SHAPE = Shape(
    "Any", 1000, 800, 150, 10, layers=2, hidden=8, intermediate=16, query=8, key_value=4, heads=2, vocabulary=20
)
LENGTHS = Lengths(30, 50, 40)


def test_recomputing_costs_operations_and_saves_memory() -> None:
    once = operations(SHAPE, LENGTHS, method="orpo", rank=4, recompute=False)
    twice = operations(SHAPE, LENGTHS, method="orpo", rank=4, recompute=True)
    assert reference_operations(SHAPE, LENGTHS) < twice - once + reference_operations(SHAPE, LENGTHS) < once

    def held(recompute: bool) -> float:
        shape = replace(SHAPE, layers=20)
        return memory(
            shape, rank=4, optimizer="adamw", weights="bfloat16", tokens=500, context=100, recompute=recompute
        ).activations

    assert held(True) < held(False) / 5


def test_memory_is_told_by_what_it_holds() -> None:
    found = memory(SHAPE, rank=4, optimizer="adamw_8bit", weights="nf4", tokens=10, context=5, recompute=True)
    assert found.weights == pytest.approx(800 * (0.5 + 1 / 64 + 4 / 16384) + 200 * 2)
    assert (found.adapter, found.gradients, found.optimizer) == (160, 160, 80)
    told = found.rounded()
    assert told["total"] == pytest.approx(sum(v for k, v in told.items() if k != "total"), abs=3)


@given(prompt=st.integers(1, 500), chosen=st.integers(1, 500), rejected=st.integers(0, 500), rank=st.integers(1, 64))
def test_longer_rows_never_take_less(prompt: int, chosen: int, rejected: int, rank: int) -> None:
    def flops(*sides: int) -> float:
        return operations(SHAPE, Lengths(*sides), method="orpo", rank=rank, recompute=True)

    here = flops(prompt, chosen, rejected)
    assert here > 0
    assert here <= min(
        flops(prompt + 1, chosen, rejected), flops(prompt, chosen + 1, rejected), flops(prompt, chosen, rejected + 1)
    )
