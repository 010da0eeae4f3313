"""A LoRA adapter as one small GGUF file, which llama.cpp lays over a base of any quantization while it serves it.

    write_lora_gguf(adapter, base, Path("lora.gguf"), origin)   # blk.0.attn_q.weight.lora_a, …lora_b, …
    llama-server -m base-Q4_K_M.gguf --lora lora.gguf           # and with Ollama: FROM base.gguf, ADAPTER ./lora.gguf

The deltas stay in the 32 bits that they were trained in, so a delta smaller than the base's quantization step is not
lost as it would be in a merged and quantized file. llama.cpp multiplies B·A by alpha / rank; the layout of the file is
that of its own `convert_lora_to_gguf.py`, which no package carries. Its Llama keeps the rows of the query and key
projections in another order than `transformers` (pairs of a rotation side by side); rows of B are put in that order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.gguf_keys import Origin, write_keys
from foundry_pipeline.export.merge import adapter_pairs, adapter_scale
from foundry_pipeline.models.base import require_space

if TYPE_CHECKING:
    import numpy as np
    import torch

FILE = "lora.gguf"
# Architecture in config.json → (llama.cpp's name for it, whether rows of query and key are reordered there).
_ARCHITECTURES = {
    "LlamaForCausalLM": ("llama", True),
    "MistralForCausalLM": ("llama", True),
    "Qwen2ForCausalLM": ("qwen2", False),
    "Qwen3ForCausalLM": ("qwen3", False),
    "Gemma2ForCausalLM": ("gemma2", False),
    "Gemma3ForCausalLM": ("gemma3", False),
    "Gemma3ForConditionalGeneration": ("gemma3", False),
}


def write_lora_gguf(adapter: Path, base: Path, target: Path, origin: Origin | None = None) -> dict[str, Any]:
    """Write the adapter folder (PEFT) for the base folder (config.json) to `target`; returns {tensors, bytes}.

    Equal adapters give equal bytes. Raises FoundryError for an adapter that is not plain LoRA, a base of an
    architecture whose layout is not known here, a layer that llama.cpp does not know, and a full disk; nothing
    half-written stays.
    """
    from gguf import GGUFType, GGUFWriter, Keys
    from safetensors import SafetensorError, safe_open

    config = _config(base)
    name, reordered = _architecture(config, base)
    where = adapter / "adapter_model.safetensors"
    scale = adapter_scale(adapter)
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    require_space(target.parent, where.stat().st_size * 2 if where.is_file() else 0)
    partial = target.with_name(f".{target.name}.partial")
    writer = GGUFWriter(partial, name)
    try:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, scale * rank)
        if origin is not None:
            write_keys(writer, origin)
        tensors = 0
        try:
            with safe_open(where, framework="pt") as weights:
                for layer, down, up in adapter_pairs(weights, adapter):
                    for key, values in _tensors(layer, down, up, config, name, reordered, where):
                        writer.add_tensor(key, values)
                        tensors += 1
        except (OSError, SafetensorError) as error:
            raise FoundryError(
                f"the adapter's weights cannot be read: {error}", where=str(where), mend="train the run again"
            ) from error
        if not tensors:
            raise FoundryError("the adapter holds no weights", where=str(where), mend="train the run again")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.chmod(0o644)
        partial.rename(target)
    finally:
        writer.close()
        partial.unlink(missing_ok=True)
    return {"tensors": tensors, "bytes": target.stat().st_size}


def _tensors(
    layer: str,
    down: torch.Tensor,
    up: torch.Tensor,
    config: dict[str, Any],
    architecture: str,
    reordered: bool,
    where: Path,
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """llama.cpp's names and values of one layer's A (rank, in) and B (out, rank)."""
    import torch

    # The language half of a model with eyes is converted alone, under the names that it has without them.
    plain = layer.replace("model.language_model.", "model.").replace("language_model.model.", "model.")
    key = _names(architecture, int(config["num_hidden_layers"])).get_name(f"{plain}.weight", try_suffixes=(".weight",))
    if key is None or key == "token_embd.weight":
        raise FoundryError(
            f"llama.cpp has no place for an adapter of {layer}",
            where=str(where),
            mend="serve the merged model; or train with `lora_targets: all-linear`, which leaves embeddings alone",
        )
    rows = up
    if reordered and plain.endswith(("q_proj", "k_proj")):
        heads = int(config["num_attention_heads"])
        if plain.endswith("k_proj"):
            heads = int(config.get("num_key_value_heads") or heads)
        rows = side_by_side(up, heads)
    for side, values in (("a", down), ("b", rows)):
        yield f"{key}.lora_{side}", values.to(torch.float32).contiguous().numpy()


def side_by_side(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (heads · size, …) reordered within each head: i and i + size/2, which turn together, become neighbours."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@cache
def _names(architecture: str, layers: int) -> Any:
    """llama.cpp's table of names; made once, since making it takes as long as writing a layer."""
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(a for a in MODEL_ARCH if MODEL_ARCH_NAMES[a] == architecture)
    return get_tensor_name_map(arch, layers)


def _config(base: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise FoundryError(f"not a model folder: {error}", where=str(base), mend="build the base model anew") from error
    return {**config, **config.get("text_config", {}), "architectures": config.get("architectures")}


def unknown_layout(base: Path) -> str:
    """Why no adapter file can be written for a base folder; empty where one can."""
    declared = (_config(base).get("architectures") or ["nothing"])[0]
    return "" if declared in _ARCHITECTURES else f"how llama.cpp lays out {declared} is not known here"


def _architecture(config: dict[str, Any], base: Path) -> tuple[str, bool]:
    if reason := unknown_layout(base):
        raise FoundryError(
            reason,
            where=str(base / "config.json"),
            mend=f"serve the merged model; adapters are written for {', '.join(_ARCHITECTURES)}",
        )
    return _ARCHITECTURES[config["architectures"][0]]
