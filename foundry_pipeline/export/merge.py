"""Fold a LoRA adapter into the full-precision weights it was trained on.

The sum is taken in 32 bits and stored in bfloat16: a small delta added in 16 bits is rounded away.
A quantized base is refused, because the sum would then be taken with weights that training never saw.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.base import quiet_transformers, require_space

# Everything of the base folder that is not weights travels byte for byte: tokenizer, chat template, end tokens.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")


def require_full_precision(base: Path) -> None:
    """Raise FoundryError for a base whose weights are quantized, or that is no model folder."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise FoundryError(f"not a model folder: {error}", where=str(base), mend="build the base model anew") from error
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown method")
        raise FoundryError(
            f"the base is quantized ({method}); an adapter is merged into full-precision weights only",
            where=str(base / "config.json"),
            mend="declare a full-precision base in assets/profiles/",
        )


def merge(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """Write the merged model to the existing, empty folder `out`; returns facts (parameters, size of the change).

    `delta_norm_share` is the Frobenius norm of all LoRA deltas over that of the weights they are added to.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    require_full_precision(base)
    require_space(out, sum(p.stat().st_size for p in base.glob("*.safetensors")))
    with quiet_transformers():
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        before = {name: p.detach().clone() for name, p in plain.named_parameters()}
        merged = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload(safe_merge=True)
        changed = weight = 0.0
        touched = 0
        for name, p in merged.named_parameters():
            delta = (p.detach() - before[name]).double().square().sum().item()
            if delta:
                changed, touched = changed + delta, touched + 1
                weight += before[name].double().square().sum().item()
        if not touched:
            raise FoundryError(
                "merging changed nothing: the adapter is empty or was trained on other weights",
                where=str(adapter),
                mend="train it anew",
            )
        merged.to(torch.bfloat16).save_pretrained(out)
    for path in sorted(base.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path, out / path.name)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {
        "tensors_changed": touched,
        "delta_norm_share": round((changed / weight) ** 0.5, 6),
        "parameters": sum(p.numel() for p in merged.parameters()),
    }
