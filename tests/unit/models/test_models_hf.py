"""Batched generation by transformers: repeatable, the same alone and in company, with and without an adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.hf_backend import TransformersBackend, cut, reserved_cache
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply

Ask = Callable[..., ChatRequest]


def ref(folder: Path, adapter: Path | None = None) -> ModelRef:
    return ModelRef("transformers", str(folder), "d" * 64, str(adapter) if adapter else None, None, "dense")


def answer(backend: TransformersBackend, requests: list[ChatRequest]) -> list[Reply]:
    return [replace(r, seconds=None) for r in backend.answer(requests, [f"h{i}" for i in range(len(requests))])]


@pytest.fixture(scope="module")
def exact(dense: Path) -> TransformersBackend:
    return TransformersBackend(ref(dense), threads=2, precision="float32")


@pytest.fixture(scope="module")
def adapter(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with random, small B."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.bfloat16)
    torch.manual_seed(0)
    tuned = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(str(folder))
    return folder


def test_a_group_gives_the_same_replies_twice(dense: Path, ask: Ask) -> None:
    backend = TransformersBackend(ref(dense), threads=2)
    group = [
        ask(q, temperature=0.8, max_tokens=4 + i, seed=i) for i, q in enumerate(("Hi", "What is a veto?", "Go on."))
    ]
    first = answer(backend, group)
    assert first == answer(backend, group)
    assert first == answer(TransformersBackend(ref(dense), threads=2), group)
    assert [r.request_hash for r in first] == ["h0", "h1", "h2"]


def test_padding_does_not_change_an_answer(exact: TransformersBackend, ask: Ask) -> None:
    short, long = (
        ask("Hi", max_tokens=8),
        ask("Tell me at length of roads and canals, and who shall pay.", max_tokens=3),
    )
    together = answer(exact, [short, long])
    assert [r.text for r in together] == [answer(exact, [r])[0].text for r in (short, long)]
    assert together[0].prompt_tokens < together[1].prompt_tokens
    assert [r.completion_tokens for r in together] == [8, 3]


def test_greedy_answers_are_those_of_the_library_s_own_cache(exact: TransformersBackend, ask: Ask) -> None:
    request = ask("Name the capital of France.", max_tokens=12)
    ids = torch.tensor([exact.prompt_ids(request)])
    with torch.inference_mode():
        plain = exact._network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
    tokens, _ = cut(plain[0, ids.shape[1] :].tolist(), exact._ends)
    assert answer(exact, [request])[0].text == exact._tokenizer.decode(tokens)


def test_the_reserved_cache_holds_what_the_library_s_would(exact: TransformersBackend) -> None:
    from transformers import DynamicCache

    network = exact._network
    ids = torch.tensor([[1, 520, 30, 40, 50, 60]])
    plain, reserved = DynamicCache(config=network.config), reserved_cache(network.config, 9)
    with torch.inference_mode():
        for part in (ids[:, :4], ids[:, 4:5], ids[:, 5:]):
            one = network(input_ids=part, past_key_values=plain).logits
            two = network(input_ids=part, past_key_values=reserved).logits
            assert torch.equal(one, two)
    assert reserved.get_seq_length() == 6
    assert torch.equal(plain.layers[3].keys, reserved.layers[3].keys)


def test_the_seed_makes_the_answer(exact: TransformersBackend, ask: Ask) -> None:
    one = ask("Tell me a story.", temperature=1.0, max_tokens=10)
    first, same, other = (r.text for r in answer(exact, [one, one, replace(one, seed=8)]))
    assert first == same
    assert first != other


def test_an_answer_ends_at_the_model_s_end_token(exact: TransformersBackend, ask: Ask) -> None:
    short, long = answer(exact, [ask("Say only the word yes.", max_tokens=60), ask("Tell me of roads.", max_tokens=3)])
    assert short.finish_reason == "stop"
    assert 0 < short.completion_tokens < 60
    assert "<|im_end|>" not in short.text
    assert (long.finish_reason, long.completion_tokens) == ("length", 3)


def test_cut_ends_at_the_first_end_token() -> None:
    assert cut([5, 6, 2, 7, 2], [0, 2]) == ([5, 6], "stop")
    assert cut([2], [2]) == ([], "stop")
    assert cut([5, 6], [2]) == ([5, 6], "length")


def test_an_adapter_changes_the_answer_and_its_absence_does_not(dense: Path, adapter: Path, ask: Ask) -> None:
    request = ask("Tell me of roads and canals.", max_tokens=10)
    base, tuned = (answer(TransformersBackend(ref(dense, a), threads=2), [request]) for a in (None, adapter))
    assert base[0].text != tuned[0].text


def test_an_adapter_that_does_not_fit_is_refused(dense: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    weights = load_file(other / "adapter_model.safetensors")
    first = min(weights)
    save_file({n: w for n, w in weights.items() if n != first}, other / "adapter_model.safetensors")
    with pytest.raises(FoundryError, match="1 of its weights are missing, 0 belong"):
        TransformersBackend(ref(dense, other), threads=2).load()
    (other / "adapter_model.safetensors").unlink()
    with pytest.raises(FoundryError, match="no adapter here"):
        TransformersBackend(ref(dense, other), threads=2).load()


def test_a_prompt_longer_than_the_context_is_named(exact: TransformersBackend, ask: Ask) -> None:
    with pytest.raises(FoundryError, match=r"request long-one"):
        answer(exact, [ask("short"), ask("word " * 8300, request_id="long-one")])


def test_a_folder_without_weights_or_template_is_refused(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="no dense model here"):
        TransformersBackend(ref(tmp_path), threads=2)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(dense / name, bare / name)
    (bare / "model.safetensors").symlink_to(dense / "model.safetensors")
    assert "chat_template" not in json.loads((bare / "tokenizer_config.json").read_text())
    with pytest.raises(FoundryError, match="no chat template"):
        TransformersBackend(ref(bare), threads=2).load()


def test_rows_that_have_ended_leave_and_the_others_go_on_as_before(
    dense: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foundry_pipeline.models import hf_decode

    backend = TransformersBackend(ref(dense), threads=1)
    group = [ask(f"What of {n} roads?", temperature=1.0, max_tokens=3 + 2 * n, seed=n) for n in range(9)]
    sizes: list[int] = []
    backend.load()
    plain = backend._network.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["input_ids"]))
        return plain(*args, **kwargs)

    monkeypatch.setattr(backend._network, "forward", counting)
    leaving = answer(backend, group)
    assert sizes[0] == 9
    assert sizes[-1] == hf_decode._FEWEST
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(hf_decode, "_FEWEST", 10)
    sizes.clear()
    assert answer(backend, group) == leaving
    assert set(sizes) == {9}


def test_fast_products_change_no_bit(dense: Path, adapter: Path) -> None:
    from foundry_pipeline.models.cpu_products import fast_products

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no product of bfloat16")
    backend = TransformersBackend(ref(dense, adapter), threads=1)
    backend.load()
    ids = torch.tensor([[1, 520, 30, 40, 50, 60]] * 5)
    layers = [m for m in backend._network.modules() if type(m).__name__ == "Linear"]
    for scaling in (2.0, 0.3):
        for layer in layers:
            if hasattr(layer, "scaling"):
                layer.scaling["default"] = scaling
        with torch.inference_mode():
            plain = backend._network(input_ids=ids).logits
            with fast_products(backend._network, wanted=4096) as changed:
                fast = backend._network(input_ids=ids).logits
            with fast_products(backend._network, wanted=4) as none:
                assert none == 0
            with backend._network.disable_adapter():
                base = backend._network(input_ids=ids).logits
                with fast_products(backend._network, wanted=4096):
                    assert torch.equal(base, backend._network(input_ids=ids).logits)
        assert changed == 7 * 2 * 30 + 1
        assert torch.equal(plain, fast)
        assert not torch.equal(plain, base)
    assert not any("forward" in vars(layer) for layer in backend._network.modules())


def test_fast_products_leave_an_exact_network_alone(exact: TransformersBackend) -> None:
    from foundry_pipeline.models.cpu_products import fast_products

    exact.load()
    with fast_products(exact._network, wanted=4096) as changed:
        assert changed == 0
