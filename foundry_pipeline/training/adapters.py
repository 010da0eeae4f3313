"""The model that is trained: a frozen base with a fresh LoRA on every linear layer, ready for packed pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundry_pipeline.errors import FoundryError
from foundry_pipeline.export.merge import require_full_precision
from foundry_pipeline.training.plan import Hyperparameters
from foundry_pipeline.training.preference.attention import prepare


def load_trainable(base_dir: Path, values: Hyperparameters) -> tuple[Any, Any]:
    """Model and tokenizer, from local files only.

    In bfloat16 the frozen weights are held as the matrix products use them anyway; the adapter stays in float32, where
    small steps are not rounded away. The LoRA's first values follow from torch's seed.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (base_dir / "config.json").is_file():
        raise FoundryError(
            "no model here (config.json is missing)", where=str(base_dir), mend="materialize the base model first"
        )
    require_full_precision(base_dir)  # here and not only when it is merged, after the training is paid for
    on_gpu = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    dtype = torch.bfloat16 if values.precision == "bfloat16" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(
        base_dir, dtype=dtype, local_files_only=True, device_map="cuda" if on_gpu else None
    )
    model.config.use_cache = False
    prepare(model)
    adapter = LoraConfig(
        r=values.lora_rank,
        lora_alpha=values.lora_alpha,
        lora_dropout=0.0,
        target_modules=values.lora_targets,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, adapter)
    if on_gpu:
        # on a GPU the base is large and activations do not fit; on a CPU memory is there and time is not
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train(), tokenizer
