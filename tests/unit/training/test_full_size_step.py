"""What a GPU's training does otherwise, held to the ordinary one on the processor: torch's attention kernels, activations
computed again, weights in four bits."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from small_base import write_small_base
from test_preference_step import PAIRS, example, gradients, leaking, tiny, worst
from training_examples import hyperparameters

from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.merge import merge
from foundry_pipeline.launch import read_facts, run_script
from foundry_pipeline.training.adapters import load_trainable
from foundry_pipeline.training.plan import MODULE
from foundry_pipeline.training.preference import attention, sdpa
from foundry_pipeline.training.preference.step import window_loss
from tests.unit.export.tiny_model import write_tiny


def step(model: Any, kind: Any = "blocks") -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    attention.prepare(model.get_base_model(), kind)
    loss, _ = window_loss(model, PAIRS, method="orpo", beta=0.1, window=len(PAIRS))
    loss.backward()
    return float(loss.detach()), gradients(model)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_torchs_kernels_attend_as_the_blocks_do(family: str) -> None:
    model = tiny(family)
    wanted, expected = step(model)
    loss, found = step(model, "sdpa")
    assert model.get_base_model().config._attn_implementation == sdpa.NAME
    assert loss == pytest.approx(wanted, rel=1e-12)
    assert worst(found, expected) < 1e-9


def test_it_shows_when_torchs_kernels_let_the_rejected_answer_see_the_chosen_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny("llama")
    _, expected = step(model)

    monkeypatch.setattr(sdpa, "sequences", leaking)
    _, found = step(model, "sdpa")
    assert worst(found, expected) > 1e-3


def test_a_window_shorter_than_a_sequence_hides_what_lies_before_it() -> None:
    assert sdpa.windowed(2, 5, 3, "cpu").tolist() == [
        [False, True, True, True, False],
        [False, False, True, True, True],
    ]
    # wide enough, it hides nothing but what comes later
    assert torch.equal(sdpa.windowed(4, 4, 9, "cpu"), torch.ones(4, 4, dtype=torch.bool).tril())


def kept_bytes(compute: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of what `compute` returns; a storage counts once."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return sum(storages.values())


@pytest.mark.parametrize("kind", ["blocks", "sdpa"])
def test_activations_computed_again_give_the_same_gradients_in_less_memory(kind: Any) -> None:
    model = tiny("llama").train()
    wanted, expected = step(model, kind)

    def forward() -> torch.Tensor:
        return window_loss(model, PAIRS, method="orpo", beta=0.1, window=len(PAIRS))[0]

    weights = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    before = kept_bytes(forward)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    loss, found = step(model, kind)
    after = kept_bytes(forward)
    assert loss == wanted
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # all that is kept of a layer is its input; what is left is the output layer's part, and weights, which are there anyway
    assert after < before / 4, f"{before:,} and {after:,} bytes, {sum(weights.values()):,} of weights at most"


four_bits = pytest.mark.skipif(
    find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed: `pip install -e '.[gpu]'` (it makes every start with PEFT three seconds longer)",
)
SHORT = [example(9, 14, 11, seed=5), example(4, 6, 9, seed=6)]


def small_step(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss, _ = window_loss(model, SHORT, method="orpo", beta=0.1, window=len(SHORT))
    loss.backward()
    return float(loss.detach()), gradients(model)


@four_bits
def test_a_step_over_four_bit_weights_is_the_step_over_what_they_stand_for(dense: Path, tmp_path: Path) -> None:
    """On two layers of a real model: on a processor, bitsandbytes 0.50.2 rounds weights of a thousand numbers badly."""
    import bitsandbytes
    from bitsandbytes.functional import dequantize_4bit

    base = write_tiny(tmp_path / "base", dense)
    values = hyperparameters(precision="float32")
    torch.manual_seed(0)
    model, _ = load_trainable(base, values, Compute(weights="nf4"))
    torch.manual_seed(0)
    dense, _ = load_trainable(base, values)
    held = {n: m for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert len(held) == 2 * 7  # the seven layers of each block, and not the output layer
    assert all(m.weight.quant_state.quant_type == "nf4" and m.weight.quant_state.nested for m in held.values())
    exact = dict(dense.named_modules())
    with torch.no_grad():
        for name, layer in held.items():
            weight = exact[name].weight
            stands_for = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(weight.dtype)
            assert 0.05 < float((stands_for - weight).norm() / weight.norm()) < 0.15
            weight.copy_(stands_for)
        trained = dict(model.named_parameters())
        for name, p in dense.named_parameters():
            if p.requires_grad:
                assert torch.equal(p, trained[name])
                # as after some steps: a fresh adapter's gradients are half zeros
                p.copy_(torch.randn_like(p) / 10)
                trained[name].copy_(p)
    assert {n: p.dtype for n, p in trained.items() if p.requires_grad} == {
        n: p.dtype for n, p in dense.named_parameters() if p.requires_grad
    }
    wanted, expected = small_step(dense)
    loss, found = small_step(model)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert worst(found, expected) < 1e-4


@four_bits
def test_what_was_trained_on_four_bits_is_merged_into_the_full_weights(
    make_spec: Callable[..., dict[str, Any]], dense: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    base = write_tiny(tmp_path / "base", dense)
    spec = make_spec(epochs=1) | {"base_dir": str(base), "threads": 1}
    run_script(MODULE, spec, tmp_path / "full")
    run_script(MODULE, {**spec, "compute": {"weights": "nf4", "gradient_checkpointing": True}}, tmp_path / "nf4")
    full, four = (load_file(tmp_path / name / "result" / "adapter_model.safetensors") for name in ("full", "nf4"))
    assert {n: (t.dtype, t.shape) for n, t in four.items()} == {n: (t.dtype, t.shape) for n, t in full.items()}
    told = [(tmp_path / name / "result" / "adapter_config.json").read_text() for name in ("full", "nf4")]
    assert told[0] == told[1]
    facts = read_facts(tmp_path / "nf4")
    assert facts["compute"] == {"weights": "nf4", "gradient_checkpointing": True, "attention": "blocks"}
    assert facts["fingerprint"] != read_facts(tmp_path / "full")["fingerprint"]
    (tmp_path / "merged").mkdir()
    assert merge(base, tmp_path / "nf4" / "result", tmp_path / "merged")["layers_changed"] == 14


def test_four_bits_without_bitsandbytes_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(FoundryError, match=r"pip install -e '\.\[gpu\]'"):
        load_trainable(write_small_base(tmp_path / "base"), hyperparameters(), Compute(weights="nf4"))
