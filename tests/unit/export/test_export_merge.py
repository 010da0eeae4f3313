"""Merging: PEFT's own sum, rounded once, or a refusal that says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import write_adapter, write_tiny

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.merge import adapter_scale, merge
from foundry_pipeline.lineage.hashing import folder_files


def merged(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    out.mkdir()
    return merge(base, adapter, out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}])
def test_the_sum_is_that_of_peft_in_32_bits(tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = write_adapter(tmp_path / "adapter", tiny, **options)
    facts = merged(tiny, adapter, tmp_path / "out")
    exact: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(exact, str(adapter)).merge_and_unload().to(torch.bfloat16).state_dict()
    found = weights(tmp_path / "out")
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, wanted[name]), name
    changed = sum(not torch.equal(found[n], t) for n, t in weights(tiny).items())
    assert facts["layers_changed"] == changed == (4 if "target_modules" in options else 14)


def test_merged_again_it_is_the_same_to_the_byte(tiny: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merged(tiny, tiny_adapter, tmp_path / "one")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        merged(tiny, tiny_adapter, tmp_path / "two")
    finally:
        torch.set_num_threads(threads)
    assert folder_files(tmp_path / "one") == folder_files(tmp_path / "two")


def test_tokenizer_template_and_end_tokens_travel_unchanged(tiny: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merged(tiny, tiny_adapter, tmp_path / "out")
    before, after = folder_files(tiny), folder_files(tmp_path / "out")
    assert set(before) == set(after)
    assert {n for n in before if before[n] != after[n]} <= {"model.safetensors", "config.json"}
    one, two = (json.loads((f / "config.json").read_text()) for f in (tiny, tmp_path / "out"))
    assert one == two


def test_a_delta_below_the_rounding_step_shows(tiny: Path, tmp_path: Path) -> None:
    loud = merged(tiny, write_adapter(tmp_path / "loud", tiny, std=0.05), tmp_path / "a")
    faint = merged(tiny, write_adapter(tmp_path / "faint", tiny, std=1e-6), tmp_path / "b")
    assert loud["rounding_share"] < 0.2 < 0.9 < faint["rounding_share"]
    assert loud["delta_norm_share"] > 1000 * faint["delta_norm_share"]


def test_an_adapter_that_changes_nothing_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="changed nothing"):
        merged(tiny, write_adapter(tmp_path / "zero", tiny, std=0), tmp_path / "out")


def test_a_quantized_base_is_refused(tiny: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(FoundryError, match=r"quantized \(bitsandbytes\)"):
        merged(base, tiny_adapter, tmp_path / "out")


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"rank_pattern": {"q_proj": 2}}]
)
def test_another_kind_of_adapter_is_refused(tiny: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = write_adapter(tmp_path / "adapter", tiny, **options)
    with pytest.raises(FoundryError, match="only plain LoRA"):
        merged(tiny, adapter, tmp_path / "out")


def test_an_adapter_for_another_base_is_refused(
    tiny: Path, tiny_adapter: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, other)
    held = load_file(other / "adapter_model.safetensors")
    path = other / "adapter_model.safetensors"
    save_file({n.replace("layers.1", "layers.7"): t for n, t in held.items()}, path)
    with pytest.raises(FoundryError, match=r"layers\.7"):
        merged(tiny, other, tmp_path / "out1")
    lone = max(n for n in held if "lora_B" in n)
    save_file({n: t for n, t in held.items() if n != lone}, path)
    with pytest.raises(FoundryError, match="pairs A and B"):
        merged(tiny, other, tmp_path / "out2")
    path.unlink()
    (other / "adapter_config.json").unlink()
    with pytest.raises(FoundryError, match="not an adapter"):
        merged(tiny, other, tmp_path / "out3")


def test_an_output_layer_shared_with_the_input_is_left_alone(
    tokenizer_folder: Path, tiny: Path, tmp_path: Path
) -> None:
    apart = write_tiny(tmp_path / "apart", tokenizer_folder, tied=False)
    adapter = write_adapter(tmp_path / "adapter", apart, target_modules=["lm_head"])
    assert merged(apart, adapter, tmp_path / "out")["layers_changed"] == 1
    with pytest.raises(FoundryError, match="lm_head"):
        merged(tiny, adapter, tmp_path / "tied")


def test_scale_is_alpha_over_rank(tiny_adapter: Path, tmp_path: Path) -> None:
    assert adapter_scale(tiny_adapter) == 2.0
    config = json.loads((tiny_adapter / "adapter_config.json").read_text()) | {"use_rslora": True, "r": 16}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert adapter_scale(tmp_path) == 4.0
