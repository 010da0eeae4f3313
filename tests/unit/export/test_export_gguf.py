"""GGUF files: the same to the byte, and asked in the same way as the folder they come from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import WIDTH, origin

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.export import adapter_file
from foundry_pipeline.export.gguf import check_chat, write_gguf
from foundry_pipeline.launch import ScriptSession, read_facts, run_script
from foundry_pipeline.lineage.hashing import folder_files

TYPES = ("f16", "q8_0", "q5_k_m", "q4_k_m")


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    write_gguf(tiny, out, types=TYPES, name="tiny-model", threads=2)
    return out


def header(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: f.contents() for name, f in GGUFReader(path).fields.items() if "tokens" not in name}


def test_every_type_is_there_and_smaller_than_the_one_before(files: Path) -> None:
    sizes = [(files / f"{kind}.gguf").stat().st_size for kind in TYPES]
    assert sizes == sorted(sizes, reverse=True)
    assert {p.name for p in files.iterdir()} == {f"{kind}.gguf" for kind in TYPES}


def test_made_again_from_a_copy_elsewhere_it_is_the_same_to_the_byte(tiny: Path, files: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "another_name_7b")
    (tmp_path / "out").mkdir()
    write_gguf(tmp_path / "another_name_7b", tmp_path / "out", types=TYPES, name="tiny-model", threads=1)
    assert folder_files(tmp_path / "out") == folder_files(files)


@pytest.mark.parametrize("kind", TYPES)
def test_a_file_says_what_it_is(files: Path, kind: str) -> None:
    said = header(files / f"{kind}.gguf")
    assert said["general.name"] == "tiny-model"
    assert said["tokenizer.ggml.pre"] == "smollm"
    assert said["tokenizer.ggml.eos_token_id"] == 2
    assert said["llama.embedding_length"] == WIDTH
    assert "SmolLM" in said["tokenizer.chat_template"]


def test_further_metadata_is_written(tiny: Path, tmp_path: Path) -> None:
    said = "run madison_r2; dataset 12ab"
    write_gguf(tiny, tmp_path, types=("q8_0",), name="x", threads=2, metadata={"general.description": said})
    assert header(tmp_path / "q8_0.gguf")["general.description"] == said
    assert not (tmp_path / "f16.gguf").exists()


def test_a_file_with_another_template_or_end_token_is_refused(tiny: Path, files: Path, tmp_path: Path) -> None:
    check_chat(tiny, files / "q4_k_m.gguf")
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    (other / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(FoundryError, match="chat template of the GGUF is not the model's"):
        check_chat(other, files / "f16.gguf")
    shutil.copy(tiny / "chat_template.jinja", other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": "<|endoftext|>"}))
    with pytest.raises(FoundryError, match="end token of the GGUF is not the model's: 2 instead of 0"):
        check_chat(other, files / "f16.gguf")
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|endoftext|>"}))
    with pytest.raises(FoundryError, match="bos token of the GGUF is not the model's: 1 instead of 0"):
        check_chat(other, files / "f16.gguf")
    shutil.copy(tiny / "tokenizer_config.json", other)
    generation = json.loads((other / "generation_config.json").read_text())
    (other / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": [2, 30]}))
    with pytest.raises(FoundryError, match=r"end an answer of the GGUF is not the model's: \[2\] instead of \[2, 30\]"):
        check_chat(other, files / "f16.gguf")


def test_a_tokenizer_that_cuts_text_otherwise_is_refused(tiny: Path, files: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = tokenizer["pre_tokenizer"]["pretokenizers"][-1]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(FoundryError, match="llama.cpp as"):
        check_chat(other, files / "f16.gguf")


def test_a_quantized_file_still_computes(files: Path) -> None:
    import llama_cpp
    import numpy as np

    rows = {}
    for kind in TYPES:
        llama = llama_cpp.Llama(str(files / f"{kind}.gguf"), n_ctx=64, n_threads=2, logits_all=True, verbose=False)
        llama.eval([1, 520, 30, 40])
        rows[kind] = np.array(llama.scores[:4], dtype=np.float64)
        llama.close()
    spread = rows["f16"].std()
    errors = [float(np.sqrt(((rows[kind] - rows["f16"]) ** 2).mean()) / spread) for kind in TYPES[1:]]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.02
    assert errors[-1] < 0.3


def test_an_unknown_type_and_an_unknown_architecture_are_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="unknown GGUF type q3"):
        write_gguf(tiny, tmp_path, types=("q3",), name="x", threads=2)
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"architectures": ["NobodysModel"]}))
    with pytest.raises(FoundryError, match="NobodysModel"):
        write_gguf(other, tmp_path, types=("f16",), name="x", threads=2)
    assert not (tmp_path / "f16.gguf").exists()


def test_what_is_done_beside_the_converter_is_done_once_and_its_failure_ends_it(tiny: Path, tmp_path: Path) -> None:
    """Whoever fails, no child goes on, and no half file stays under a name that somebody might believe."""

    def fail() -> None:
        children.extend(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())
        raise FoundryError("the disk of the adapter is full", where="lora.gguf", mend="free some")

    children: list[str] = []
    with pytest.raises(FoundryError, match="disk of the adapter"):
        write_gguf(tiny, tmp_path, types=("f16",), name="x", threads=2, meanwhile=fail)
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert list(tmp_path.iterdir()) == []


def test_room_is_asked_for_before_the_converter_starts(tiny: Path, full_disk: Path) -> None:
    with pytest.raises(FoundryError, match="will be written"):
        write_gguf(tiny, full_disk, types=("f16",), name="x", threads=2)
    assert list(full_disk.iterdir()) == []


def test_the_script_merges_and_converts(tiny: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    module = "foundry_pipeline.export.export"
    one, two = tmp_path / "merge", tmp_path / "gguf"
    run_script(module, {"stage": "merge", "base_dir": str(tiny), "adapter_dir": str(tiny_adapter)}, one)
    assert read_facts(one)["layers_changed"] == 14
    assert set(folder_files(one / "result")) == set(folder_files(tiny))
    spec = {"stage": "gguf", "model_dir": str(one / "result"), "model_name": "m", "types": ["f16", "q8_0"]}
    run_script(module, {**spec, "adapter_dir": str(tiny_adapter), "origin": origin().to_json()}, two)
    assert set(folder_files(two / "result")) == {"f16.gguf", "q8_0.gguf", "lora.gguf"}
    assert read_facts(two)["lora"]["tensors"] == 28
    for name in ("f16", "q8_0", "lora"):
        assert header(two / "result" / f"{name}.gguf")["foundry.dataset_hash"] == "d" * 64
    assert read_facts(two)["bytes_by_type"]["q8_0"] == (two / "result" / "q8_0.gguf").stat().st_size
    assert not [p for p in two.iterdir() if "partial" in p.name]


def test_where_an_adapter_has_no_layout_the_reason_is_told(tiny: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"architectures": ["LLaMAForCausalLM"]}))
    spec = {"model_dir": str(other), "adapter_dir": str(tiny_adapter)}
    facts = adapter_file(spec, None, tmp_path, ScriptSession(None))
    assert facts["lora"] is None
    assert "LLaMAForCausalLM is not known" in facts["lora_missing"]
    assert not (tmp_path / "lora.gguf").exists()
    assert adapter_file({"model_dir": str(other)}, None, tmp_path, ScriptSession(None)) == {}


def test_the_script_refuses_a_stage_that_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="no export stage `melt`"):
        run_script("foundry_pipeline.export.export", {"stage": "melt"}, tmp_path / "work")
