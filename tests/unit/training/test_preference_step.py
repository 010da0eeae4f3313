"""The packed step against a plain one and against TRL: losses, every gradient, and what must never be seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from benchmarks.trl_peer import trl_loss, trl_trainer, word_tokenizer
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.training.preference import attention
from foundry_pipeline.training.preference.layout import Span, pack, shares
from foundry_pipeline.training.preference.lora import fuse
from foundry_pipeline.training.preference.step import reference_sums, window_loss
from foundry_pipeline.training.preference.vocabulary import token_log_probabilities
from foundry_pipeline.training.tokens import Example

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
WINDOWED = ["sliding_attention", "full_attention", "sliding_attention"]


def tiny(family: str, dtype: torch.dtype = torch.float64) -> Any:
    """A random model of three layers with a random adapter on it."""
    torch.manual_seed(0)
    if family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=16))
    else:
        model = Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, head_dim=16, sliding_window=32, layer_types=WINDOWED))
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    return get_peft_model(model.to(dtype), lora).to(dtype)


def example(prompt: int, chosen: int, rejected: int, seed: int = 0) -> Example:
    draw = random.Random(f"{seed}:{prompt}:{chosen}:{rejected}")
    take = [tuple(draw.randrange(5, 300) for _ in range(n)) for n in (prompt, chosen, rejected)]
    return Example(f"pair-{seed}", f"prompt-{seed}", 1, *take)


# Across block borders (128), answers of one token, a prompt longer than Gemma's window of 32.
PAIRS = [
    example(40, 300, 7, seed=1),
    example(3, 1, 150, seed=2),
    example(17, 129, 1, seed=3),
    example(1, 60, 64, seed=4),
]

BEGINNING = tuple(random.Random(7).randrange(5, 300) for _ in range(37))
# All prompts begin alike, as under a chat template: beyond Gemma's window, and one prompt has a single token more.
ALIKE = [replace(pair, prompt=BEGINNING + pair.prompt) for pair in PAIRS]


def plain(model: Any, pairs: Sequence[Example], method: str, beta: float) -> torch.Tensor:
    """The loss as the papers write it: two whole sequences a pair, all logits."""
    total = torch.zeros((), dtype=torch.float64)
    for pair in pairs:
        told = []
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([list(pair.prompt + answer)])
            logits = model(input_ids=ids).logits[0, :-1]
            told.append(torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0])
        at = len(pair.prompt) - 1
        chosen, rejected = told[0][at:].mean(), told[1][at:].mean()
        odds = (chosen - rejected) - (torch.log1p(-chosen.exp()) - torch.log1p(-rejected.exp()))
        total = total - told[0].mean() - beta * torch.nn.functional.logsigmoid(odds)
    return total / len(pairs)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def worst(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest relative error (in norm) of any gradient; infinite when other parameters have one."""
    if found.keys() != wanted.keys():
        return float("inf")
    return max(float((found[n] - wanted[n]).norm() / wanted[n].norm()) for n in wanted)


def packed_gradients(
    model: Any, method: str = "orpo", fused: bool = True, pairs: Sequence[Example] = PAIRS, **more: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    attention.prepare(model.get_base_model())
    if fused:
        assert fuse(model) == 7 * 3
    loss, shown = window_loss(model, pairs, method=method, beta=0.1, window=len(pairs), **more)  # type: ignore[arg-type]
    loss.backward()
    assert shown["loss"] == pytest.approx(float(loss.detach()))
    return float(loss.detach()), gradients(model)


@pytest.mark.parametrize(("fused", "pairs"), [(True, PAIRS), (False, PAIRS), (True, ALIKE)])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_loss_and_every_gradient_equal_the_plain_ones(family: str, fused: bool, pairs: list[Example]) -> None:
    model = tiny(family)
    wanted = plain(model, pairs, "orpo", 0.1)
    wanted.backward()
    expected = gradients(model)
    assert len(expected) == 2 * 7 * 3  # both matrices of seven layers in three blocks
    loss, found = packed_gradients(model, fused=fused, pairs=pairs)
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-9)
    assert worst(found, expected) < 1e-6
    model.zero_grad()
    loss, found = packed_gradients(model, fused=fused, pairs=pairs)
    assert worst(found, expected) < 1e-6, "a second pass is as good as the first"


def test_a_fused_layer_heeds_its_input_its_scale_and_a_switched_off_adapter() -> None:
    model = tiny("llama")
    layer = model.get_base_model().model.layers[0].self_attn
    first, second = (torch.randn(1, 5, 48, dtype=torch.float64) for _ in range(2))
    names = ("q_proj", "k_proj", "v_proj")
    wanted = {(name, i): getattr(layer, name)(x) for name in names for i, x in enumerate((first, second))}
    with model.disable_adapter():
        off = layer.q_proj(first)
    fuse(model)
    for name, which in [("q_proj", 0), ("k_proj", 1), ("v_proj", 0), ("k_proj", 0), ("k_proj", 0), ("v_proj", 1)]:
        found = getattr(layer, name)((first, second)[which])
        torch.testing.assert_close(found, wanted[name, which])
    with model.disable_adapter():
        torch.testing.assert_close(layer.q_proj(first), off)
    assert not torch.allclose(layer.q_proj(first), off)


def test_layers_of_another_kind_keep_their_own_way() -> None:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True))
    with_dropout = LoraConfig(r=4, target_modules=["down_proj"], lora_dropout=0.1, task_type="CAUSAL_LM")
    assert fuse(get_peft_model(base, with_dropout)) == 0
    base = LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True))
    assert fuse(get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))) == 3 * 3, "those without a bias"


real_sequences = attention.sequences


def leaking(span: Span) -> Any:
    """What reads what, with a fault: the rejected answer reads the chosen one, too."""
    end = span.start + span.prompt + span.chosen
    before = [slice(0, span.shared)] if span.shared else []
    yield [slice(span.start, end)], [*before, slice(span.start, end)], span.shared
    if span.rejected:
        branch = slice(end, span.end)
        yield [branch], [*before, slice(span.start, end), branch], span.shared + span.prompt + span.chosen


def strangers(span: Span) -> Any:
    """What reads what, with a fault: the shared beginning of the prompts is not read."""
    for ask, read, offset in real_sequences(span):
        yield ask, read[1:] if span.shared else read, offset - span.shared


def test_it_shows_when_the_rejected_answer_sees_the_chosen_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    plain(model, PAIRS, "orpo", 0.1).backward()
    expected = gradients(model)

    monkeypatch.setattr(attention, "sequences", leaking)
    _, found = packed_gradients(model)
    assert worst(found, expected) > 1e-3


def test_it_shows_when_what_prompts_share_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    plain(model, ALIKE, "orpo", 0.1).backward()
    expected = gradients(model)
    assert pack(ALIKE, score_prompt=True).spans[0] == Span(0, 37, 0, 0)
    assert worst(packed_gradients(model, pairs=ALIKE)[1], expected) < 1e-6
    monkeypatch.setattr(attention, "sequences", strangers)
    assert worst(packed_gradients(model, pairs=ALIKE)[1], expected) > 1e-3


@pytest.mark.parametrize("method", ["orpo", "dpo"])
def test_it_agrees_with_trl(method: str) -> None:
    tokenizer = word_tokenizer()
    model = tiny("llama")
    more = {}
    if method == "dpo":
        # TRL takes the adapter that it is given as the reference; what is trained has moved on from there
        attention.prepare(model.get_base_model())
        more["reference"] = reference_sums(model, PAIRS)
        model.set_attn_implementation("sdpa")
    trainer = trl_trainer(model, tokenizer, PAIRS, method=method, beta=0.1)
    model = trainer.model.double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad and "lora_B" in name:
                p.mul_(1.5)
    wanted = trl_loss(trainer, PAIRS, method=method)
    wanted.backward()
    expected = gradients(model)
    assert method == "orpo" or abs(float(wanted) - 0.6931) > 1e-3
    loss, found = packed_gradients(model, method, **more)
    # TRL computes the odds in float32, whatever the model is
    assert loss == pytest.approx(float(wanted), rel=1e-5)
    assert worst(found, expected) < 1e-5


def test_in_single_precision_it_is_stays_close() -> None:
    exact = tiny("llama")
    plain(exact, PAIRS, "orpo", 0.1).backward()
    expected = gradients(exact)
    _, found = packed_gradients(tiny("llama", torch.float32))
    assert worst({n: g.double() for n, g in found.items()}, expected) < 1e-5


lengths = st.lists(
    st.tuples(st.integers(1, 200), st.integers(1, 200), st.integers(0, 200)), min_size=1, max_size=4, unique=True
)


@given(lengths, st.booleans(), st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_every_token_has_its_place(sizes: list[tuple[int, int, int]], score_prompt: bool, alike: int) -> None:
    pairs = [replace(pair, prompt=BEGINNING[:alike] + pair.prompt) for pair in (example(*size) for size in sizes)]
    packed = pack(pairs, score_prompt=score_prompt)
    assert len(packed.ids) == len(packed.positions) == packed.spans[-1].end
    assert len(packed.rows) == len(packed.labels) == len(set(zip(packed.rows, packed.labels, strict=True)))
    assert len(packed.places) == len(packed.part)
    shared = packed.spans[-1].shared
    assert shared >= alike or alike < 4 or len(pairs) == 1
    assert len(packed.spans) == packed.pairs + bool(shared) == len(pairs) + bool(shared)
    for number, (pair, span) in enumerate(zip(pairs, packed.spans[bool(shared) :], strict=True)):
        # what each answer's last row reads, laid end to end, is the prompt and the answer
        branches = list(attention.sequences(span))
        for (_, read, offset), answer in zip(branches, (pair.chosen, pair.rejected), strict=False):
            seen = [packed.ids[i] for part in read for i in range(part.start, part.stop)]
            assert seen == [*pair.prompt, *answer[:-1]]
            assert [packed.positions[i] for part in read for i in range(part.start, part.stop)] == [*range(len(seen))]
            assert offset in (shared, len(pair.prompt))
        scored = [
            (packed.rows[place], packed.labels[place])
            for place, p in zip(packed.places, packed.part, strict=True)
            if p // 3 == number
        ]
        wanted = list(pair.prompt[1:]) * score_prompt + list(pair.chosen) + list(pair.rejected)
        assert [t for _, t in scored] == wanted
        # the token before each label, in its own branch, stands one position before it
        positions = [packed.positions[r] for r, _ in scored]
        begin = len(pair.prompt) - 1
        assert positions == [
            *(range(begin) if score_prompt else ()),
            *range(begin, begin + len(pair.chosen)),
            *range(begin, begin + len(pair.rejected)),
        ]


@given(st.lists(st.integers(1, 900), max_size=12), st.integers(1, 4))
def test_a_window_is_shared_out_whole(sizes: list[int], processes: int) -> None:
    parts = shares(sizes, processes)
    assert sorted(i for part in parts for i in part) == list(range(len(sizes)))
    load = [sum(sizes[i] for i in part) for part in parts]
    assert max(load) - min(load) <= max(sizes, default=0)


@pytest.mark.parametrize(("chunk", "tile"), [(1, 50), (7, 1), (1000, 7), (1000, 1000), (23, 49)])
def test_chunks_and_tiles_are_of_no_account(chunk: int, tile: int) -> None:
    torch.manual_seed(1)
    hidden = (5 * torch.randn(23, 8, dtype=torch.float64)).requires_grad_()
    weight, labels = torch.randn(50, 8, dtype=torch.float64), torch.randint(0, 50, (23,))
    asked = torch.randn(23, dtype=torch.float64)
    wanted = torch.log_softmax(hidden @ weight.T, -1).gather(1, labels[:, None])[:, 0]
    (expected,) = torch.autograd.grad((wanted * asked).sum(), hidden)
    found = token_log_probabilities(hidden, weight, labels, chunk=chunk, tile=tile)
    (slope,) = torch.autograd.grad((found * asked).sum(), hidden)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(slope, expected)


def test_what_it_is_not_written_for_is_refused() -> None:
    model = tiny("llama")
    attention.prepare(model.get_base_model())
    with pytest.raises(ValueError, match="its spans"):
        model(input_ids=torch.tensor([[5, 6, 7]]))
    model.get_base_model().config.final_logit_softcapping = 30.0
    with pytest.raises(FoundryError, match="output layer"):
        window_loss(model, PAIRS, method="orpo", beta=0.1, window=4)
    with pytest.raises(ValueError, match="one token at least"):
        pack([Example("a", "b", 1, (5,), (), (6,))], score_prompt=True)
