"""The model that is trained: a frozen base with a fresh LoRA on every linear layer, ready for packed pairs.

    model, tokenizer = load_trainable(base_dir, values)                                   # on the processor
    model, tokenizer = load_trainable(base_dir, values, Compute(weights="nf4"), "cuda:0")   # QLoRA on a GPU

The folder holds full precision in any case: four-bit weights are made while it is loaded, and what was trained on them is
merged into the folder's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_pipeline.declarations.compute import Compute
from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.merge import require_full_precision
from foundry_pipeline.training.plan import Hyperparameters
from foundry_pipeline.training.preference.attention import prepare
from foundry_pipeline.training.preference.lora import fuse


def load_trainable(
    base_dir: Path, values: Hyperparameters, compute: Compute | None = None, device: str = "cpu"
) -> tuple[Any, Any]:
    """Model and tokenizer, from local files only, on `device`; weights that are to be shared out stay in main memory.

    In bfloat16 the frozen weights are held as the matrix products use them anyway; the adapter stays in float32, where
    small steps are not rounded away. The LoRA's first values follow from torch's seed.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    compute = compute or Compute()
    if not (base_dir / "config.json").is_file():
        raise FoundryError(
            "no model here (config.json is missing)", where=str(base_dir), mend="materialize the base model first"
        )
    require_full_precision(base_dir)  # here and not only when it is merged, after the training is paid for
    tokenizer = AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    dtype = torch.bfloat16 if values.precision == "bfloat16" else torch.float32
    placed: Any = None if device == "cpu" or compute.sharding == "fsdp" else device
    form: dict[str, Any] = {}
    if compute.weights == "nf4":
        form, placed = {"quantization_config": four_bits(dtype)}, {"": device}
    model: Any = AutoModelForCausalLM.from_pretrained(
        base_dir, dtype=dtype, local_files_only=True, device_map=placed, **form
    )
    model.config.use_cache = False
    prepare(model, attention_kind(compute, device))
    adapter = LoraConfig(
        r=values.lora_rank,
        lora_alpha=values.lora_alpha,
        lora_dropout=0.0,
        target_modules=values.lora_targets,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, adapter)
    if device == "cpu" and compute.sharding != "fsdp":
        fuse(
            model
        )  # on a GPU PEFT's way has been measured and this has not; sharded weights are gathered module by module
    if recomputes(compute, device):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train(), tokenizer


def attention_kind(compute: Compute, device: str) -> Any:
    """`blocks` or `sdpa`, where the profile leaves the choice to the device."""
    if compute.attention == "auto":
        return "blocks" if device == "cpu" else "sdpa"
    return compute.attention


def recomputes(compute: Compute, device: str) -> bool:
    """Whether activations are computed again in the backward pass.

    Left open, on a GPU only: there the base is large and activations do not fit; on a CPU memory is there and time is not.
    """
    return device != "cpu" if compute.gradient_checkpointing is None else compute.gradient_checkpointing


def four_bits(dtype: Any) -> Any:
    """How bitsandbytes is to hold the frozen layers: NF4 with double quantization, as in QLoRA (Dettmers et al. 2023,
    arXiv 2305.14314); embeddings, norms and output layer stay as they are."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise FoundryError(
            "weights in nf4 need the package bitsandbytes",
            where="`compute.weights` of the profile, under assets/profiles/",
            mend="pip install -e '.[gpu]'   # or set `weights: full`",
        ) from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
