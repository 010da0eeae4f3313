"""How large a model is, from its configuration alone: built on the meta device, where a tensor has a shape and no memory.

    shape = measure({"model_type": "qwen3", "hidden_size": 5120, "num_hidden_layers": 64, …})
    shape.parameters            → 32762123264
    shape.lora_per_rank * 64    → 536870912       parameters of a LoRA of rank 64 on every linear layer, by PEFT's count

Nothing is counted by formula: the classes of `transformers` and PEFT are the ones that train.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError


@dataclass(frozen=True)
class Shape:
    """Counts of parameters, and the widths that activations have.

    `parameters` counts a tied weight once. `linear` are weights of linear layers that every text token passes, without
    the output layer; `head` those of the output layer, which only scored tokens pass; `lora_per_rank` the parameters of a
    LoRA of rank 1 on every linear layer, those of a vision tower included. `query` and `key_value` are rows of all
    heads together.
    """

    model: str
    parameters: int
    linear: int
    head: int
    lora_per_rank: int
    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    heads: int
    vocabulary: int


def measure(config: Mapping[str, Any]) -> Shape:
    """The shape of a causal language model with this configuration (the fields of a config.json).

    Raises FoundryError for a configuration that `transformers` cannot build a model from.
    """
    return _measure(json.dumps(dict(config), sort_keys=True))


@lru_cache(maxsize=8)
def _measure(text: str) -> Shape:
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {k: v for k, v in json.loads(text).items() if k not in ("quantization_config", "transformers_version")}
    kind = fields.pop("model_type", None)
    try:
        config = AutoConfig.for_model(kind, **fields)
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of the library's own use of itself
            model: Any = AutoModelForCausalLM.from_config(config)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise FoundryError(
            f"no model can be made of this architecture: {str(error).splitlines()[0][:300]}",
            where=f"model_type {kind!r}",
            mend="correct `architecture` of this model in assets/profiles/: fields as in its config.json",
        ) from error
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    parameters = sum(p.numel() for p in model.parameters())
    linear = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Linear) and m is not head)
    name = type(model).__name__
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        tuned: Any = get_peft_model(
            model, LoraConfig(r=1, lora_alpha=1, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    told = config.get_text_config()
    width = getattr(told, "head_dim", None) or told.hidden_size // told.num_attention_heads
    return Shape(
        model=name,
        parameters=parameters,
        linear=linear,
        head=head.weight.numel(),
        lora_per_rank=sum(p.numel() for p in tuned.parameters() if p.requires_grad),
        layers=told.num_hidden_layers,
        hidden=told.hidden_size,
        intermediate=told.intermediate_size,
        query=told.num_attention_heads * width,
        key_value=(getattr(told, "num_key_value_heads", None) or told.num_attention_heads) * width,
        heads=told.num_attention_heads,
        vocabulary=told.vocab_size,
    )


def folder_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of weights in a local folder, or None where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def cached_config(repo: str, revision: str) -> dict[str, Any] | None:
    """The configuration of a hub model as this machine's hub cache holds it; nobody is asked."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=revision)
    return folder_config(Path(found).parent) if isinstance(found, str) else None


@lru_cache(maxsize=8)
def gguf_config(path: Path) -> dict[str, Any]:
    """The configuration in the header of a GGUF file; its weights are not read."""
    from transformers import AutoConfig

    from foundry_pipeline.models.base import quiet_transformers

    with quiet_transformers():
        config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    found: dict[str, Any] = config.to_dict()
    return found
