"""What a request is, and which changes give its reply another key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_pipeline.declarations.assets import Sampling
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.requests import (
    BACKEND_CODE,
    ChatRequest,
    ModelRef,
    evaluation_requests,
    group_hashes,
    request_seed,
)

MODEL = ModelRef("llama_cpp", "/anywhere/model.gguf", "a" * 64, None, None, "small")
ONE = ChatRequest("one", (("user", "What is a faction?"),), 16, 0.7, 40, 0.95, 1)
TWO = ChatRequest("two", (("user", "What is a veto?"),), 16, 0.7, 40, 0.95, 2)
HERE: dict[str, Any] = {"library": "x 1", "threads": 2}


def hashes(model: ModelRef = MODEL, *requests: ChatRequest, size: int = 36, **changes: Any) -> list[str]:
    return group_hashes(model, requests or (ONE, TWO), environment=HERE | changes, group_size=size)


@pytest.mark.parametrize(
    "changed",
    [
        replace(ONE, messages=(("user", "What is a faction? "),)),
        replace(ONE, messages=(("system", "What is a faction?"),)),
        replace(ONE, max_tokens=17),
        replace(ONE, temperature=0.8),
        replace(ONE, top_k=41),
        replace(ONE, top_p=0.96),
        replace(ONE, seed=2),
    ],
)
def test_each_parameter_of_a_request_bears_on_its_hash_and_on_its_neighbours(changed: ChatRequest) -> None:
    before, after = hashes(MODEL, ONE, TWO), hashes(MODEL, changed, TWO)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    "model",
    [
        replace(MODEL, content_hash="b" * 64),
        replace(MODEL, adapter_hash="b" * 64),
        replace(MODEL, backend="transformers"),
    ],
)
def test_the_model_bears_on_the_hash(model: ModelRef) -> None:
    assert not set(hashes(model)) & set(hashes())


def test_where_and_under_which_title_a_model_lies_does_not() -> None:
    assert hashes(replace(MODEL, path="/elsewhere.gguf", title="other", adapter_path="/x")) == hashes()


def test_environment_group_size_and_order_bear_on_the_hash() -> None:
    plain = set(hashes())
    assert not plain & set(hashes(threads=1))
    assert not plain & set(hashes(library="x 2"))
    assert not plain & set(hashes(size=35))
    assert not plain & set(hashes(MODEL, TWO, ONE))
    assert not plain & set(hashes(MODEL, ONE, TWO, TWO))


def test_the_name_of_a_request_does_not_but_its_place_does() -> None:
    assert hashes(MODEL, replace(ONE, request_id="other"), TWO) == hashes()
    first, second = hashes(MODEL, ONE, ONE)
    assert first != second


@given(st.integers(0, 2**63), st.text(max_size=20))
def test_a_seed_fits_and_depends_on_both_parts(seed: int, name: str) -> None:
    value = request_seed(seed, name)
    assert 0 <= value < 2**32
    assert value == request_seed(seed, name)
    assert value != request_seed(seed + 1, name) or value != request_seed(seed, name + "x")


@pytest.mark.parametrize(
    "changes",
    [
        {"max_tokens": 0},
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"seed": 2**32},
        {"seed": -1},
        {"messages": ()},
        {"messages": (("user", " \n"),)},
    ],
)
def test_a_request_that_cannot_be_meant_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(FoundryError, match="request one"):
        replace(ONE, **changes)


def test_every_module_that_a_backend_draws_on_is_part_of_its_code() -> None:
    """A reply made by code that has changed since must not be found again."""
    import ast
    from importlib.util import find_spec
    from pathlib import Path

    harmless = {"requests", "base", "llama_log", "cache"}
    for modules in BACKEND_CODE.values():
        for module in modules:
            spec = find_spec(module)
            assert spec is not None
            assert spec.origin is not None
            for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("foundry_pipeline.models."):
                    assert node.module in modules or str(node.module).rsplit(".", 1)[1] in harmless, (
                        module,
                        node.module,
                    )


@dataclass(frozen=True)
class Prompt:
    id: str
    text: str


def test_an_evaluation_asks_every_prompt_once_with_a_seed_of_its_own() -> None:
    sampling = Sampling(temperature=0.7, top_k=20, top_p=0.9, max_tokens=512, seed=3)
    prompts = [Prompt("gt-01", "What is a faction?"), Prompt("gt-02", "What is a faction?")]
    first, second = evaluation_requests(prompts, sampling, max_tokens=160)
    assert first.messages == (("user", "What is a faction?"),)
    assert (first.request_id, first.max_tokens, first.temperature, first.top_k, first.top_p) == (
        "gt-01",
        160,
        0.7,
        20,
        0.9,
    )
    assert first.seed != second.seed
