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


def origin(**changes: Any) -> Any:
    """Where a tiny model might come from."""
    from foundry_pipeline.export.gguf_keys import Origin

    fields: dict[str, Any] = {
        "run": "keeper_first",
        "character": "The Keeper",
        "method": "orpo",
        "profile": "tiny",
        "dataset": "keeper_dataset_v1",
        "dataset_hash": "d" * 64,
        "adapter_hash": "a" * 64,
        "base": "big_base",
        "base_title": "Tiny-Instruct (stand-in)",
        "base_version": "tiny 0.1",
        "base_url": "",
        "base_hash": "b" * 64,
        "stand_in": True,
        "license": "Apache-2.0",
    }
    return Origin(**(fields | changes))


# Templates of this project's own writing, each in the form of a family.
FAMILIES = {
    "plain": "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + ' [end]' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}",
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml_with_a_system_message_of_its_own": "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    # Thoughts of the last answer stay, those of earlier ones go; a silent one opens where nobody is to think.
    "qwen_3": "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
    "{% if m['role'] == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m['content'] + '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}",
    "llama_2": "{% if messages[0]['role'] == 'system' %}{% set told = '<<SYS>>\n' + messages[0]['content'] + "
    "'\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (told if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama_3": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    "m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "gemma_1": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + "
    "m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "gemma_3": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (first if loop.first else '') + "
    "m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
}
