"""Batched decoding by llama.cpp: repeatable, ending where the model ends, whatever the shape of the group."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.llama_sampling import sampler_chain
from foundry_pipeline.models.requests import ChatRequest, ModelRef, Reply

Ask = Callable[..., ChatRequest]
QUESTIONS = ("What is a faction?", "Say yes.", "Name the capital of France.", "Tell me of roads and canals.", "Hi")


def texts(replies: list[Reply]) -> list[str]:
    return [r.text for r in replies]


def answer(backend: LlamaBackend, requests: list[ChatRequest]) -> list[Reply]:
    return backend.answer(requests, [f"h{i}" for i in range(len(requests))])


@pytest.fixture(scope="module")
def shipped(gguf: Path, llama_ref: Callable[[Path], ModelRef]) -> LlamaBackend:
    return LlamaBackend(llama_ref(gguf), threads=2)


@pytest.fixture(scope="module")
def q8(eight_bit: Path, llama_ref: Callable[[Path], ModelRef]) -> LlamaBackend:
    return LlamaBackend(llama_ref(eight_bit), threads=2)


def test_a_group_gives_the_same_replies_twice(shipped: LlamaBackend, ask: Ask) -> None:
    group = [ask(q, temperature=0.8, seed=i, max_tokens=6 + 3 * i) for i, q in enumerate(QUESTIONS)]
    first, second = answer(shipped, group), answer(shipped, group)
    assert [replace(r, seconds=None) for r in first] == [replace(r, seconds=None) for r in second]
    assert [r.request_hash for r in first] == [f"h{i}" for i in range(5)]
    assert all(r.seconds and r.seconds > 0 for r in first)


def test_the_seed_makes_the_answer(shipped: LlamaBackend, ask: Ask) -> None:
    one = ask("Tell me a story.", temperature=1.0, max_tokens=12)
    first, same, other = texts(answer(shipped, [one, one, replace(one, seed=8)]))
    assert first == same
    assert first != other


def test_sequences_that_end_early_leave_the_others_as_they_are(q8: LlamaBackend, ask: Ask) -> None:
    """Those in the middle end first, so that later ones move into their places in the cache."""
    bounds = (14, 1, 3, 14, 2)
    whole = answer(q8, [ask(q, max_tokens=14) for q in QUESTIONS])
    cut = answer(q8, [ask(q, max_tokens=n) for q, n in zip(QUESTIONS, bounds, strict=True)])
    for full, part, bound in zip(whole, cut, bounds, strict=True):
        assert full.text.startswith(part.text)
        assert part.completion_tokens == min(bound, full.completion_tokens)


def test_a_sequence_answers_as_it_does_alone(q8: LlamaBackend, ask: Ask) -> None:
    group = [ask(q, max_tokens=10) for q in QUESTIONS]
    together = texts(answer(q8, group))
    alone = [answer(q8, [r])[0].text for r in group]
    assert together == alone


def test_a_group_larger_than_one_pass_is_decoded_in_several(
    eight_bit: Path, llama_ref: Callable[[Path], ModelRef], q8: LlamaBackend, ask: Ask
) -> None:
    group = [ask(q, max_tokens=5) for q in QUESTIONS]
    narrow = LlamaBackend(llama_ref(eight_bit), threads=2, batch=3)
    assert texts(answer(narrow, group)) == texts(answer(q8, group))
    assert narrow.environment() != q8.environment()


def test_an_answer_ends_at_the_model_s_end_token(q8: LlamaBackend, ask: Ask) -> None:
    short, long = answer(q8, [ask("Say only the word yes.", max_tokens=60), ask("Tell me of roads.", max_tokens=3)])
    assert short.finish_reason == "stop"
    assert 0 < short.completion_tokens < 60
    assert "<|im_end|>" not in short.text
    assert (long.finish_reason, long.completion_tokens) == ("length", 3)


def test_a_prompt_longer_than_the_context_is_named(shipped: LlamaBackend, ask: Ask) -> None:
    with pytest.raises(FoundryError, match=r"has \d+ tokens and the answer may have 8; .* holds 8192") as caught:
        answer(shipped, [ask("short"), ask("word " * 8300, request_id="long-one")])
    assert "long-one" in str(caught.value)


def test_what_cannot_be_served_is_refused(gguf: Path, tmp_path: Path, llama_ref: Callable[[Path], ModelRef]) -> None:
    with pytest.raises(FoundryError, match="of another format"):
        LlamaBackend(replace(llama_ref(gguf), adapter_path=str(tmp_path)), threads=2)
    with pytest.raises(FoundryError, match="not found"):
        LlamaBackend(llama_ref(tmp_path / "none.gguf"), threads=2)
    broken = tmp_path / "cut.gguf"
    broken.write_bytes(gguf.read_bytes()[:100_000])
    with pytest.raises(FoundryError, match=r"cut\.gguf"):
        LlamaBackend(llama_ref(broken), threads=2).load()


def test_llama_cpp_keeps_quiet(
    gguf: Path, llama_ref: Callable[[Path], ModelRef], ask: Ask, capfd: pytest.CaptureFixture[str]
) -> None:
    answer(LlamaBackend(llama_ref(gguf), threads=2), [ask("Hi", max_tokens=1)])
    assert capfd.readouterr().err == ""


def test_threads_are_part_of_the_environment(gguf: Path, llama_ref: Callable[[Path], ModelRef]) -> None:
    one, two = (LlamaBackend(llama_ref(gguf), threads=n).environment() for n in (1, 2))
    assert one != two
    assert "0.3.36" in one["library"]


def test_a_schema_holds_every_answer_of_a_batch_to_it(
    gguf: Path, llama_ref: Callable[[Path], ModelRef], ask: Callable[..., ChatRequest]
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "green"]},
            "numbers": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["colour", "numbers"],
        "additionalProperties": False,
    }
    bound = {"schema": json.dumps(schema), "max_tokens": 60}
    requests = [
        ask("Name a colour and two numbers.", request_id="greedy", **bound),
        ask("Name a colour and two numbers.", request_id="drawn", temperature=0.9, top_k=5, **bound),
        ask("Name a colour and two numbers.", request_id="free", max_tokens=12),
    ]
    backend = LlamaBackend(llama_ref(gguf), threads=2)
    try:
        bound_one, bound_two, free = backend.answer(requests, ["a", "b", "c"])
    finally:
        backend.close()
    assert not free.text.startswith("{")
    for reply in (bound_one, bound_two):
        if reply.finish_reason == "stop":
            answer = json.loads(reply.text)
            assert answer["colour"] in ("red", "green")
            assert all(isinstance(n, int) for n in answer["numbers"])
        else:
            # The bound came first; what there is still follows the schema.
            assert re.fullmatch(r'\{ ?"colour" ?: ?"(red|green)" ?, ?"numbers" ?: ?\[[-\d, ]*\]? ?\}?', reply.text)


def test_a_schema_without_a_grammar_is_refused_by_name(ask: Callable[..., ChatRequest]) -> None:
    with pytest.raises(FoundryError, match="no grammar"):
        sampler_chain(ask("x", schema='{"type": "no such type"}'))
