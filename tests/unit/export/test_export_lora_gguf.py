"""A LoRA as a GGUF adapter: over the F16 base it gives what PEFT gives, and the file says where it comes from."""

from __future__ import annotations

import ctypes
import json
import shutil
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import origin, write_adapter

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.lora_gguf import side_by_side, write_lora_gguf
from foundry_pipeline.lineage.hashing import file_hash
from foundry_pipeline.models.llama_backend import LlamaBackend
from foundry_pipeline.models.llama_log import silence
from foundry_pipeline.models.requests import ChatRequest, ModelRef

IDS = [1, 520, 30, 40, 9906, 281, 17, 42, 6403, 314]


def llama_logits(gguf: Path, lora: Path | None = None, *, ids: list[int] = IDS) -> np.ndarray[Any, Any]:
    """Logits (tokens, vocabulary) of llama.cpp, with an adapter laid over the file."""
    silence()
    lib = llama_cpp
    model = lib.llama_model_load_from_file(str(gguf).encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 2, 2
    params.n_outputs_max = len(ids)
    context = lib.llama_init_from_model(model, params)
    try:
        if lora is not None:
            adapter = lib.llama_adapter_lora_init(model, str(lora).encode())
            assert adapter, "llama.cpp refuses the adapter"
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(adapter)
            assert lib.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0
        batch = lib.llama_batch_init(len(ids), 0, 1)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, True
            batch.seq_id[i][0] = 0
        batch.n_tokens = len(ids)
        assert lib.llama_decode(context, batch) == 0
        size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        rows = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (size,)).copy() for i in range(len(ids))]
        lib.llama_batch_free(batch)
        return np.array(rows, dtype=np.float64)
    finally:
        lib.llama_free(context)
        lib.llama_model_free(model)


def peft_logits(base: Path, adapter: Path | None) -> np.ndarray[Any, Any]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, str(adapter))
    with torch.inference_mode():
        return network(torch.tensor([IDS])).logits[0].double().numpy()


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "lora_alpha": 5}, {"target_modules": ["k_proj"]}])
def test_over_the_f16_base_it_gives_what_peft_gives(
    tiny: Path, tiny_gguf: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny, std=0.1, **options)
    facts = write_lora_gguf(adapter, tiny, tmp_path / "lora.gguf")
    assert facts["tensors"] == (4 if "target_modules" in options else 28)
    bare, tuned = llama_logits(tiny_gguf / "f16.gguf"), llama_logits(tiny_gguf / "f16.gguf", tmp_path / "lora.gguf")
    wanted, untuned = peft_logits(tiny, adapter), peft_logits(tiny, None)
    moved = np.sqrt(((wanted - untuned) ** 2).mean())
    noise = np.sqrt(((bare - untuned) ** 2).mean())
    assert moved > 10 * noise, "the adapter of this test moves too little to show anything"
    assert np.sqrt(((tuned - wanted) ** 2).mean()) < 2 * noise
    assert np.sqrt((((tuned - bare) - (wanted - untuned)) ** 2).mean()) < 0.05 * moved


def test_over_a_quantized_base_the_delta_is_whole(tiny: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny, std=0.1)
    write_lora_gguf(adapter, tiny, tmp_path / "lora.gguf")
    file = tiny_gguf / "q4_k_m.gguf"
    moved = llama_logits(file, tmp_path / "lora.gguf") - llama_logits(file)
    wanted = peft_logits(tiny, adapter) - peft_logits(tiny, None)
    assert np.corrcoef(moved.ravel(), wanted.ravel())[0, 1] > 0.98


def test_the_backend_answers_with_the_adapter_over_a_quantized_base(
    tiny: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny, std=0.1)
    write_lora_gguf(adapter, tiny, tmp_path / "lora.gguf")
    file = str(tiny_gguf / "q4_k_m.gguf")
    requests = [ChatRequest(q, (("user", q),), 12, 0.0, 0, 1.0, 0) for q in ("What is a faction?", "And a senate?")]

    def served(lora: Path | None) -> LlamaBackend:
        reference = ModelRef("llama_cpp", file, "x", str(lora) if lora else None, "y" if lora else None, "tiny")
        return LlamaBackend(reference, threads=2)

    bare, tuned = served(None), served(tmp_path / "lora.gguf")
    try:
        without, answers = ([r.text for r in b.answer(requests, ["a", "b"])] for b in (bare, tuned))
        assert all(a != b for a, b in zip(without, answers, strict=True))
        logits = llama_logits(Path(file), tmp_path / "lora.gguf", ids=tuned.prompt_ids(requests[0]))
        assert answers[0].startswith(tuned._text([int(logits[-1].argmax())]))
    finally:
        bare.close()
        tuned.close()
    (tmp_path / "torn.gguf").write_bytes((tmp_path / "lora.gguf").read_bytes()[:9000])
    with pytest.raises(FoundryError, match="cannot lay this adapter"):
        served(tmp_path / "torn.gguf").load()


def test_rows_of_a_head_that_turn_together_become_neighbours() -> None:
    rows = torch.arange(12).reshape(12, 1)
    assert side_by_side(rows, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def test_the_file_says_what_it_is_and_is_the_same_to_the_byte(tiny: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    write_lora_gguf(tiny_adapter, tiny, tmp_path / "one.gguf", origin())
    write_lora_gguf(tiny_adapter, tiny, tmp_path / "two.gguf", origin())
    assert file_hash(tmp_path / "one.gguf") == file_hash(tmp_path / "two.gguf")
    reader = GGUFReader(tmp_path / "one.gguf")
    said = {name: f.contents() for name, f in reader.fields.items()}
    assert (said["general.type"], said["adapter.type"], said["adapter.lora.alpha"]) == ("adapter", "lora", 16.0)
    assert said["general.architecture"] == "llama"
    for key, value in origin().keys().items():
        assert said[key] == value
    tensors = {t.name: t.tensor_type.name for t in reader.tensors}
    assert set(tensors.values()) == {"F32"}
    assert {"blk.0.attn_q.weight.lora_a", "blk.1.ffn_down.weight.lora_b"} <= set(tensors)


def test_what_llama_cpp_could_not_serve_is_refused_and_leaves_nothing(
    tiny: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    target = tmp_path / "lora.gguf"

    def refused(adapter: Path, base: Path, says: str) -> None:
        with pytest.raises(FoundryError, match=says):
            write_lora_gguf(adapter, base, target)
        assert not [p for p in tmp_path.iterdir() if "lora.gguf" in p.name]

    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"architectures": ["NobodysModel"]}))
    refused(tiny_adapter, other, "NobodysModel is not known")
    refused(write_adapter(tmp_path / "dora", tiny, use_dora=True), tiny, "only plain LoRA")
    refused(tmp_path / "nowhere", tiny, "not an adapter")
    strange = tmp_path / "strange"
    shutil.copytree(tiny_adapter, strange)
    held = load_file(strange / "adapter_model.safetensors")
    save_file({n.replace("q_proj", "x_proj"): t for n, t in held.items()}, strange / "adapter_model.safetensors")
    refused(strange, tiny, "no place for an adapter of model.layers.0.self_attn.x_proj")
    (strange / "adapter_model.safetensors").write_bytes(b"torn")
    refused(strange, tiny, "cannot be read")
