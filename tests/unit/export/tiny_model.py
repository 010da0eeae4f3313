"""A Llama of two layers with random weights and the real tokenizer: small enough to convert in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WIDTH = 256  # K-quants work on rows of 256


def write_tiny(folder: Path, dense_side: Path, *, seed: int = 0, tied: bool = True) -> Path:
    """Write a dense model folder; tokenizer and template are copied from `dense_side`."""
    import shutil

    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    network = LlamaForCausalLM(config).to(torch.bfloat16)
    network.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 0, 4], pad_token_id=2)
    network.save_pretrained(str(folder))
    for path in dense_side.iterdir():
        if path.name.startswith(("tokenizer", "chat_template")):
            shutil.copyfile(path, folder / path.name)
    return folder


def write_adapter(folder: Path, base: Path, *, std: float = 0.02, **options: Any) -> Path:
    """Write a LoRA adapter for `base` with random B; `options` go to PEFT's LoraConfig."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    torch.manual_seed(1)
    fields = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    tuned = get_peft_model(network, LoraConfig(**fields))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std) if std else torch.nn.init.zeros_(weight)
    tuned.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
