"""The packaged 135M model: as it comes and in eight bits; each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foundry_pipeline.declarations.assets import PypiModel
from foundry_pipeline.models.base import pypi_file
from foundry_pipeline.models.requests import ChatRequest, ModelRef


@pytest.fixture(scope="session")
def gguf(packaged: PypiModel) -> Path:
    return pypi_file(packaged)


@pytest.fixture(scope="session")
def eight_bit(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model in Q8_0, the type whose sequences do not influence each other within a batch."""
    import llama_cpp

    from foundry_pipeline.models.llama_log import silence

    silence()
    target = tmp_path_factory.mktemp("q8") / "q8_0.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    params.nthread = 2
    assert llama_cpp.llama_model_quantize(str(gguf).encode(), str(target).encode(), params) == 0
    return target


@pytest.fixture(scope="session")
def llama_ref() -> Callable[[Path], ModelRef]:
    return lambda path: ModelRef("llama_cpp", str(path), "c" * 64, None, None, path.name)


@pytest.fixture(scope="session")
def ask() -> Callable[..., ChatRequest]:
    """A request for a lone user message, greedy and short unless told otherwise."""

    def make(text: str, **changes: object) -> ChatRequest:
        fields = {"max_tokens": 8, "temperature": 0.0, "top_k": 40, "top_p": 0.95, "seed": 7} | changes
        return ChatRequest(str(fields.pop("request_id", text)), (("user", text),), **fields)  # type: ignore[arg-type]

    return make
