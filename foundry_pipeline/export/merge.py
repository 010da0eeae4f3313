"""Fold a LoRA adapter into the full-precision weights it was trained on.

    merge(Path("base"), Path("adapter"), Path("merged"))   # W + scale · B·A for every adapted layer

The sum is taken in 32 bits and rounded once, to bfloat16: a small delta added in 16 bits is lost on the way.
A quantized base is refused, because the sum would then be taken with weights that training never saw.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.models.base import quiet_transformers, require_space

if TYPE_CHECKING:
    import torch

# Everything of the base folder that is not weights travels byte for byte: tokenizer, chat template, end tokens.
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")
# Kinds of LoRA whose delta is more than scale · B·A; none of them is trained here, and none is passed over in silence.
_UNSUPPORTED = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
)
_PREFIX = "base_model.model."
_FULL = ("F64", "F32", "F16", "BF16")
_PACKED = (".qweight", ".qzeros", ".weight_packed", ".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")


@dataclass
class _Change:
    """Sums of squares over all adapted layers: of the weights, of the exact delta, of what rounding made of it."""

    weight: float = 0.0
    delta: float = 0.0
    lost: float = 0.0
    layers: int = 0

    def add(self, weight: torch.Tensor, delta: torch.Tensor, stored: torch.Tensor) -> None:
        self.weight += _squares(weight)
        self.delta += _squares(delta)
        # In 64 bits, into which 32 are widened as they are read.
        self.lost += _squares(stored.double().sub_(weight).sub_(delta))
        self.layers += 1


def _squares(values: torch.Tensor) -> float:
    """Sum of squares, taken in 64 bits without a copy in 64 bits."""
    import torch

    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def require_full_precision(base: Path) -> None:
    """Raise FoundryError for a base whose weights are quantized, or that is no model folder.

    A model that was dequantized into 16 bits, such as the profile `laptop`'s dense copy of a Q4_1 file, is full
    precision here: training saw the very same weights. Its title says where they come from.
    """
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise FoundryError(f"not a model folder: {error}", where=str(base), mend="build the base model anew") from error
    method = ""
    if isinstance(config, dict) and (declared := config.get("quantization_config") or config.get("quantization")):
        method = str(declared.get("quant_method", "method not named")) if isinstance(declared, dict) else str(declared)
    # The configuration may have lost its word of it; the weights themselves cannot.
    method = method or _packed(base)
    if method:
        raise FoundryError(
            f"the base is quantized ({method}); an adapter is merged into full-precision weights only: each weight here "
            "was rounded to a few bits, and rounding the sum to them again would take away most of what was learned",
            where=str(base),
            mend="declare the full-precision weights of this base in assets/profiles/, or serve the adapter beside it",
        )


def _packed(base: Path) -> str:
    """The first weight that is stored in fewer than 16 bits, with its type; empty where there is none.

    Read from the headers of the safetensors files: bitsandbytes, GPTQ and AWQ pack weights into integers.
    """
    from safetensors import safe_open

    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for name in sorted(weights.keys()):
                kind = weights.get_slice(name).get_dtype()
                if name.endswith(_PACKED) or (name.endswith("weight") and kind not in _FULL):
                    return f"{name} is {kind}"
    return ""


def merge(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """Write the merged model to the existing, empty folder `out`; returns facts.

    `delta_norm_share` is the Frobenius norm of all deltas over that of the weights they are added to, and
    `rounding_share` the norm of what rounding to bfloat16 took away or added, over that of the deltas: near 1 the
    adapter drowns in the step between neighbouring numbers. Needs memory for the stored weights once. Raises
    FoundryError for a quantized base, an adapter of another kind or for another base, and one that changes nothing.
    """
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    require_full_precision(base)
    scale = adapter_scale(adapter)
    require_space(out, sum(p.stat().st_size for p in base.glob("*.safetensors")))
    change = _Change()
    with quiet_transformers(), torch.inference_mode():
        network: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", use_safetensors=True, local_files_only=True
        )
        layers = dict(network.named_modules())
        tied = {id(p) for p in network.get_input_embeddings().parameters()}
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
            for name, down, up in adapter_pairs(weights, adapter):
                layer = layers.get(name)
                weight = getattr(layer, "weight", None)
                if weight is None or weight.shape != (up.shape[0], down.shape[1]) or id(weight) in tied:
                    raise FoundryError(
                        f"the adapter changes {name}, which this base has not, has in another shape, or shares",
                        where=str(adapter),
                        mend="merge it into the base that it was trained on",
                    )
                exact = weight.float()
                delta = (up.float() @ down.float()) * scale
                stored = (exact + delta).to(torch.bfloat16)
                change.add(exact, delta, stored)
                # In the base's own precision until all is saved: bfloat16 fits into each of them without loss.
                weight.copy_(stored)
        if not change.delta:
            raise FoundryError(
                "merging changed nothing: the adapter is empty or was never trained",
                where=str(adapter),
                mend="train it anew",
            )
        network.to(torch.bfloat16).save_pretrained(out)
    _side_files(base, out)
    return {
        "layers_changed": change.layers,
        "delta_norm_share": round((change.delta / change.weight) ** 0.5, 6),
        "rounding_share": round((change.lost / change.delta) ** 0.5, 6),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def adapter_scale(adapter: Path) -> float:
    """What B·A is multiplied by: alpha / r, or alpha / √r for rank-stabilized LoRA (arXiv 2312.03732).

    Raises FoundryError for a folder that is no LoRA adapter, or one of a kind whose delta is not a plain product.
    """
    where = adapter / "adapter_config.json"
    try:
        config = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise FoundryError(f"not an adapter: {error}", where=str(where), mend="train the run again") from error
    kind = config.get("peft_type")
    beyond = [key for key in _UNSUPPORTED if config.get(key)]
    if kind != "LORA" or beyond or config.get("bias", "none") != "none":
        raise FoundryError(
            f"only plain LoRA is merged; this is {kind}" + (f" with {', '.join(beyond)}" if beyond else ""),
            where=str(where),
            mend="train the adapter without these options, or merge it with PEFT",
        )
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (rank**0.5 if config.get("use_rslora") else rank)


def adapter_pairs(weights: Any, adapter: Path) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """(layer, A, B) for every adapted layer, by name. Raises FoundryError for weights that are neither."""
    names = set(weights.keys())
    layers = sorted({n.removesuffix(".lora_A.weight") for n in names if n.endswith(".lora_A.weight")})
    known = {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    if names != known or not all(layer.startswith(_PREFIX) for layer in layers):
        odd = sorted(names ^ known) or [layer for layer in layers if not layer.startswith(_PREFIX)]
        raise FoundryError(
            f"weights that do not come in pairs A and B: {', '.join(odd[:3])}",
            where=str(adapter / "adapter_model.safetensors"),
            mend="train the run again",
        )
    for layer in layers:
        yield (
            layer.removeprefix(_PREFIX),
            weights.get_tensor(f"{layer}.lora_A.weight"),
            weights.get_tensor(f"{layer}.lora_B.weight"),
        )


def _side_files(base: Path, out: Path) -> None:
    for path in sorted(base.iterdir()):
        if path.is_file() and not any(path.match(pattern) for pattern in WEIGHTS):
            shutil.copyfile(path, out / path.name)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in out.iterdir():
        path.chmod(0o644)
