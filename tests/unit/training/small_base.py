"""A Llama of two small layers with random weights and a tokenizer of whole words: a training of it takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_examples import small_pairs

TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def write_small_base(folder: Path) -> Path:
    """Write dense weights, configuration, tokenizer and chat template, all words of `small_pairs` known."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    splitter = pre_tokenizers.WhitespaceSplit()
    said = " ".join(f"{p['prompt']} {p['chosen']} {p['rejected']}" for p in small_pairs())
    words = ["[UNK]", "<s>", "</s>", "user", "assistant", *dict.fromkeys(said.split())]
    assert len(words) <= CONFIG["vocab_size"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = splitter
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    network: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG)).to(torch.bfloat16)
    network.save_pretrained(str(folder))
    return folder
