"""TRL's own preference losses on our tokens: what the project's step is held to, and timed beside.

TRL 1.16 keeps ORPO under `trl.experimental`, which may change without notice; nothing but tests and benchmarks reads it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from foundry_pipeline.training.tokens import Example, columns


def word_tokenizer() -> Any:
    """A tokenizer for rows that are token ids already: the trainer asks it for special tokens only."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def trl_trainer(
    model: Any, tokenizer: Any, examples: Sequence[Example], *, method: str, beta: float, device: str = "cpu"
) -> Any:
    """TRL's trainer of the method around a model that carries its adapter; batch of one pair, no automatic precision."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset

    if method == "orpo":
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer
    else:
        from trl.trainer.dpo_config import DPOConfig as Config
        from trl.trainer.dpo_trainer import DPOTrainer as Trainer

    class Ours(Trainer):  # type: ignore[misc, valid-type]
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature  # ORPO: tokenized by us

        def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
            return dataset  # DPO: the same

    arguments = Config(
        output_dir=tempfile.mkdtemp(prefix="trl-peer-"),
        per_device_train_batch_size=1,
        use_cpu=device == "cpu",
        bf16=False,
        beta=beta,
        max_length=4096,
        report_to="none",
        remove_unused_columns=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    rows = Dataset.from_list([columns(example, method) for example in examples])
    return Ours(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)


def trl_loss(trainer: Any, examples: Sequence[Example], *, method: str) -> Any:
    """TRL's mean loss over the examples, one forward pass a pair, as its trainer accumulates them."""
    total = 0.0
    for example in examples:
        batch = trainer.data_collator([columns(example, method)])
        if method == "orpo":
            loss, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
        else:
            loss = trainer.compute_loss(trainer.model, batch)
        total = total + loss / len(examples)
    return total
